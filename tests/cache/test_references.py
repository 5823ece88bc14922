"""References in the cache: they go the way of their picture, and their edits make exactly what shows them anew."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from harness.caching import SETTINGS, Bench, Letters, Pooling, blob, picture, save
from harness.models import small_model
from masked_lora_pack.nodes.cache import with_references
from masklora.cache.cache import build_cache
from masklora.cache.references import own_size
from masklora.dataset.sample import merge
from masklora.errors import DataError
from masklora.settings import AS_TARGET, BY_MODEL, OWN_SIZE

EVERY_WAY = replace(SETTINGS, crop="random", flip=True, rotate=20.0, variants=3)


@pytest.fixture
def bench(tmp_path):
    """Three pictures with masks, each with a reference in `before`, of the same pixels as the picture itself."""
    root = tmp_path / "set"
    (root / "before").mkdir(parents=True)
    for seed, name in enumerate("abc"):
        save(picture(seed), root / f"{name}.png")
        save(blob(seed), root / f"{name}_mask.png")
        (root / f"{name}.txt").write_text(f"make it {name}", encoding="utf-8")
        save(picture(seed), root / "before" / f"{name}.png")
    return Bench(root, tmp_path / "store")


def build(bench, settings=SETTINGS, **options):
    bench.build(settings, **({"reference_folders": "before"} | options))
    return bench.cache


def made(bench, settings=SETTINGS, **options):
    return {kind: count for kind, count in build(bench, settings, **options).built.items() if count}


@pytest.mark.parametrize("crop", ["centre", "random", "mask-centred", "around mask", "masked crop"])
def test_a_reference_goes_through_the_geometry_of_its_picture(bench, crop):
    """Of the same pixels as its picture it comes out the same, at any crop, turn and flip."""
    cache = build(bench, replace(EVERY_WAY, crop=crop))
    shown = [(entry, variant) for entry in cache.entries for variant in range(len(entry.variants))]
    assert len(shown) >= 6
    for entry, variant in shown:
        (reference,) = cache.references(entry, variant)
        assert torch.equal(reference, cache.latent(entry, variant))
        assert entry.reference_sizes == (entry.bucket,)


def test_a_reference_of_another_scale_lies_on_the_same_places(bench):
    for seed, name in enumerate("abc"):
        large = cv2.resize(picture(seed), (240, 192), interpolation=cv2.INTER_NEAREST)
        save(large, bench.folder / "before" / f"{name}.png")
    cache = build(bench, replace(EVERY_WAY, resize="area"))
    for entry in cache.entries:
        for variant in range(len(entry.variants)):
            (reference,) = cache.references(entry, variant)
            assert float((reference - cache.latent(entry, variant)).abs().max()) < 0.05


def test_every_edit_makes_exactly_what_shows_it_anew(bench):
    settings = replace(SETTINGS, flip=True)
    assert made(bench, settings) == {"latent": 6, "mask": 6, "text": 4, "reference": 6}
    assert made(bench, settings) == {}
    before = bench.cache.fingerprint
    save(picture(50), bench.folder / "before" / "a.png")
    assert made(bench, settings) == {"reference": 2}
    assert bench.cache.fingerprint != before
    save(picture(51), bench.folder / "b.png")
    assert made(bench, settings) == {"latent": 2}
    save(blob(52), bench.folder / "c_mask.png")
    assert made(bench, settings) == {"mask": 2}
    # With a crop around the mask the geometry is the mask's, and the reference follows it.
    around = replace(SETTINGS, crop="around mask")
    made(bench, around)
    save(blob(53), bench.folder / "c_mask.png")
    assert made(bench, around) == {"latent": 1, "mask": 1, "reference": 1}
    (bench.folder / "before" / "a.png").unlink()
    assert made(bench, settings, missing_reference="train without") == {"mask": 2}
    assert [len(entry.references) for entry in bench.cache.entries] == [0, 1, 1]


def test_without_references_no_key_and_no_fingerprint_changes(bench):
    with_them = build(bench)
    without = build(bench, reference_folders="", subfolders=False)
    assert [entry.cached for entry in without.entries] == [
        {one for one in entry.cached if one[0] != "reference"} for entry in with_them.entries
    ]
    assert without.built["latent"] == without.built["mask"] == without.built["text"] == 0
    assert "references" not in without.summary()


def test_the_metadata_tell_reference_folders_by_their_last_names(bench):
    """Paths hold people's names, and metadata travel with the LoRA."""
    cache = build(bench, reference_folders=str(bench.folder / "before"))
    assert cache.sources[0]["settings"]["reference_folders"] == "before"


