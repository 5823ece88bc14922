"""What the browser shows of a picture is what the cache stores and what the loss weighs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.caching import SETTINGS, Bench, blob, picture, save
from harness.file_reads import opened_files, opened_in
from harness.places import source_places
from masklora.dataset.geometry import Geometry
from masklora.dataset.sample import load_sample
from masklora.errors import ConfigError
from masklora.loss.masks import effective_weights
from masklora.settings import CacheSettings, CaptionSettings, LossSettings, MaskTransform
from masklora.viewing.browsing import (
    Lens,
    crop_corners,
    draw_infill,
    draw_thumbnail,
    learned_levels,
    picture_weights,
    plan_looks,
    stale_kinds,
)
from masklora.viewing.inspection import MASK_FINDINGS, inspect
from masklora.viewing.opened_sets import check_same, measure_again, plan_with_cache, plan_without_cache

LENS = Lens(LossSettings(), 8)


@pytest.fixture
def bench(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        save(picture(i, size=(80 + 8 * i, 72)), folder / f"{i}.png")
        if i < 3:
            save(blob(i, size=(80 + 8 * i, 72)), folder / f"{i}_mask.png")
    return Bench(folder, tmp_path / "store")


@pytest.mark.parametrize(
    "settings",
    [SETTINGS, replace(SETTINGS, crop="around mask", rotate=20.0, variants=3), replace(SETTINGS, mask_shrink=0.4)],
    ids=["plain", "turned", "shrunk"],
)
@pytest.mark.parametrize(
    "loss",
    [LossSettings(), LossSettings(gamma=2.0, floor=0.2), LossSettings(mask_type="hard", reduction="any")],
    ids=["as it is", "gamma and floor", "hard and any"],
)
def test_weights_are_those_of_the_cached_mask(bench, settings, loss):
    bench.build(settings)
    dataset, cache = bench.data(), bench.cache
    for entry in cache.entries:
        stored = cache.mask(entry)
        grid = entry.bucket[1] // 8, entry.bucket[0] // 8
        wanted = effective_weights(stored[None], loss, grid=grid)[0, 0].numpy()
        shrink = entry.variants[0].shrink
        sample = dataset.samples[entry.index]
        assert np.array_equal(picture_weights(sample, entry.geometry, Lens(loss, 8), shrink=shrink), wanted)


def test_what_chance_decides_in_each_step_is_left_out(bench):
    sample = bench.data().samples[0]
    (geometry, *_) = plan_looks(bench.data(), SETTINGS, stride=8)
    chance = LossSettings(mask_probability=0.0, edge_jitter=0.1, noise_blur=0.5)
    assert np.array_equal(picture_weights(sample, geometry, Lens(chance, 8)), picture_weights(sample, geometry, LENS))


def test_a_picture_without_a_mask_weighs_one_everywhere(bench):
    sample = bench.data().samples[3]
    assert (picture_weights(sample, plan_looks(bench.data(), SETTINGS, stride=8)[3], LENS) == 1).all()
    assert (learned_levels(sample) == 255).all()


def test_planning_without_a_cache_gives_the_cache_s_own_geometries(bench):
    bench.build()
    assert plan_looks(bench.data(), SETTINGS, stride=8) == [entry.geometry for entry in bench.cache.entries]


def test_corners_enclose_what_the_training_picture_shows():
    plain = Geometry((200, 100), (100, 50), (20, 10, 60, 30))
    assert np.allclose(crop_corners(plain), [(40, 20), (160, 20), (160, 80), (40, 80)])
    turned = replace(plain, angle=90.0)
    x, y = source_places(turned, np.array([0.0, 59.0, 59.0, 0.0]), np.array([0.0, 0.0, 29.0, 29.0]))
    for (corner_x, corner_y), near_x, near_y in zip(crop_corners(turned), x, y, strict=True):
        assert np.hypot(corner_x - near_x - 0.5, corner_y - near_y - 0.5) < 2.1


@pytest.mark.parametrize("view", ["overlay", "mask", "cut-out", "latent grid", "picture"])
def test_thumbnails_have_the_side_that_is_asked_for(bench, view):
    dataset = bench.data()
    geometries = plan_looks(dataset, SETTINGS, stride=8)
    drawn = draw_thumbnail(dataset.samples[2], geometries[2], LENS, view=view, side=96)
    assert max(drawn.shape[:2]) == 96 and drawn.dtype == np.uint8


def test_an_unknown_view_is_refused(bench):
    (sample, *_), (geometry, *_) = bench.data().samples, plan_looks(bench.data(), SETTINGS, stride=8)
    with pytest.raises(ConfigError, match="view"):
        draw_thumbnail(sample, geometry, LENS, view="x-ray", side=96)


def test_an_infill_is_drawn_as_the_cache_encodes_it(bench):
    settings = replace(SETTINGS, infill_variants=3)
    bench.build(settings)
    dataset = bench.data()
    for entry in bench.cache.entries[:3]:
        for number, infill in enumerate(entry.infills):
            drawn = draw_infill(dataset.samples, entry.index, entry.geometry, infill, resize=settings.resize)
            latent = bench.encoder.encode(torch.from_numpy(drawn.copy())[None].float() / 255)[0]
            assert torch.equal(latent, bench.cache.latent(entry, 0, number))


def test_an_edited_mask_makes_exactly_its_own_entries_stale(bench):
    bench.build()
    cache = bench.cache
    assert plan_with_cache(cache, bench.data(), lambda: None).stale == {}
    before = (bench.folder / "1_mask.png").read_bytes()
    save(255 - blob(1, size=(88, 72)), bench.folder / "1_mask.png")
    assert plan_with_cache(cache, bench.data(), lambda: None).stale == {1: ["mask"]}
    (bench.folder / "1_mask.png").write_bytes(before)
    assert plan_with_cache(cache, bench.data(), lambda: None).stale == {}


def test_an_edited_mask_makes_latents_stale_where_they_follow_it(bench):
    bench.build(replace(SETTINGS, infill_variants=1))
    save(255 - blob(1, size=(88, 72)), bench.folder / "1_mask.png")
    stale = plan_with_cache(bench.cache, bench.data(), lambda: None).stale
    assert stale[1] == ["latent", "mask"]
    assert all(kinds == ["latent"] for index, kinds in stale.items() if index != 1)


def test_other_transforms_make_every_mask_stale_and_no_latent(bench):
    bench.build()
    dataset = bench.data().with_transform(MaskTransform(grow=3))
    assert plan_with_cache(bench.cache, dataset, lambda: None).stale == {i: ["mask"] for i in range(3)}


def test_a_changed_caption_makes_the_text_stale(bench):
    bench.build()
    (bench.folder / "2.txt").write_text("a dog", encoding="utf-8")
    before, now = bench.cache.entries[2], bench.cache.plan(bench.data())[2]
    assert stale_kinds(before, now) == ["text"]


def test_a_trigger_word_taken_out_makes_no_text_stale_that_is_there(bench):
    (bench.folder / "2.txt").write_text("a sks dog", encoding="utf-8")
    bench.build()
    data = [bench.data(caption=CaptionSettings(trigger=trigger)) for trigger in ("sks", "")]
    before, now = (bench.cache.plan(dataset)[2] for dataset in data)
    assert before.captions[0].plain == "a dog" and now.captions[0].plain is None
    assert stale_kinds(before, now) == []
    assert stale_kinds(now, before) == ["text"]


def test_a_cache_of_other_pictures_is_refused(bench):
    bench.build()
    dataset = bench.data()
    with pytest.raises(ConfigError, match="it holds 4, but dataset has 3 pictures"):
        check_same(bench.cache, replace(dataset, samples=dataset.samples[:3]))


def test_measuring_one_picture_again_gives_the_report_of_all(bench):
    geometries = plan_looks(bench.data(), SETTINGS, stride=8)
    report = inspect(bench.data(), 8, geometries=geometries)
    save(np.zeros((72, 80), np.uint8), bench.folder / "0_mask.png")
    dataset = bench.data()
    again = measure_again(report, 0, dataset.samples[0], LENS, geometries[0])
    whole = inspect(dataset, 8, geometries=geometries)
    assert again.pictures == whole.pictures
    for name in MASK_FINDINGS:
        assert sorted(getattr(again, name)) == sorted(getattr(whole, name)), name


def test_a_transform_that_is_tried_out_is_planned_twice_but_its_masks_are_read_once(bench):
    bench.build(replace(SETTINGS, crop="around mask"))
    cache, memo = bench.cache, bench.cache.store.load_memo()
    tried = bench.data(transform=MaskTransform(grow=2))
    first = plan_with_cache(cache, tried, lambda: None, memo)
    with opened_files() as unremembered:
        plan_with_cache(cache, tried, lambda: None)
    masks = sorted(path.name for path in bench.folder.glob("*_mask.png"))
    assert masks and set(opened_in(unremembered, bench.folder)) >= set(masks)
    with opened_files() as remembered:
        assert plan_with_cache(cache, tried, lambda: None, memo) == first
    assert opened_in(remembered, bench.folder) == []


@pytest.mark.parametrize("resolution", [0, 16, 64, 1024])
def test_pictures_of_any_size_can_be_looked_at_without_a_cache(bench, resolution):
    save(picture(9, size=(9, 11)), bench.folder / "tiny.png")
    dataset = bench.data()
    plan = plan_without_cache(dataset, CacheSettings(), stride=8, resolution=resolution)
    for sample, geometry in zip(dataset.samples, plan.geometries, strict=True):
        assert geometry.source == sample.size and all(side % 8 == 0 for side in geometry.size)
        weights = picture_weights(sample, geometry, LENS)
        assert weights.shape == (geometry.size[1] // 8, geometry.size[0] // 8)
    assert ("tiny.png" in plan.note) == (resolution > 0)


def test_drawing_leaves_the_sample_as_it_is(bench):
    sample = bench.data().samples[0]
    before = load_sample(sample).mask.copy()
    draw_thumbnail(sample, plan_looks(bench.data(), SETTINGS, stride=8)[0], LENS, view="overlay", side=96)
    assert np.array_equal(load_sample(sample).mask, before)
