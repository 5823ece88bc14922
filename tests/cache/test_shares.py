"""A cache that several processes make: each entry once, whatever is shown twice."""

from collections import Counter
from dataclasses import replace

import pytest

from harness.caching import SETTINGS, Bench, Letters, Pooling, blob, picture, save
from masklora.cache import cache as caching
from masklora.cache.builder import Builder
from masklora.cache.cache import build_cache, encoders_of, keys_of
from masklora.cache.keys import text_key
from masklora.cache.plan import plan_entries
from masklora.cache.store import MemoryStore
from masklora.peers import Peers

EVERY_WAY = replace(SETTINGS, crop="random", flip=True, variants=3, infill="other picture", infill_variants=2)


class Seeing(Letters):
    """A text encoder that sees references with its captions."""

    pictures = "seen"

    def encode_with(self, texts, pictures):
        """As without them, but for their brightness."""
        out = self.encode(texts)
        for one, shown in zip(out, pictures, strict=True):
            one["cond"] = one["cond"] + sum(float(picture.mean()) for picture in shown)
        return out


class Counting(MemoryStore):
    """Counts what is written."""

    def __init__(self):
        super().__init__()
        self.written = Counter()

    def write(self, kind, key, tensors, values=None):
        self.written[kind, key] += 1
        super().write(kind, key, tensors, values)


@pytest.fixture
def bench(tmp_path):
    """Seven pictures with references, of which two are the same, masks and captions too."""
    root = tmp_path / "set"
    (root / "before").mkdir(parents=True)
    for number, name in enumerate("abcdefg"):
        seed = 0 if name == "e" else number
        save(picture(seed, (80, 64) if number % 3 else (64, 80)), root / f"{name}.png")
        save(blob(seed, (80, 64) if number % 3 else (64, 80)), root / f"{name}_mask.png")
        save(picture(seed + 20, (80, 64) if number % 3 else (64, 80)), root / "before" / f"{name}.png")
        (root / f"{name}.txt").write_text("make it new" if number % 2 else f"make it {name}", encoding="utf-8")
    return Bench(root, tmp_path / "store")


def made(bench, share, text):
    """What a process with this share of nothing but an empty store writes."""
    store, encoder, dataset = Counting(), Pooling(), bench.data(reference_folders="before")
    ignored = {"progress": lambda done, total, what: None, "check_cancel": lambda: None}
    entries = plan_entries(dataset, EVERY_WAY, memo=store.load_memo(), encoders=encoders_of(encoder, text), **ignored)
    builder = Builder(dataset, EVERY_WAY, encoder=encoder, store=store, **ignored)
    builder.pictures(entries, share=share)
    builder.texts(entries, text, share=share)
    return store.written, keys_of(entries, text_key("", encoder=text.identity))


@pytest.mark.parametrize("count", [1, 2, 3, 16])
@pytest.mark.parametrize("text", [Letters, Seeing])
def test_the_shares_have_nothing_in_common_and_are_the_whole(count, text, bench):
    parts = [made(bench, (number, count), text()) for number in range(count)]
    written = sum((part for part, _ in parts), Counter())
    _, wanted = parts[0]
    assert set(written) == wanted and set(written.values()) == {1}
    # Of two equal pictures one is made, and each has several variants.
    assert {kind for kind, _ in wanted} == {"latent", "mask", "text", "reference"}
    if count in (2, 3):
        assert all(len(part) > len(wanted) / (2 * count) for part, _ in parts)


class Waiting(Peers):
    """One of two, who notes how many entries are there whenever all meet; the other one has made its share then."""

    def __init__(self, bench):
        super().__init__(0, 2, (0, 2))
        self.bench, self.found = bench, []

    def meet(self, *given, **named):
        self.found.append(sum(1 for _ in self.bench.store.rglob("*.safetensors")))
        if len(self.found) == 2:
            other = Peers(1, 2, (1, 2))
            build(self.bench, other)
        return super().meet(*given, **named)


def build(bench, peers):
    """The cache as this process makes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caching, "here", lambda: peers)
        dataset = bench.data(reference_folders="before")
        return build_cache(dataset, EVERY_WAY, encoder=Pooling(), text=Letters(), folder=bench.store)


def test_of_two_processes_each_makes_its_own_after_both_have_looked_what_is_there(bench):
    peers = Waiting(bench)
    cache = build(bench, peers)
    # What is planned depends on what is there.
    assert peers.found[0] == 0 < peers.found[1]
    wanted = keys_of(cache.entries, cache.empty_key)
    assert sum(cache.built.values()) == peers.found[1] < len(wanted)
    assert sum(1 for _ in bench.store.rglob("*.safetensors")) == len(wanted)
    assert "shared out over 2 processes" in cache.summary()