def test_several_references_keep_the_order_of_their_folders(bench):
    (bench.folder / "style").mkdir()
    for seed, name in enumerate("abc"):
        save(picture(seed + 10), bench.folder / "style" / f"{name}.png")
    there, back = build(bench, reference_folders="before; style"), None
    first = [there.references(entry) for entry in there.entries]
    back = build(bench, reference_folders="style\nbefore")
    assert back.built["reference"] == 0
    for entry, (one, other) in zip(back.entries, first, strict=True):
        assert torch.equal(back.references(entry)[0], other)
        assert torch.equal(back.references(entry)[1], one)
        assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("size", "pixels", "upscale", "expected"),
    [
        ((128, 128), 64 * 64, False, (64, 64)),
        ((200, 100), 64 * 64, False, (96, 48)),
        ((100, 200), 64 * 64, False, (48, 96)),
        ((40, 40), 64 * 64, False, (32, 32)),
        ((40, 40), 64 * 64, True, (64, 64)),
        ((1000, 20), 64 * 64, False, (448, 16)),
        ((64, 64), 64 * 64, False, (64, 64)),
    ],
)
def test_an_own_size_keeps_the_aspect_at_the_pixels_of_the_target(size, pixels, upscale, expected):
    assert own_size(size, pixels, step=16, upscale=upscale) == expected


def test_references_at_their_own_size_may_have_any_aspect(bench):
    save(picture(7, size=(60, 120)), bench.folder / "before" / "a.png")
    with pytest.raises(
        DataError, match=r"a\.png: the reference before/a\.png is 60×120 but the picture is 80×64"
    ) as told:
        build(bench)
    assert "own size" in str(told.value)
    cache = build(bench, replace(EVERY_WAY, reference_size=OWN_SIZE))
    entry = cache.entries[0]
    assert entry.reference_sizes == ((32, 80),)
    plain, flipped = (
        cache.references(entry, next(i for i, v in enumerate(entry.variants) if v.geometry.flip is flip))[0]
        for flip in (False, True)
    )
    assert plain.shape == (3, 10, 4)
    # What is shown of the picture by chance does not move a reference of its own size, but a flip mirrors it too.
    assert torch.allclose(plain, flipped.flip(-1), atol=1e-6)
    assert len({variant.references for variant in entry.variants}) == 2


def test_a_reference_too_small_for_its_own_size_is_named(bench):
    save(picture(7, size=(12, 40)), bench.folder / "before" / "b.png")
    with pytest.raises(DataError, match=r"before/b\.png is 12×40, smaller than 16 pixels"):
        build(bench, replace(SETTINGS, reference_size=OWN_SIZE))


def test_replaced_backgrounds_stand_behind_references_too_or_behind_the_target_only(bench):
    settings = replace(SETTINGS, infill="flat colour", infill_variants=2, reference_size=AS_TARGET)
    both = build(bench, settings)
    for entry in both.entries:
        for infill in range(2):
            (reference,) = both.references(entry, 0, infill)
            assert torch.equal(reference, both.latent(entry, 0, infill))
            assert not torch.equal(reference, both.references(entry)[0])
    only = build(bench, replace(settings, infill_reference="target only"))
    assert only.built == {"latent": 0, "mask": 0, "text": 0, "reference": 0}
    for entry in only.entries:
        assert torch.equal(only.references(entry, 0, 1)[0], both.references(entry)[0])
    # At its own size a reference has no place for the target's mask.
    own = build(bench, replace(settings, reference_size=OWN_SIZE))
    assert all(variant.infill_references == () for entry in own.entries for variant in entry.variants)


