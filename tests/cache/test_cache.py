"""The cache: every edit makes exactly the affected entries stale, and nothing damaged is ever used."""

import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.caching import SETTINGS, Bench, Letters, Pooling, blob, picture, save
from harness.file_reads import opened_files, opened_in
from masklora.cache.cache import build_cache
from masklora.dataset.sample import Dataset, Sample, merge
from masklora.errors import CacheError, ConfigError, DataError, FamilyError
from masklora.files import temporary_beside
from masklora.pictures.packed_mask import decode_mask, encode_mask
from masklora.settings import CaptionSettings, DatasetSettings, MaskTransform

DAY = 24 * 3600


@pytest.fixture
def folder(tmp_path):
    """Six pictures: a, b with masks, c with alpha, d with opaque alpha, e, f with neither; all captioned."""
    root = tmp_path / "set"
    root.mkdir()
    for seed, name in enumerate("abcdef"):
        save(picture(seed, channels=4 if name in "cd" else 3), root / f"{name}.png")
        (root / f"{name}.txt").write_text(f"picture {name}, one, two", encoding="utf-8")
    for seed, name in enumerate("ab"):
        save(blob(seed), root / f"{name}_mask.png")
    opaque = picture(3, channels=4)
    opaque[..., 3] = 255
    save(opaque, root / "d.png")
    return root


@pytest.fixture
def bench(folder, tmp_path):
    return Bench(folder, tmp_path / "store")


def test_the_first_build_makes_everything_and_the_second_nothing(bench):
    # Of three pictures without a mask the weights are ones of one size: one entry. The seventh text is empty.
    assert bench.build() == (6, 4, 7)
    first = bench.cache.fingerprint
    assert bench.build() == (0, 0, 0)
    assert bench.cache.fingerprint == first


def edit_image(bench):
    save(picture(100), bench.folder / "a.png")


def edit_plain_image(bench):
    save(picture(100), bench.folder / "e.png")


def edit_alpha_picture(bench):
    save(picture(100, channels=4), bench.folder / "c.png")


def edit_mask(bench):
    save(blob(100), bench.folder / "a_mask.png")


def add_mask(bench):
    save(blob(100), bench.folder / "e_mask.png")


def delete_mask(bench):
    (bench.folder / "a_mask.png").unlink()


def edit_caption(bench):
    (bench.folder / "a.txt").write_text("another text", encoding="utf-8")


def rename(bench):
    for suffix in (".png", ".txt", "_mask.png"):
        (bench.folder / f"a{suffix}").rename(bench.folder / f"z{suffix}")


def touch(bench):
    for path in bench.folder.iterdir():
        os.utime(path, ns=(10**18, 10**18))


def save_in_another_format(bench):
    """The same pixels in other bytes: keys follow bytes, so this counts as an edit."""
    Image.open(bench.folder / "a_mask.png").save(bench.folder / "a_mask.png", compress_level=0)


def add_picture(bench):
    save(picture(100), bench.folder / "g.png")
    (bench.folder / "g.txt").write_text("", encoding="utf-8")


def remove_picture(bench):
    (bench.folder / "b.png").unlink()
    (bench.folder / "b_mask.png").unlink()


