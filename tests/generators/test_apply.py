"""Generated masks join a data set: combining, nothing found, reports, memory."""

from dataclasses import replace

import numpy as np
import pytest

from harness.caching import Pooling
from harness.folders import anywhere, folder_settings, grey, picture, with_alpha
from masklora.cache.cache import build_cache
from masklora.dataset.loading import from_images, load_dataset
from masklora.dataset.sample import load_mask, load_sample
from masklora.errors import ConfigError, MaskError
from masklora.generators.apply import GenerateSettings, Watch, generate
from masklora.generators.finding import COMBINES, Finding, combine_masks
from masklora.pictures.packed_mask import PackedMask, pack_mask
from masklora.settings import CacheSettings, MaskTransform

LEFT = np.pad(np.ones((8, 4), np.float32), ((0, 0), (0, 4)))


def left_half(one):
    height, width = one.rgb.shape[:2]
    mask = np.zeros((height, width), np.float32)
    mask[:, : width // 2] = 1
    return Finding(mask, "left half")


def nothing(one):
    return Finding(None, "0 cats")


@pytest.fixture
def mixed(tmp_path):
    """b.png has a mask file (top half), c.png alpha (top half), a.png and d.png nothing."""
    top = np.vstack([np.ones((4, 8)), np.zeros((4, 8))])
    for name in ("a", "b", "d"):
        picture(tmp_path / f"{name}.png")
    grey(tmp_path / "b_mask.png", top)
    with_alpha(tmp_path / "c.png", top)
    return load_dataset(folder_settings(tmp_path), allowed=anywhere)


def masks_of(dataset):
    return {sample.name: load_mask(sample) for sample in dataset.samples}


def test_masks_that_are_there_are_kept_unless_asked_otherwise(mixed):
    made, lines = generate(mixed, left_half, GenerateSettings(), label="Left")
    masks = masks_of(made)
    assert np.array_equal(masks["a.png"], LEFT)
    assert np.array_equal(masks["b.png"], LEFT.T)
    assert np.array_equal(masks["c.png"], LEFT.T)
    assert lines[0].text == "a.png: left half; covers 50.0%"
    assert lines[1].text == "b.png: kept the mask that was there"
    assert made.report.missing == ()
    assert made.report.notes[-1] == "Left: masks: 2 made (fill missing only), 2 kept."


def test_the_generator_never_sees_a_picture_whose_mask_is_kept(mixed):
    seen = []
    generate(mixed, lambda one: (seen.append(one.name), left_half(one))[1], GenerateSettings(), label="Left")
    assert seen == ["a.png", "d.png"]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("replace", LEFT),
        ("union", np.maximum(LEFT, LEFT.T)),
        ("intersect", LEFT * LEFT.T),
        ("subtract", LEFT.T * (1 - LEFT)),
    ],
)
def test_new_masks_join_the_one_that_is_there(mixed, how, expected):
    made, _ = generate(mixed, left_half, GenerateSettings(combine=how), label="Left")
    masks = masks_of(made)
    assert np.array_equal(masks["b.png"], expected)
    assert np.array_equal(masks["c.png"], expected)
    assert np.array_equal(masks["a.png"], 1 - LEFT if how == "subtract" else LEFT)


@pytest.mark.parametrize("how", COMBINES)
def test_combining_stays_in_range_and_changes_no_argument(how):
    random = np.random.default_rng(0)
    old, new = random.random((2, 5, 7)).astype(np.float32)
    before = old.copy(), new.copy()
    out = combine_masks(old, new, how)
    assert out.dtype == np.float32
    assert 0 <= out.min() <= out.max() <= 1
    assert np.array_equal(old, before[0])
    assert np.array_equal(new, before[1])


def test_an_unknown_way_to_combine_is_an_error():
    with pytest.raises(ConfigError, match="combine: expected one of fill missing only"):
        combine_masks(None, LEFT, "xor")


def test_nothing_found_is_an_error_that_names_every_picture(mixed):
    with pytest.raises(MaskError, match=r"2 of 4 pictures: a.png: nothing found \(0 cats\); d.png: .*nothing_found"):
        generate(mixed, nothing, GenerateSettings(), label="Cats")


@pytest.mark.parametrize(("how", "value"), [("white", 1.0), ("black", 0.0)])
def test_nothing_found_becomes_the_mask_that_was_asked_for(mixed, how, value):
    made, lines = generate(mixed, nothing, GenerateSettings(nothing_found=how), label="Cats")
    mask = masks_of(made)["a.png"]
    assert mask is not None
    assert (mask == value).all()
    assert lines[0].text == f"a.png: nothing found (0 cats); {how} mask"
    assert [line.level for line in lines[:2]] == ["warning", "note"]
    assert f"2 {how} because nothing was found" in made.report.notes[-1]


@pytest.mark.parametrize(("how", "nothing_found"), [("subtract", "black"), ("union", "black"), ("intersect", "white")])
def test_what_is_not_found_can_leave_the_mask_that_is_there_as_it_was(mixed, how, nothing_found):
    settings = GenerateSettings(combine=how, nothing_found=nothing_found)
    made, lines = generate(mixed, nothing, settings, label="Hands")
    assert np.array_equal(masks_of(made)["b.png"], LEFT.T)
    assert lines[1].text == f"b.png: nothing found (0 cats); {nothing_found} mask ({how}), covers 50.0%"


def test_nothing_found_can_leave_the_picture_out(mixed):
    made, _ = generate(mixed, nothing, GenerateSettings(nothing_found="skip"), label="Cats")
    assert [sample.name for sample in made.samples] == ["b.png", "c.png"]
    assert made.report.skipped == ("a.png", "d.png")


