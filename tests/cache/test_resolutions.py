"""Pictures that are trained at several resolutions: each at all of them, none twice in one way."""

from dataclasses import replace

import pytest
import torch

from harness.caching import SETTINGS, Bench, blob, picture, save
from masklora.cache.buckets import resolutions
from masklora.dataset.geometry import apply_mask
from masklora.dataset.sample import load_sample
from masklora.errors import ConfigError
from masklora.training.batches import BatchPlan, split_entries
from masklora.viewing.opened_sets import check_same, plan_with_cache

SEVERAL = replace(SETTINGS, more_resolutions="48, 32")


@pytest.fixture
def bench(tmp_path):
    """Three pictures with masks: one larger than all resolutions, one smaller than the first, one than the second."""
    root = tmp_path / "set"
    root.mkdir()
    for seed, (name, size) in enumerate({"large": (96, 80), "middle": (60, 50), "small": (40, 36)}.items()):
        save(picture(seed, size=size), root / f"{name}.png")
        save(blob(seed, size=size), root / f"{name}_mask.png")
        (root / f"{name}.txt").write_text(f"a {name} thing", encoding="utf-8")
    return Bench(root, tmp_path / "store")


def by_name(cache):
    return {entry.name: entry for entry in cache.entries}


def test_each_picture_is_there_at_every_resolution_that_it_fills(bench):
    bench.build(SEVERAL)
    found = {name: (entry.bucket, entry.weight) for name, entry in by_name(bench.cache).items()}
    assert found == {
        "large.png": ((64, 64), 1),
        "middle.png": ((48, 48), 2),
        "small.png": ((32, 32), 3),
        "large.png at 48": ((48, 48), 1),
        "large.png at 32": ((32, 32), 1),
        "middle.png at 32": ((32, 32), 1),
    }
    # However small, each counts as often as the others.
    shares = {}
    for entry in bench.cache.entries:
        shares[entry.index] = shares.get(entry.index, 0) + entry.weight
    assert set(shares.values()) == {3}


def test_what_is_cached_of_a_resolution_is_what_it_alone_would_cache(bench):
    bench.build(SEVERAL)
    several = by_name(bench.cache)
    for side in (48, 32):
        alone = replace(SETTINGS, resolution=side)
        # Everything is there already: nothing is made.
        assert bench.build(alone) == (0, 0, 0)
        for name, entry in by_name(bench.cache).items():
            same = several.get(f"{name} at {side}")
            if same is not None:
                assert same.variants == entry.variants and same.captions == entry.captions
                assert torch.equal(bench.cache.latent(same), bench.cache.latent(entry))


def test_masks_are_those_of_their_own_size(bench):
    bench.build(SEVERAL)
    entry = by_name(bench.cache)["large.png at 32"]
    loaded = load_sample(bench.data().samples[entry.index])
    expected = apply_mask(loaded.mask, entry.geometry, hard=False)
    assert torch.allclose(bench.cache.mask(entry)[0], torch.as_tensor(expected), atol=1e-4)


def test_one_resolution_is_the_same_cache_as_ever_and_others_make_another(bench):
    bench.build()
    before = bench.cache.fingerprint
    for same in ("", "  ", "64", "64, 64"):
        bench.build(replace(SETTINGS, more_resolutions=same))
        assert bench.cache.fingerprint == before
    bench.build(SEVERAL)
    assert bench.cache.fingerprint != before


@pytest.mark.parametrize("words", ["48, 32", "32 48", "48;32;48", "64,48,32", " 32 ,, 48 "])
def test_any_way_to_write_them_is_read(words):
    assert resolutions(replace(SETTINGS, more_resolutions=words)) == (64, 48, 32)


@pytest.mark.parametrize("words", ["big", "48px", "-48", "48.5", "8", "9000", "²", "0"])
def test_what_is_none_is_refused_by_its_widget(words, bench):
    with pytest.raises(ConfigError, match=r"^more_resolutions: expected whole numbers from 16 to 8192"):
        bench.build(replace(SETTINGS, more_resolutions=words))


def test_a_step_that_the_smallest_does_not_reach_is_refused(bench):
    with pytest.raises(ConfigError, match="bucket step: expected at most the resolution 32"):
        bench.build(replace(SEVERAL, bucket_step=48))


def test_a_picture_is_held_out_at_all_resolutions_or_at_none(bench):
    bench.build(SEVERAL)
    entries = bench.cache.entries
    for seed in range(6):
        training, held = split_entries(entries, share=0.4, seed=seed)
        assert held and not {entries[i].index for i in training} & {entries[i].index for i in held}


def test_an_epoch_shows_every_picture_equally_often(bench):
    bench.build(SEVERAL)
    plan = BatchPlan(bench.cache.entries, 1, 0)
    seen = [bench.cache.entries[draw.entry].index for n in range(9) for draw in plan.batch(n)]
    assert sorted(seen) == [0] * 3 + [1] * 3 + [2] * 3


def test_the_summary_counts_pictures_and_the_browser_shows_each_once(bench):
    bench.build(SEVERAL)
    assert bench.cache.summary().startswith("3 pictures at 64, 48, 32 in ")
    dataset = bench.data()
    check_same(bench.cache, dataset)
    plan = plan_with_cache(bench.cache, dataset, lambda: None)
    assert len(plan.geometries) == len(plan.entries) == 3 and not plan.stale


def test_a_black_mask_is_told_once(bench, tmp_path):
    save(blob(0, size=(96, 80)) * 0, tmp_path / "set" / "large_mask.png")
    bench.build(SEVERAL)
    (told,) = [one.text for one in bench.cache.findings if "black everywhere" in one.text]
    assert told.startswith("1 of 3 pictures") and told.count("large.png") == 1
