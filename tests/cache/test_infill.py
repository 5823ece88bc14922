"""Replaced backgrounds and the other cached variants: what they show, what they keep, what makes them stale."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from harness.caching import SETTINGS, Bench, blob, picture, save
from masklora.cache.donors import Donors
from masklora.cache.infill import KINDS, OTHER, Infill, apply_infill, donor_background, plan_set, soft_edge
from masklora.dataset.sample import Dataset, LoadedSample
from masklora.errors import ConfigError, MaskError
from masklora.pictures.packed_mask import pack_mask
from masklora.settings import INFILLS
from masklora.viewing.inspection import inspect

MIXED = replace(SETTINGS, infill_variants=3)
NAMES = [f"{i}.png" for i in range(20)]


def planned(keys, kind="mixed", count=3, seed=0, **options):
    return plan_set(keys, [count] * len(keys), kind=kind, seed=seed, donors=Donors(keys), **options)


def scene(size=96):
    """A red square on a green and blue striped background, its mask, and both as a loaded sample."""
    rgb = np.zeros((size, size, 3), np.uint8)
    rgb[..., 1] = 200
    rgb[::4, :, 2] = 250
    mask = np.zeros((size, size), np.float32)
    mask[size // 4 : size // 2, size // 4 : size // 2] = 1
    rgb[mask > 0] = (250, 10, 10)
    return rgb, mask, LoadedSample(rgb, mask, True, mask)


def infill_of(kind):
    return Infill(kind, 7, donor=0 if kind == "other picture" else None)


def other():
    rgb = np.full((50, 80, 3), (40, 60, 220), np.uint8)
    mask = np.zeros((50, 80), np.float32)
    mask[20:30, 30:50] = 1
    rgb[20:30, 30:50] = (255, 255, 0)
    return LoadedSample(rgb, mask, True, mask)


@pytest.mark.parametrize("kind", KINDS)
def test_the_subject_keeps_every_pixel_and_the_background_none_of_its_pattern(kind):
    rgb, mask, _ = scene()
    before = rgb.copy()
    out = apply_infill(rgb, mask, infill_of(kind), donor=other())
    assert out.dtype == np.uint8
    assert np.array_equal(out[mask == 1], rgb[mask == 1])
    assert np.array_equal(rgb, before)
    far = soft_edge(mask) < 1e-3
    stripes = np.abs(np.diff(out[..., 2].astype(int), axis=0))[far[1:]]
    assert stripes.max() < 20
    assert np.array_equal(out, apply_infill(rgb, mask, infill_of(kind), donor=other()))


def test_the_subject_s_colours_do_not_run_into_a_blurred_background():
    rgb, mask, _ = scene()
    out = apply_infill(rgb, mask, Infill("blur"))
    assert out[soft_edge(mask) < 1e-3][:, 0].max() <= 2


def test_inpainting_fills_the_background_from_the_subject_s_edge():
    rgb, mask, _ = scene()
    out = apply_infill(rgb, mask, Infill("inpaint"))
    assert out[mask == 0][:, 0].mean() > 150


def test_another_picture_lends_its_background_without_its_subject():
    background = donor_background(other(), (96, 96))
    assert background.shape == (96, 96, 3)
    assert np.abs(background.astype(int) - (40, 60, 220)).max() <= 12
    bare = replace(other(), has_mask=False)
    assert np.abs(donor_background(bare, (96, 96)).astype(int) - (255, 255, 0)).max(axis=2).min() <= 12


def test_the_seam_is_soft_and_never_eats_the_mask():
    _, mask, _ = scene(512)
    edge = soft_edge(mask)
    assert (edge >= mask).all()
    row = edge[200, 256:276]
    assert (np.diff(row) <= 0).all()
    assert 0.3 < row[0] < 0.6
    assert row[-1] < 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("size", [1, 3, 64])
def test_empty_and_full_masks_and_tiny_pictures_work(kind, value, size):
    rgb = picture(0, (size, size))
    mask = np.full((size, size), value, np.float32)
    out = apply_infill(rgb, mask, infill_of(kind), donor=other())
    assert out.shape == rgb.shape
    if value == 1:
        assert np.array_equal(out, rgb)


def test_the_background_right_beside_the_subject_is_blended_not_cut():
    rgb = np.full((256, 256, 3), 255, np.uint8)
    mask = np.zeros((256, 256), np.float32)
    mask[:, :128] = 1
    infill = Infill("flat colour", 3)
    colour = apply_infill(rgb, np.zeros_like(mask), infill)[0, 0].astype(int)
    row = apply_infill(rgb, mask, infill)[128, 128:140].astype(int)
    assert (row[0] > colour + 0.2 * (255 - colour)).all()
    assert (np.abs(row[-1] - colour) <= 2).all()


def test_inpainting_takes_nothing_from_what_a_soft_mask_barely_weighs():
    rgb = np.zeros((96, 96, 3), np.uint8)
    rgb[..., 1] = 250
    mask = np.full((96, 96), 0.02, np.float32)
    mask[36:60, 36:60] = 1
    rgb[mask == 1] = (250, 0, 0)
    out = apply_infill(rgb, mask, Infill("inpaint"))
    assert out[5, 5, 0] > 200 and out[5, 5, 1] < 40


def test_a_grey_mask_mixes_in_proportion():
    rgb = np.full((32, 32, 3), 200, np.uint8)
    infill = Infill("flat colour", 3)
    colour = apply_infill(rgb, np.zeros((32, 32), np.float32), infill)[0, 0].astype(float)
    mixed = apply_infill(rgb, np.full((32, 32), 0.25, np.float32), infill)[0, 0]
    assert np.abs(mixed - (0.25 * 200 + 0.75 * colour)).max() <= 1


def test_a_mask_of_another_size_or_a_missing_donor_is_an_error():
    rgb, mask, _ = scene()
    with pytest.raises(MaskError, match="96×96, got 48×96"):
        apply_infill(rgb, mask[:, :48], Infill("blur"))
    with pytest.raises(MaskError, match="and the other picture"):
        apply_infill(rgb, mask, Infill("other picture", donor=1))


def test_infills_follow_seed_and_key_and_are_never_alike():
    one = planned(NAMES)
    assert one == planned(NAMES)
    assert all(len({infill.kind for infill in infills}) == 3 for infills in one)
    assert planned(NAMES, seed=1) != one
    many = planned(NAMES, count=8)
    for index, infills in enumerate(many):
        assert len(set(infills)) == len(infills)
        assert index not in {infill.donor for infill in infills}
    kinds = Counter(infill.kind for infills in many for infill in infills[:3])
    assert set(kinds) == set(KINDS)


@pytest.mark.parametrize("kind", INFILLS)
def test_each_kind_can_be_asked_for_alone(kind):
    infills = planned(NAMES, kind)[0]
    assert len(infills) == (1 if kind in ("blur", "inpaint") else 3)
    assert kind == "mixed" or {infill.kind for infill in infills} == {kind}


def test_a_single_picture_has_no_other_and_gets_flat_colours():
    assert [infill.kind for infill in planned(["a"], "other picture")[0]] == ["flat colour"] * 3


def test_every_other_picture_lends_its_background_before_one_is_missed():
    for index, infills in enumerate(planned("abcd", "other picture", 5)):
        assert sorted(infill.donor for infill in infills) == [i for i in range(4) if i != index]


HUNDREDS = [f"{i}.png" for i in range(200)]


def top_tenth(seeds, *, keys=HUNDREDS, **options):
    """The share of all lendings that the busiest tenth of the pictures lends, over some seeds together."""
    lent = Counter()
    for seed in seeds:
        lent.update(i.donor for infills in planned(keys, seed=seed, **options) for i in infills if i.kind == OTHER)
    return sum(sorted(lent.values())[-len(keys) // 10 :]) / lent.total(), [lent[i] for i in range(len(keys))]


def test_backgrounds_are_lent_evenly_over_the_seeds():
    share, lent = top_tenth(range(1000, 1030))
    assert share <= 0.12
    assert min(lent) >= 12 and max(lent) <= 28
    before, _ = top_tenth(range(1000, 1030), as_before=True)
    assert before > 0.25


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_backgrounds_are_lent_evenly_in_each_cache(count):
    share, lent = top_tenth([11], kind="other picture", count=count)
    assert share == pytest.approx(0.1, abs=0.004)
    assert max(lent) - min(lent) <= 2


def test_another_seed_gives_other_lenders():
    one, two = (planned(HUNDREDS, "other picture", 1, seed) for seed in (0, 1))
    assert sum(a == b for a, b in zip(one, two, strict=True)) < 10


@pytest.mark.parametrize(("kind", "count"), [("other picture", 1), ("mixed", 3)])
def test_a_new_picture_changes_few_donors(kind, count):
    before, after = planned(HUNDREDS, kind, count), planned([*HUNDREDS, "new.png"], kind, count)
    assert sum(one != other for one, other in zip(before, after[:-1], strict=True)) <= 30


@pytest.fixture
def bench(tmp_path):
    """Two pictures with masks, one without."""
    root = tmp_path / "set"
    root.mkdir()
    for seed, name in enumerate("abc"):
        save(picture(seed), root / f"{name}.png")
    for seed, name in enumerate("ab"):
        save(blob(seed), root / f"{name}_mask.png")
    return Bench(root, tmp_path / "store")


def test_variants_are_cached_for_pictures_with_a_mask_only_and_once(bench):
    made = bench.build(MIXED)
    # Two originals with three variants each (fewer only if two are alike), and one original without.
    assert made[0] == 3 + sum(len(entry.infills) for entry in bench.cache.entries) == 9
    assert [len(entry.variants[0].infills) for entry in bench.cache.entries] == [3, 3, 0]
    assert bench.build(MIXED)[0] == 0
    told = bench.cache.summary()
    assert "6 replaced backgrounds" in told
    kinds = Counter(infill.kind for entry in bench.cache.entries for infill in entry.infills)
    assert all(f"{count} {kind}" in told for kind, count in kinds.items())


def test_a_set_of_one_picture_is_told_that_its_backgrounds_are_flat_colours(bench):
    for path in bench.folder.glob("[bc]*"):
        path.unlink()
    bench.build(replace(MIXED, infill="other picture"))
    assert "3 replaced backgrounds (3 flat colour)" in bench.cache.summary()


def test_a_variant_s_latent_is_the_original_inside_and_another_outside(bench):
    bench.build(replace(MIXED, flip=True))
    cache = bench.cache
    entry = cache.entries[0]
    for variant, number in [(v, n) for v in range(2) for n in range(3)]:
        mask, original = cache.mask(entry, variant)[0].numpy(), cache.latent(entry, variant).numpy()
        cells = mask.reshape(mask.shape[0] // 8, 8, -1, 8)
        whole, outside = cells.min(axis=(1, 3)) == 1, cells.max(axis=(1, 3)) == 0
        replaced = cache.latent(entry, variant, number).numpy()
        assert np.abs(replaced - original)[:, whole].max() < 1e-6
        assert np.abs(replaced - original)[:, outside].max() > 0.02


@pytest.mark.parametrize(
    ("change", "remade"),
    [
        ({"infill": "flat colour"}, True),
        ({"seed": 1}, True),
        ({"infill_variants": 2}, False),
        ({"infill_variants": 0}, False),
        ({"batch_size": 1}, False),
    ],
)
def test_settings_that_decide_the_background_make_it_anew_and_others_do_not(bench, change, remade):
    bench.build(MIXED)
    before = bench.cache.fingerprint
    made = bench.build(replace(MIXED, **change))[0]
    assert (made > 0) == remade
    assert (bench.cache.fingerprint == before) == (change == {"batch_size": 1})


def test_an_edited_mask_stales_its_own_variants_and_no_others(bench):
    bench.build(MIXED)
    assert not any(infill.donor == 0 for entry in bench.cache.entries for infill in entry.infills)
    save(blob(100), bench.folder / "a_mask.png")
    latents, masks, _ = bench.build(MIXED)
    assert (latents, masks) == (3, 1)


LENT = replace(SETTINGS, infill="other picture", infill_variants=2)


@pytest.mark.parametrize("edit", ["picture", "mask"])
def test_an_edited_donor_stales_what_it_lent_and_nothing_else(bench, edit):
    bench.build(LENT)
    lent = [[infill.donor for infill in entry.infills] for entry in bench.cache.entries]
    donor = next(d for d in (0, 1) if any(d in donors for donors in lent))
    own = 1 + len(lent[donor]) if edit == "picture" else len(lent[donor])
    suffix, edited = ("", picture(100)) if edit == "picture" else ("_mask", blob(100))
    save(edited, bench.folder / f"{'ab'[donor]}{suffix}.png")
    assert bench.build(LENT)[0] == own + sum(donors.count(donor) for donors in lent)


def test_a_picture_that_is_put_before_all_others_stales_only_what_it_lends(bench):
    bench.build(LENT)
    save(picture(50), bench.folder / "0.png")
    assert bench.build(LENT)[0] == 1 + sum(i.donor == 0 for entry in bench.cache.entries for i in entry.infills)


def test_what_is_put_behind_a_subject_is_the_lender_s_own_background(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    colours = {"a": (200, 0, 0), "b": (0, 200, 0)}
    for name, colour in colours.items():
        save(np.full((64, 80, 3), colour, np.uint8), root / f"{name}.png")
        save(blob(0), root / f"{name}_mask.png")
    bench = Bench(root, tmp_path / "store")
    bench.build(replace(LENT, flip=True))
    for entry, colour in zip(bench.cache.entries, reversed(colours.values()), strict=True):
        for variant in range(2):
            outside = bench.cache.mask(entry, variant)[0].numpy().reshape(-1, 8, entry.bucket[0] // 8, 8)
            far = outside.max(axis=(1, 3)) == 0
            shown = bench.cache.latent(entry, variant, 0).numpy()[:, far]
            assert np.median(shown, axis=1) * 255 == pytest.approx(colour, abs=2)


def test_many_variants_are_made_in_parts_and_are_what_few_would_be(bench):
    many = replace(MIXED, crop="random", resolution=48, rotate=10.0, flip=True, variants=12)
    made = bench.build(many)
    assert made[0] == sum(2 * 12 * (1 + len(entry.infills)) for entry in bench.cache.entries)
    assert bench.build(many)[:2] == (0, 0)
    kept = bench.cache
    few = Bench(bench.folder, bench.store.with_name("other"))
    few.build(replace(many, variants=2))
    for one, other in zip(kept.entries, few.cache.entries, strict=True):
        assert [v.latent for v in one.variants][:4] == [v.latent for v in other.variants]
        for variant in range(4):
            for infill in range(-1, len(one.infills)):
                assert kept.latent(one, variant, infill).equal(few.cache.latent(other, variant, infill))


def test_a_mirrored_variant_keeps_the_same_part_of_its_mask(bench):
    bench.build(replace(SETTINGS, mask_shrink=0.3, flip=True, variants=3))
    entry = bench.cache.entries[0]
    assert [v.shrink for v in entry.variants if v.geometry.flip] == [v.shrink for v in entry.variants[::2]]


def test_generated_masks_in_memory_have_entries_of_their_own(bench):
    samples = bench.data().samples
    packed = [replace(s, mask=pack_mask(blob(seed) / 255), mask_path=None) for seed, s in enumerate(samples)]
    bench.build(dataset=Dataset(tuple(packed)))
    assert len({entry.variants[0].mask for entry in bench.cache.entries}) == 3
    changed = replace(packed[0], mask=pack_mask(blob(9) / 255))
    assert bench.build(dataset=Dataset((changed, *packed[1:])))[:2] == (0, 1)


def test_a_fill_changes_the_original_and_not_its_variants(bench):
    bench.build(MIXED)
    assert bench.build(MIXED, fill="grey")[0] == 2


def test_shrunken_masks_are_variants_that_share_one_latent(bench):
    settings = replace(SETTINGS, mask_shrink=0.3, variants=4)
    assert bench.build(settings)[:2] == (3, 2 * 4 + 1)
    entry = bench.cache.entries[0]
    bench.build(SETTINGS)
    whole = bench.cache.mask(bench.cache.entries[0])[0].numpy()
    bench.build(settings)
    shrunken = [bench.cache.mask(entry, v)[0].numpy() for v in range(4)]
    for mask in shrunken:
        assert 0 < mask.sum() <= whole.sum()
        assert (mask <= whole).all()
    assert len({mask.sum() for mask in shrunken}) > 1
    assert len(bench.cache.entries[2].variants) == 1


def test_turned_crops_weigh_nothing_beyond_the_picture_even_without_a_mask(bench):
    bench.build(replace(SETTINGS, rotate=45.0, variants=3, seed=3))
    unmasked = bench.cache.entries[2]
    assert len(unmasked.variants) == len({v.mask for v in unmasked.variants}) == 3
    masks = [bench.cache.mask(unmasked, v)[0].numpy() for v in range(3)]
    assert any(mask.min() == 0 for mask in masks)
    assert all(mask[mask.shape[0] // 2, mask.shape[1] // 2] == 1 for mask in masks)


def test_a_crop_around_the_mask_shows_it_larger_and_whole(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    save(picture(0, (320, 256)), root / "a.png")
    mask = np.zeros((256, 320), np.uint8)
    mask[150:190, 40:80] = 255
    save(mask, root / "a_mask.png")
    bench = Bench(root, tmp_path / "store")
    bench.build(replace(SETTINGS, crop="around mask"))
    zoomed = bench.cache.mask(bench.cache.entries[0])[0].numpy()
    bench.build(SETTINGS)
    plain = bench.cache.mask(bench.cache.entries[0])[0].numpy()
    assert zoomed.mean() > 5 * plain.mean()
    geometry = bench.cache.entries[0].geometry
    assert geometry.resized[0] <= 320
    edges = np.concatenate([zoomed[0], zoomed[-1], zoomed[:, 0], zoomed[:, -1]])
    assert edges.max() == 0


def test_a_turn_never_takes_a_subject_in_the_corner_out_of_a_crop_around_it(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    save(picture(0, (256, 256)), root / "a.png")
    mask = np.zeros((256, 256), np.uint8)
    mask[-20:, -20:] = 255
    save(mask, root / "a_mask.png")
    bench = Bench(root, tmp_path / "store")
    bench.build(replace(SETTINGS, crop="around mask", rotate=90.0, variants=8, flip=True))
    entry = bench.cache.entries[0]
    sizes = [variant.geometry.resized[0] for variant in entry.variants]
    weights = [bench.cache.mask(entry, v).sum() / (size / 256) ** 2 for v, size in enumerate(sizes)]
    assert min(weights) > 0.93 * 400


def test_a_crop_around_the_mask_of_a_small_picture_is_enlarged_where_that_is_allowed(bench):
    bench.build(replace(SETTINGS, crop="around mask", resolution=128, upscale=True))
    assert all(max(entry.geometry.resized) > 80 for entry in bench.cache.entries)


def test_margins_and_turns_are_drawn_per_variant_and_never_enlarge(bench):
    settings = replace(SETTINGS, crop="around mask", crop_margin=0.1, crop_margin_max=1.0, rotate=20.0, variants=5)
    bench.build(settings)
    for entry in bench.cache.entries[:2]:
        geometries = [variant.geometry for variant in entry.variants]
        assert len(set(geometries)) == 5
        assert all(abs(g.angle) <= 20 and g.resized[0] <= g.source[0] for g in geometries)


def test_the_first_of_several_variants_is_plain_and_a_single_one_is_not(bench):
    chance = replace(SETTINGS, crop="around mask", crop_margin_max=1.0, rotate=40.0, mask_shrink=0.2)
    bench.build(replace(chance, variants=4))
    entry = bench.cache.entries[0]
    bench.build(replace(SETTINGS, crop="around mask"))
    plain = bench.cache.entries[0]
    first, *others = entry.variants
    assert (first.geometry, first.shrink, first.latent) == (plain.geometry, None, plain.variants[0].latent)
    assert all(variant.geometry.angle != 0 and variant.shrink for variant in others)
    bench.build(replace(chance, variants=1))
    assert bench.cache.entries[0].geometry.angle != 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"infill": "magic"}, "infill: expected one of mixed"),
        ({"infill_variants": -1}, "infill_variants: expected 0 to 100"),
        ({"mask_shrink": 0.0}, "mask_shrink: expected 0.01 to 1"),
        ({"rotate": 200.0}, "rotate: expected 0 to 180"),
        ({"crop": "around mask", "crop_margin_max": 0.1}, "crop_margin_max: expected 0.2 to 10"),
    ],
)
def test_settings_out_of_range_name_their_widget(bench, change, text):
    with pytest.raises(ConfigError, match=text):
        bench.build(replace(SETTINGS, **change))


def test_the_inspection_of_a_set_is_untouched_by_its_variants(bench):
    bench.build(MIXED)
    assert len(inspect(bench.data()).pictures) == 3