def test_what_a_reference_lets_show_through_is_filled_as_pictures_are(bench):
    rgba = np.dstack([picture(0), np.full((64, 80), 255, np.uint8)])
    rgba[:, :40, 3] = 0
    save(rgba, bench.folder / "before" / "a.png")
    kept = build(bench).references(bench.cache.entries[0])[0]
    assert torch.equal(kept, bench.cache.latent(bench.cache.entries[0]))
    assert made(bench, fill="grey") == {"latent": 3, "reference": 1}
    (filled,) = bench.cache.references(bench.cache.entries[0])
    assert torch.allclose(filled[:, :, :2], torch.full_like(filled[:, :, :2], 128 / 255), atol=0.02)
    assert torch.allclose(filled[:, :, -2:], kept[:, :, -2:], atol=1e-6)


class Seeing(Letters):
    """A text encoder that is given the references too: their means stand beside the letters."""

    pictures = "beside"

    def encode_with(self, texts, pictures):
        plain = self.encode(texts)
        return [
            {**values, "seen": torch.stack([one.mean() for one in each])}
            for values, each in zip(plain, pictures, strict=True)
        ]


def seen_by(bench, **options):
    text = Seeing()
    dataset = bench.data(**({"reference_folders": "before"} | options))
    cache = build_cache(dataset, SETTINGS, encoder=Pooling(), text=text, folder=bench.store)
    return cache, text.texts


def test_a_text_encoder_that_sees_the_references_has_their_bytes_in_its_keys(bench):
    (bench.folder / "d.txt").write_text("make it a", encoding="utf-8")
    save(picture(9), bench.folder / "d.png")
    cache, texts = seen_by(bench, missing_reference="train without")
    assert sorted(texts) == sorted(["make it a", "make it a", "make it b", "make it c", "", "", "", ""])
    a, _, c, d = cache.entries
    assert float(cache.text(a.captions[0].key)["seen"]) == pytest.approx(picture(0).mean() / 255, abs=1e-5)
    assert float(cache.empty_text(c)["seen"]) == pytest.approx(picture(2).mean() / 255, abs=1e-5)
    # The same words of a picture without a reference are another entry.
    assert "seen" not in cache.text(d.captions[0].key)
    assert "seen" not in cache.empty_text(d)
    assert "seen" not in cache.empty_text()
    save(picture(60), bench.folder / "before" / "a.png")
    assert seen_by(bench, missing_reference="train without")[1] == ["make it a", ""]
    build(bench, missing_reference="train without")
    assert "seen" not in bench.cache.text(bench.cache.entries[0].captions[0].key)


CHANGED = "the CLIP is shown references as they are"


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("krea2", {"flip": True, "rotate": 9.0, "infill_variants": 2}, f"flip: {CHANGED}"),
        (
            "krea2",
            {"reference_size": AS_TARGET, "rotate": 9.0, "infill_variants": 2},
            f"rotate, infill_variants: {CHANGED}",
        ),
        ("krea2", {"reference_size": AS_TARGET, "infill_variants": 2, "infill_reference": "target only"}, ""),
        ("krea2", {}, ""),
        ("flux", {"flip": True}, ""),
    ],
)
def test_what_the_clip_is_shown_otherwise_than_the_network_is_told(bench, name, changes, words):
    settings = replace(SETTINGS, **{"infill_variants": 0, "reference_size": BY_MODEL} | changes)
    _, _, found = with_references(settings, bench.data(reference_folders="before"), small_model(name))
    told = [finding.text for finding in found if finding.level == "warning"]
    assert [text[: len(words)] for text in told] == ([words] if words else [])


def test_merged_sets_keep_their_references(bench):
    with_them, without = bench.data(reference_folders="before"), bench.data(reference_folders="", subfolders=False)
    merged = merge([with_them, without])
    bench.build(dataset=merged)
    assert [len(entry.references) for entry in bench.cache.entries] == [1, 1, 1, 0, 0, 0]
    assert "Some pictures have 0 and 1 references" in merged.report.to_text()


def test_a_damaged_reference_is_made_anew(bench):
    cache = build(bench)
    entry = cache.entries[0]
    whole = cache.references(entry)[0]
    (file,) = bench.store.glob(f"reference/*/{entry.references[0]}.safetensors")
    file.write_bytes(file.read_bytes()[:-7])
    assert torch.equal(cache.references(entry)[0], whole)
    assert cache.mended[0].endswith("References made anew: 1.")