def test_leaving_out_every_picture_is_an_error(tmp_path):
    picture(tmp_path / "a.png")
    dataset = load_dataset(folder_settings(tmp_path), allowed=anywhere)
    with pytest.raises(MaskError, match="nothing was found in any of 1 picture,"):
        generate(dataset, nothing, GenerateSettings(nothing_found="skip"), label="Cats")


def test_an_all_black_finding_counts_as_nothing_found(mixed):
    with pytest.raises(MaskError, match="nothing was found in 2 of 4"):
        generate(mixed, lambda one: Finding(np.zeros((8, 8), np.float32)), GenerateSettings(), label="Cats")


@pytest.mark.parametrize("how", ["intersect", "subtract"])
def test_a_mask_of_which_combining_leaves_nothing_counts_as_nothing_found(mixed, how):
    def other_half(one):
        top = np.zeros((8, 8), np.float32)
        top[:4] = 1
        return Finding(top if how == "subtract" else 1 - top)

    with pytest.raises(MaskError, match=f"b.png: nothing found .nothing is left of it after {how}"):
        generate(mixed, other_half, GenerateSettings(combine=how), label="Half")


@pytest.mark.parametrize("bad", [np.ones((4, 4), np.float32), np.full((8, 8), np.nan, np.float32)])
def test_a_mask_of_a_wrong_size_or_with_nan_is_refused_with_the_picture_s_name(mixed, bad):
    with pytest.raises(MaskError, match=r"a.png: the generator gave a mask"):
        generate(mixed, lambda one: Finding(bad), GenerateSettings(), label="Cats")


def test_transforms_are_behind_a_generated_mask_so_that_others_may_follow(mixed):
    inverted = mixed.with_transform(MaskTransform(invert=True))
    made, _ = generate(inverted, left_half, GenerateSettings(combine="union"), label="Left")
    assert np.array_equal(masks_of(made)["b.png"], np.maximum(LEFT, 1 - LEFT.T))
    assert np.array_equal(masks_of(made.with_transform(MaskTransform(invert=True)))["a.png"], 1 - LEFT)
    filled, _ = generate(inverted, left_half, GenerateSettings(), label="Left")
    again = masks_of(filled.with_transform(MaskTransform(invert=True)))
    assert np.array_equal(again["a.png"], 1 - LEFT)
    assert np.array_equal(again["b.png"], LEFT.T)


def test_the_metadata_tell_who_made_the_masks(mixed):
    made, _ = generate(mixed, left_half, GenerateSettings(), label="Left")
    again, _ = generate(made, left_half, GenerateSettings(combine="union"), label="Right")
    found = {sample.name: sample.made_by for sample in again.samples}
    assert found["a.png"] == "Left (fill missing only), then Right (union)"
    assert found["b.png"] == "Right (union)"
    settings = CacheSettings(resolution=64, bucket_step=8, storage="memory", upscale=True, infill_variants=0)
    sources = build_cache(again, settings, encoder=Pooling()).sources
    assert {(s["masks_made_by"], s["images"]) for s in sources} == {(found["a.png"], 2), (found["b.png"], 2)}


def test_chance_follows_the_picture_and_not_its_place(mixed):
    def seeds(dataset):
        found = {}
        settings = GenerateSettings(combine="replace", seed=5)
        generate(dataset, lambda one: (found.update({one.name: one.seed}), left_half(one))[1], settings, label="x")
        return found

    whole = seeds(mixed)
    assert len(set(whole.values())) == 4
    assert seeds(replace(mixed, samples=mixed.samples[2:])) == {name: whole[name] for name in ("c.png", "d.png")}


def test_cancel_reaches_between_pictures_and_progress_names_them(mixed):
    told = []

    def cancel():
        if len(told) == 2:
            raise KeyboardInterrupt

    watch = Watch(lambda done, total, text: told.append((done, total, text)), cancel)
    with pytest.raises(KeyboardInterrupt):
        generate(mixed, left_half, GenerateSettings(), label="Left", watch=watch)
    assert told == [(0, 4, "Left: a.png"), (1, 4, "Left: b.png")]


def test_masks_in_memory_are_packed_and_exact():
    image = np.full((64, 64, 3), 0.5, np.float32)
    soft = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    made, _ = generate(from_images([image]), lambda one: Finding(soft), GenerateSettings(), label="x")
    packed = made.samples[0].mask
    assert isinstance(packed, PackedMask)
    assert np.abs(load_sample(made.samples[0]).mask - soft).max() <= 1 / 131070 + 1e-7
    steps = np.rint(soft * 255).astype(np.float32) / np.float32(255)
    assert np.array_equal(pack_mask(steps).unpack(), steps)
    assert len(pack_mask((soft > 0.5).astype(np.float32)).data) < 200


def test_packed_masks_of_other_values_or_shapes_have_other_digests():
    one = pack_mask(LEFT)
    assert one.digest == pack_mask(LEFT.copy()).digest
    assert len({one.digest, pack_mask(LEFT.T).digest, pack_mask(LEFT[:, :4]).digest}) == 3


def test_the_preview_is_small_and_tints_what_is_ignored():
    shown = []
    pictures = from_images([np.full((300, 2000, 3), 0.5, np.float32), np.full((8, 8, 3), 0.5, np.float32)])
    generate(pictures, left_half, GenerateSettings("replace"), label="Left", watch=Watch(show=shown.append))
    assert [one.shape for one in shown] == [(77, 512, 3), (8, 8, 3)]
    for one in shown:
        middle = one.shape[1] // 2
        assert (one[:, : middle - 1] == 128).all()
        assert (one[:, middle + 1 :, 0] > 140).all()
        assert (one[:, middle + 1 :, 1] < 90).all()