@pytest.mark.parametrize(
    ("edit", "made"),
    [
        (edit_image, (1, 0, 0)),
        (edit_plain_image, (1, 0, 0)),
        (edit_alpha_picture, (1, 1, 0)),
        (edit_mask, (0, 1, 0)),
        (add_mask, (0, 1, 0)),
        (delete_mask, (0, 0, 0)),
        (edit_caption, (0, 0, 1)),
        (rename, (0, 0, 0)),
        (touch, (0, 0, 0)),
        (save_in_another_format, (0, 1, 0)),
        (add_picture, (1, 0, 0)),
        (remove_picture, (0, 0, 0)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_edit_in_the_folder_makes_exactly_its_own_entries_stale(bench, edit, made):
    bench.build()
    edit(bench)
    assert bench.build() == made
    assert bench.build() == (0, 0, 0)


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({"settings": replace(SETTINGS, resolution=48)}, (6, 4, 0)),
        ({"settings": replace(SETTINGS, bucket_step=8)}, (6, 4, 0)),
        ({"settings": replace(SETTINGS, resize="area")}, (6, 0, 0)),
        ({"settings": replace(SETTINGS, flip=True)}, (6, 3, 0)),
        ({"settings": replace(SETTINGS, batch_size=1, max_gigabytes=1.0, seed=5)}, (0, 0, 0)),
        ({"vae": "another"}, (6, 0, 0)),
        ({"clip": "another"}, (0, 0, 7)),
        ({"mask_source": "none"}, (0, 0, 0)),
        ({"mask_source": "sidecar"}, (0, 0, 0)),
        ({"fill": "grey"}, (3, 0, 0)),
        ({"mask_channel": "red"}, (0, 2, 0)),
        ({"repeats": 3, "loss_multiplier": 0.5, "regularisation": True}, (0, 0, 0)),
        ({"transform": MaskTransform(grow=4)}, (0, 3, 0)),
        ({"transform": MaskTransform(invert=True)}, (0, 3, 0)),
        ({"caption": CaptionSettings(trigger="sks")}, (0, 0, 6)),
        ({"caption": CaptionSettings(dropout=0.5)}, (0, 0, 0)),
    ],
    ids=str,
)
def test_a_changed_option_makes_exactly_what_depends_on_it_stale(bench, options, made):
    bench.build()
    assert bench.build(**options) == made
    assert bench.build(**options) == (0, 0, 0)
    assert bench.build() == (0, 0, 0)


def test_an_opaque_alpha_counts_as_no_mask(bench):
    bench.build()
    assert [entry.has_mask for entry in bench.cache.entries] == [True, True, True, False, False, False]


def test_with_a_fill_the_mask_decides_what_the_vae_sees(bench):
    bench.build(fill="grey")
    save(blob(100), bench.folder / "a_mask.png")
    assert bench.build(fill="grey") == (1, 1, 0)
    assert bench.build(fill="grey", transform=MaskTransform(grow=2)) == (3, 3, 0)


@pytest.mark.parametrize("change", ["edit", "delete"])
def test_with_a_mask_centred_crop_the_mask_decides_the_geometry(bench, change):
    settings = replace(SETTINGS, crop="mask-centred", bucketing=False)
    bench.build(settings)
    if change == "edit":
        save(np.roll(blob(0), 25, axis=1), bench.folder / "a_mask.png")
        assert bench.build(settings) == (1, 1, 0)
    else:
        (bench.folder / "a_mask.png").unlink()
        assert bench.build(settings) == (1, 0, 0)
    assert bench.build(settings) == (0, 0, 0)


def test_the_cached_latent_is_what_the_encoder_makes_of_the_cropped_picture(bench, folder):
    save(picture(0, size=(64, 64)), folder / "a.png")
    (folder / "a_mask.png").unlink()
    bench.build()
    latent = bench.cache.latent(bench.cache.entries[0])
    expected = torch.from_numpy(picture(0, size=(64, 64))).float().div(255).movedim(-1, 0)
    assert torch.allclose(latent, torch.nn.functional.avg_pool2d(expected, 8), atol=1e-6)


def test_flipped_variants_show_the_mirrored_picture_and_mask(bench):
    bench.build(replace(SETTINGS, flip=True))
    for entry in bench.cache.entries:
        assert len(entry.variants) == 2
        plain, mirrored = (bench.cache.mask(entry, v) for v in (0, 1))
        assert torch.equal(plain.flip(-1), mirrored)
        plain, mirrored = (bench.cache.latent(entry, v) for v in (0, 1))
        assert torch.allclose(plain.flip(-1), mirrored, atol=1e-6)


def geometries_of(cache):
    return {entry.name: [variant.geometry for variant in entry.variants] for entry in cache.entries}


def test_random_crops_are_variants_that_a_new_picture_does_not_move(bench):
    settings = replace(SETTINGS, crop="random", variants=3, bucketing=False)
    bench.build(settings)
    before = geometries_of(bench.cache)
    assert max(len(geometries) for geometries in before.values()) > 1
    save(picture(100), bench.folder / "aa.png")
    bench.build(settings)
    after = geometries_of(bench.cache)
    assert {name: after[name] for name in before} == before
    bench.build(replace(settings, seed=1))
    assert geometries_of(bench.cache) != after


def test_shuffled_captions_are_variants_and_dropout_uses_one_empty_text(bench):
    caption = CaptionSettings(shuffle=True, dropout=0.5)
    bench.build(replace(SETTINGS, variants=4), caption=caption)
    assert {entry.caption_dropout for entry in bench.cache.entries} == {0.5}
    assert any(len(entry.captions) > 1 for entry in bench.cache.entries)
    for entry in bench.cache.entries:
        assert all(caption.text.startswith("picture") for caption in entry.captions)
    assert Counter(bench.text.texts)[""] == 1
    assert bench.cache.empty_text()["cond"].tolist() == [[[94.0]]]


def test_captions_with_a_trigger_word_are_kept_without_it_too(bench):
    (bench.folder / "a.txt").write_text("a sks in a house", encoding="utf-8")
    # Without the word five captions are what they were, and the sixth has it inside.
    caption = CaptionSettings(trigger="sks")
    assert bench.build(caption=caption)[2] == 6 + 6 + 1
    entry = next(one for one in bench.cache.entries if one.name == "a.png")
    assert [(c.text, c.plain) for c in entry.captions] == [("a sks in a house", "a in a house")]
    kept = bench.cache.text(entry.captions[0].plain_key)["cond"]
    assert "".join(chr(int(code)) for code in kept.flatten()) == "^a in a house"
    assert bench.build(caption=caption) == (0, 0, 0)
    fingerprint = bench.cache.fingerprint
    assert bench.build(caption=CaptionSettings()) == (0, 0, 0)
    assert [[c.plain_key for c in entry.captions] for entry in bench.cache.entries] == [[""]] * len(bench.cache.entries)
    assert bench.cache.fingerprint != fingerprint


def test_no_caption_kept_without_its_trigger_word_holds_that_of_a_merged_set(bench):
    (bench.folder / "a.txt").write_text("sks and zwx by a lake", encoding="utf-8")
    sets = [bench.data(caption=CaptionSettings(trigger=word)) for word in ("sks", "zwx")]
    classes = bench.data(caption=CaptionSettings(trigger="lake"), regularisation=True)
    bench.build(dataset=merge([*sets, classes]))
    found = [tuple(c.plain for c in entry.captions) for entry in bench.cache.entries if entry.name.startswith("a.png")]
    assert found[:2] == [("and by a lake",)] * 2


def test_captions_come_back_with_every_tensor_and_value(bench):
    bench.build()
    entry = bench.cache.entries[1]
    values = bench.cache.text(entry.captions[0].key)
    assert values["length"] == len(entry.captions[0].text) and values["pooled_output"] is None
    assert "".join(chr(int(code)) for code in values["cond"].flatten()) == f"^{entry.captions[0].text}"


def test_repeats_and_multipliers_change_the_fingerprint_only(bench):
    bench.build()
    before = bench.cache.fingerprint
    bench.build(repeats=2)
    assert bench.cache.fingerprint != before
    assert {entry.weight for entry in bench.cache.entries} == {2.0}


@pytest.mark.parametrize("levels", [2, 256, 65536])
def test_masks_of_up_to_sixteen_bits_are_stored_exactly(tmp_path, levels):
    steps = np.random.default_rng(0).integers(0, levels, (64, 64))
    mask = (steps / (levels - 1)).astype(np.float32)
    cache = build_cache(Dataset((memory_sample(mask),)), SETTINGS, encoder=Pooling(), folder=tmp_path)
    stored = cache.mask(cache.entries[0])[0].numpy()
    assert np.abs(stored - mask).max() < 1e-7
    assert np.array_equal(stored == 0, mask == 0) and np.array_equal(stored == 1, mask == 1)


def test_any_mask_is_stored_to_half_a_step_of_sixteen_bits(tmp_path):
    mask = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    cache = build_cache(Dataset((memory_sample(mask),)), SETTINGS, encoder=Pooling(), folder=tmp_path)
    assert np.abs(cache.mask(cache.entries[0])[0].numpy() - mask).max() <= 0.5 / 65535 + 1e-7


@pytest.mark.parametrize("damage", ["longer", "shorter", "garbage"])
def test_packed_masks_that_do_not_fit_their_size_are_refused(damage):
    data, values = encode_mask(np.ones((8, 8), np.float32))
    if damage == "garbage":
        data = torch.full_like(data, 255)
    else:
        values = {**values, "shape": [8, 9 if damage == "shorter" else 7]}
    with pytest.raises(CacheError, match="does not fit"):
        decode_mask(data, values)


def test_a_fill_follows_a_mask_of_another_scale(tmp_path):
    mask = np.zeros((32, 32), np.float32)
    mask[:, :16] = 1
    sample = replace(memory_sample(mask), settings=DatasetSettings(fill="grey"))
    cache = build_cache(Dataset((sample,)), SETTINGS, encoder=Pooling(), folder=tmp_path)
    latent = cache.latent(cache.entries[0])
    assert torch.allclose(latent[:, :, 5:], torch.tensor(128 / 255), atol=1e-6)
    assert not torch.allclose(latent[:, :, :3], torch.tensor(128 / 255), atol=1e-3)


def memory_sample(mask, name="p", size=(64, 64)):
    image = np.random.default_rng(len(name)).random((size[1], size[0], 3), dtype=np.float32)
    return Sample(f"memory:{name}", name, size, image=image, mask=mask, caption="")


def test_a_cache_in_memory_writes_nothing_and_gives_the_same_numbers(bench, tmp_path):
    bench.build()
    disk = bench.cache
    bench.store = None
    bench.build(replace(SETTINGS, storage="memory"))
    for one, other in zip(disk.entries, bench.cache.entries, strict=True):
        assert torch.equal(disk.latent(one), bench.cache.latent(other))
        assert torch.equal(disk.mask(one), bench.cache.mask(other))
    bench.cache.latent(bench.cache.entries[0]).zero_()
    assert bench.cache.latent(bench.cache.entries[0]).any()


@pytest.mark.parametrize("storage", ["disk", "memory"])
def test_tensors_of_a_build_in_inference_mode_can_be_trained_through(bench, storage):
    with torch.inference_mode():
        bench.build(replace(SETTINGS, storage=storage))
        entry = bench.cache.entries[0]
        tensors = [bench.cache.latent(entry), bench.cache.mask(entry), bench.cache.empty_text()["cond"]]
    for tensor in tensors:
        assert not tensor.is_inference()
        scale = torch.ones((), requires_grad=True)
        (tensor * scale).sum().backward()
        assert torch.isfinite(scale.grad)


def files(store, kind):
    return sorted((store / kind).glob("*/*.safetensors"))


@pytest.mark.parametrize("kind", ["latent", "mask", "text"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "nested", "pipe", "another entry", "foreign"])
def test_damaged_or_foreign_files_are_made_anew_with_a_note(bench, kind, damage):
    bench.build()
    victim, other = files(bench.store, kind)[:2]
    whole = victim.read_bytes()
    if damage == "truncated":
        victim.write_bytes(whole[:-1])
    elif damage == "empty":
        victim.write_bytes(b"")
    elif damage == "garbage":
        victim.write_bytes(b"\xff" * len(whole))
    elif damage == "nested":
        header = b"[" * 9000
        victim.write_bytes(len(header).to_bytes(8, "little") + header)
    elif damage == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("pipes with names are a thing of POSIX")
        victim.unlink()
        os.mkfifo(victim)
    elif damage == "another entry":
        shutil.copy(other, victim)
    else:
        from safetensors.torch import save_file

        save_file({"latent": torch.zeros(1)}, victim)
    made = bench.build()
    assert sum(made) == made[("latent", "mask", "text").index(kind)] == 1
    assert len(bench.cache.notes) == 1 and victim.name in bench.cache.notes[0]
    assert victim.read_bytes() == whole
    assert bench.build() == (0, 0, 0)


def damage(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def everything(cache):
    """All that a cache reads, by kind and place."""
    found = {("text", c.key): cache.text(c.key)["cond"] for e in cache.entries for c in e.captions}
    for entry in cache.entries:
        for variant in range(len(entry.variants)):
            found["latent", entry.name, variant] = cache.latent(entry, variant)
            found["mask", entry.name, variant] = cache.mask(entry, variant)
    return found | {"empty": cache.empty_text()["cond"]}


LOSSES = {
    "one byte of each latent": lambda store: [damage(path) for path in files(store, "latent")],
    "one byte of a mask": lambda store: damage(files(store, "mask")[0]),
    "a text cut short": lambda store: (path := files(store, "text")[2]).write_bytes(path.read_bytes()[:-9]),
    "all latents gone": lambda store: shutil.rmtree(store / "latent"),
    "all gone": lambda store: shutil.rmtree(store),
    "emptied files": lambda store: [path.write_bytes(b"") for path in files(store, "mask")],
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_what_is_lost_while_it_is_used_is_made_anew_in_one_try(bench, lose):
    bench.build()
    before = everything(bench.cache)
    lose(bench.store)
    after = everything(bench.cache)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    (told,) = bench.cache.mended
    assert "damaged or deleted" in told
    assert bench.build() == (0, 0, 0)


def test_what_is_read_before_it_is_needed_is_neither_removed_nor_made_anew(bench):
    bench.build()
    before, entry = everything(bench.cache), bench.cache.entries[0]
    count = len(files(bench.store, "latent"))
    untouched = bench.cache.untouched()
    assert torch.equal(untouched.latent(entry), before["latent", entry.name, 0])
    for path in files(bench.store, "latent"):
        damage(path)
    with pytest.raises(CacheError, match="damaged"):
        untouched.latent(entry)
    assert len(files(bench.store, "latent")) == count and bench.cache.mended == []
    assert torch.equal(bench.cache.latent(entry), before["latent", entry.name, 0])
    assert len(bench.cache.mended) == 1


def test_what_is_gone_is_made_anew_before_it_is_missed(bench):
    bench.build()
    bench.cache.ensure()
    assert bench.cache.mended == []
    shutil.rmtree(bench.store / "text")
    bench.cache.ensure()
    assert bench.cache.mended == ["The cache was damaged or deleted; made anew: 0 latent, 0 mask, 7 text."]
    assert len(files(bench.store, "text")) == 7


@pytest.mark.parametrize("edit", [edit_image, lambda bench: (bench.folder / "b_mask.png").unlink()])
def test_what_is_lost_of_a_picture_that_has_changed_is_an_error_that_names_it(bench, edit):
    bench.build()
    edit(bench)
    shutil.rmtree(bench.store / "latent")
    with pytest.raises((CacheError, DataError), match=r"a\.png has changed|b_mask\.png") as caught:
        bench.cache.latent(bench.cache.entries[4])
    assert "Queue the graph again" in str(caught.value) or "moved or deleted" in str(caught.value)


WORKER = """
import importlib.util, sys
from pathlib import Path

def run(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

run(sys.argv[1], "worker_bootstrap")
tests = run(sys.argv[2], "worker_tests")
bench = tests.Bench(Path(sys.argv[3]), Path(sys.argv[4]))
for step in range(12):
    bench.build(vae=f"version {step}")
    for entry in bench.cache.entries:
        bench.cache.latent(entry), bench.cache.mask(entry), bench.cache.text(entry.captions[0].key)
    assert bench.cache.notes == (), bench.cache.notes
"""


def test_two_processes_may_fill_and_read_one_folder_at_once(bench):
    root = Path(__file__)
    environment = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"}
    command = [sys.executable, "-c", WORKER, str(root.parents[1] / "conftest.py"), str(root)]
    command += [str(bench.folder), str(bench.store)]
    workers = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    faults = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], faults
    assert bench.build(vae="version 11") == (0, 0, 0)
    assert len(files(bench.store, "latent")) == 12 * 6
    assert not list(bench.store.rglob("*.tmp"))


def one_digest_for_all(memo):
    digest = next(iter(memo["files"].values()))[-1]
    return {**memo, "files": {path: [*state[:-1], digest] for path, state in memo["files"].items()}}


MEMOS = {
    "empty": lambda memo: "",
    "cut": lambda memo: json.dumps(memo)[:-20],
    "a list": lambda memo: "[1, 2]",
    "a number": lambda memo: '{"files": 3}',
    "of other shapes": lambda memo: '{"files": {"x": 1}, "masks": {"y": 2}}',
    "two values": lambda memo: json.dumps({**memo, "files": {p: s[:2] for p, s in memo["files"].items()}}),
    "of the version before": lambda memo: json.dumps(
        {"files": {p: [*s[:2], s[-1]] for p, s in memo["files"].items()}, "masks": {"x": {"has": True, "box": None}}}
    ),
    "one digest for all": lambda memo: json.dumps(one_digest_for_all(memo)),
    "nested": lambda memo: "[" * 100_000,
}


@pytest.mark.parametrize("change", MEMOS.values(), ids=MEMOS)
def test_a_damaged_memo_costs_only_time(bench, change):
    bench.build()
    memo = bench.store / "memo.json"
    before = bench.cache.fingerprint
    memo.write_text(change(json.loads(memo.read_text(encoding="utf-8"))), encoding="utf-8")
    assert bench.build() == (0, 0, 0)
    assert bench.cache.fingerprint == before


@pytest.mark.parametrize("name", ["a_mask.bmp", "f.bmp"])
def test_a_file_of_the_same_size_and_time_is_still_seen_to_be_another(bench, name):
    channels = 1 if "mask" in name else 3
    (bench.folder / name.replace("bmp", "png")).unlink()
    path = bench.folder / name
    save(picture(50, channels=channels).squeeze(), path)
    bench.build()
    bench.build()
    stamp, size = path.stat().st_mtime_ns, path.stat().st_size
    save(picture(51, channels=channels).squeeze(), path)
    os.utime(path, ns=(stamp, stamp))
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (stamp, size)
    assert sum(bench.build()) > 0


def test_a_file_overwritten_within_the_clocks_tick_is_still_seen(bench):
    """Same path, size and time stamp, other pixels: a fresh stamp is not trusted."""
    raw, path = picture(7), bench.folder / "a.bmp"
    (bench.folder / "a.png").unlink()
    now = time.time_ns()
    Image.fromarray(raw).save(path)
    os.utime(path, ns=(now, now))
    bench.build()
    Image.fromarray(255 - raw).save(path)
    os.utime(path, ns=(now, now))
    assert bench.build() == (1, 0, 0)


def test_unchanged_files_are_not_read_again(bench):
    bench.build()
    dataset = bench.data()
    with opened_files() as names:
        assert bench.build(dataset=dataset) == (0, 0, 0)
    assert opened_in(names, bench.folder) == []
    (bench.folder / "a.png").touch()
    with opened_files() as names:
        assert bench.build(dataset=dataset) == (0, 0, 0)
    assert set(opened_in(names, bench.folder)) == {"a.png"}


class Stop(BaseException):
    """What a host raises to cancel."""


def test_a_cancel_keeps_what_was_written(bench):
    calls = 0

    def check():
        nonlocal calls
        calls += 1
        if bench_encoder.batches and len(bench_encoder.batches) == 2:
            raise Stop

    bench_encoder = Pooling()
    with pytest.raises(Stop):
        build_cache(
            bench.data(),
            SETTINGS,
            encoder=bench_encoder,
            text=Letters(),
            folder=bench.store,
            check_cancel=check,
        )
    assert calls > 6
    assert not list(bench.store.rglob("*.tmp"))
    assert bench.build()[0] == 2


def test_progress_counts_up_to_the_total_and_names_pictures(bench):
    seen = []
    build_cache(
        bench.data(),
        SETTINGS,
        encoder=Pooling(),
        text=Letters(),
        folder=bench.store,
        progress=lambda done, total, what: seen.append((done, total, what)),
    )
    assert all(0 <= done <= total for done, total, _ in seen)
    assert any("encoding c.png" in what for _, _, what in seen)
    assert seen[-1][0] == seen[-1][1] == 7


def test_batches_hold_one_bucket_and_at_most_the_batch_size(folder, bench):
    for seed, size in enumerate([(80, 64), (64, 80), (80, 64), (160, 64), (64, 80), (80, 64)]):
        save(picture(50 + seed, size=size), folder / f"n{seed}.png")
    bench.build(replace(SETTINGS, batch_size=4))
    assert max(shape[0] for shape in bench.encoder.batches) <= 4
    counts = Counter(entry.bucket for entry in bench.cache.entries)
    assert len(counts) > 2 and sum(counts.values()) == 12
    assert len(bench.encoder.batches) == sum(-(-count // 4) for count in counts.values())


def test_equal_pictures_are_encoded_once(bench):
    shutil.copy(bench.folder / "e.png", bench.folder / "h.png")
    assert bench.build()[0] == 6
    assert len(bench.cache.entries) == 7


def test_peak_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    peaks = []
    for count in (8, 48):
        root = tmp_path / str(count)
        root.mkdir()
        for seed in range(count):
            save(picture(seed, size=(512, 400)), root / f"{seed}.png")
        bench = Bench(root, tmp_path / f"store{count}")
        dataset = bench.data()
        tracemalloc.start()
        bench.build(replace(SETTINGS, resolution=256), dataset=dataset)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1_000_000 < 40 * 512 * 400 * 3


def test_old_entries_go_first_and_those_of_the_run_never(bench):
    bench.build()
    mine = {path.name for kind in ("latent", "mask", "text") for path in files(bench.store, kind)}
    long_ago = time.time() - 9 * DAY
    for path in files(bench.store, "latent"):
        os.utime(path, (long_ago, long_ago))
    bench.build(vae="another")
    for age, path in enumerate(p for p in files(bench.store, "latent") if p.name not in mine):
        os.utime(path, (long_ago + DAY + age, long_ago + DAY + age))
    total = sum(path.stat().st_size for kind in ("latent", "mask", "text") for path in files(bench.store, kind))
    one = files(bench.store, "latent")[0].stat().st_size
    others = sorted((p for p in files(bench.store, "latent") if p.name not in mine), key=lambda p: p.stat().st_mtime)
    bench.build(replace(SETTINGS, max_gigabytes=(total - 2.5 * one) / 1e9))
    left = {path.name for path in files(bench.store, "latent")}
    assert [path.name in left for path in others] == [False] * 3 + [True] * 3
    assert mine <= {path.name for kind in ("latent", "mask", "text") for path in files(bench.store, kind)}


def test_entries_that_another_data_set_used_within_the_week_stay_and_a_note_says_so(bench):
    bench.build(vae="another")
    for path in files(bench.store, "latent"):
        os.utime(path, (time.time() - 6 * DAY, time.time() - 6 * DAY))
    count = len(files(bench.store, "latent"))
    bench.build(replace(SETTINGS, max_gigabytes=0.0))
    assert len(files(bench.store, "latent")) == count + 6
    assert "more than the limit" in bench.cache.notes[-1]


def test_replaced_backgrounds_of_the_run_stay_however_old_they_are(bench):
    settings = replace(SETTINGS, infill="flat colour", infill_variants=2, max_gigabytes=0.0)
    bench.build(settings)
    for path in files(bench.store, "latent"):
        os.utime(path, (time.time() - 9 * DAY, time.time() - 9 * DAY))
    assert bench.build(settings)[0] == 0
    assert bench.build(settings)[0] == 0


def test_a_crop_around_a_mask_that_grew_by_pixels_follows_the_picture_s_size(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    mask = np.zeros((80, 100), np.uint8)
    mask[30:50, 40:60] = 255
    save(mask, root / "a_mask.png")
    boxes = []
    for number, size in enumerate([(100, 80), (500, 400), (500, 400)]):
        save(picture(0, size), root / "a.png")
        bench = Bench(root, tmp_path / ("other" if number == 2 else "store"))
        bench.build(replace(SETTINGS, crop="around mask"), transform=MaskTransform(grow=20))
        boxes.append(bench.cache.entries[0].geometry)
    assert boxes[0] != boxes[1] == boxes[2]


def test_temporary_files_of_a_killed_process_are_removed_in_time(bench):
    bench.build()
    fresh, old = (files(bench.store, "latent")[0].parent / f".{name}.tmp" for name in ("fresh", "old"))
    for path in (fresh, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 9000, time.time() - 9000))
    # Of a process that lives, and of one that has ended.
    lives = temporary_beside(fresh)
    name = lives.name.replace(f"-{os.getpid()}-", "-4194999-")
    ended = [lives.with_name(name), bench.store / name]
    for path in (lives, *ended):
        path.write_bytes(b"half")
    bench.build()
    assert fresh.exists() and not old.exists()
    assert lives.exists() and not any(path.exists() for path in ended)


@pytest.mark.skipif(os.name == "nt", reason="the limit on file sizes is a Unix call")
def test_a_full_disk_is_a_clear_error_and_leaves_no_partial_file(bench):
    import resource

    bench.build(replace(SETTINGS, resolution=48))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = {path: path.read_bytes() for path in bench.store.rglob("*.safetensors")}
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
        with pytest.raises(CacheError, match=r"disk is full.*Free some space"):
            bench.build()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(bench.store.rglob("*.tmp"))
    assert all(path.read_bytes() == data for path, data in before.items())
    assert bench.build()[0] == 6


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match="file"):
        build_cache(Dataset((memory_sample(None),)), SETTINGS, encoder=Pooling(), folder=tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": "left"}, "crop"),
        ({"resize": "bicubic"}, "resize"),
        ({"storage": "cloud"}, "storage"),
        ({"variants": 0}, "variants"),
        ({"batch_size": 0}, "batch_size"),
        ({"bucket_step": 12}, "multiple of 8"),
        ({"bucket_step": 128}, "resolution"),
        ({"resolution": 0}, "resolution"),
        ({"max_gigabytes": -1.0}, "gigabytes"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_read(bench, changes, message):
    with pytest.raises(ConfigError, match=message):
        bench.build(replace(SETTINGS, **changes))
    assert bench.encoder.batches == []


def test_a_disk_cache_without_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="storage"):
        build_cache(Dataset((memory_sample(None),)), SETTINGS, encoder=Pooling())


def test_an_empty_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        build_cache(Dataset(()), SETTINGS, encoder=Pooling(), folder=tmp_path)


def test_a_vae_of_another_shape_or_with_nan_is_refused_by_name(tmp_path):
    class Wrong(Pooling):
        channels = 4

    class Hot(Pooling):
        def encode(self, images):
            return super().encode(images) * torch.nan

    dataset = Dataset((memory_sample(None, name="cat.png"),))
    with pytest.raises(FamilyError, match="shape"):
        build_cache(dataset, SETTINGS, encoder=Wrong(), folder=tmp_path)
    with pytest.raises(FamilyError, match=r"cat\.png.*not finite"):
        build_cache(dataset, SETTINGS, encoder=Hot(), folder=tmp_path)
    assert not files(tmp_path, "latent")


def test_a_mask_of_another_aspect_is_refused_by_name(tmp_path):
    dataset = Dataset((memory_sample(np.ones((64, 32), np.float32), name="cat.png"),))
    with pytest.raises(DataError, match=r"cat\.png.*32×64.*64×64"):
        build_cache(dataset, SETTINGS, encoder=Pooling(), folder=tmp_path)


def test_without_a_text_encoder_there_are_no_captions_and_asking_says_why(tmp_path):
    cache = build_cache(Dataset((memory_sample(None),)), SETTINGS, encoder=Pooling(), folder=tmp_path)
    assert not any(caption.key for caption in cache.entries[0].captions)
    with pytest.raises(CacheError, match="Connect a CLIP"):
        cache.empty_text()


def test_pictures_of_one_name_in_merged_sets_get_names_of_their_own(tmp_path):
    sample = memory_sample(None, name="cat.png")
    cache = build_cache(Dataset((sample, sample)), SETTINGS, encoder=Pooling(), folder=tmp_path)
    assert [entry.name for entry in cache.entries] == ["cat.png", "cat.png (2)"]


def test_the_summary_counts_buckets_and_what_was_made(bench):
    bench.build()
    text = bench.cache.summary()
    assert "6 pictures" in text and "64×" in text and "6 latent" in text
