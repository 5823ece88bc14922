"""Faults of kohya-ss/sd-scripts (48d368fa) in what a cache is taken for; each is computed here and is not ours."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.caching import SETTINGS, Bench, blob, picture, save

SIZE = (140, 100)


@pytest.fixture
def bench(tmp_path):
    """One picture whose alpha is its mask."""
    folder = tmp_path / "set"
    folder.mkdir()
    save(np.dstack([picture(0, SIZE), blob(0, SIZE)]), folder / "a.png")
    return Bench(folder, tmp_path / "store")


class Npz:
    """A kohya cache file: found by the picture's name and own size, whatever the training."""

    def __init__(self, *, resolution, alpha):
        self.held = {"latents": torch.zeros(4, resolution // 8, resolution // 8)}
        if alpha:
            self.held["alpha_mask"] = torch.zeros(resolution, resolution)

    def expected(self, *, alpha):
        return "latents" in self.held and (not alpha or "alpha_mask" in self.held)


def test_kohya_keeps_applying_an_alpha_mask_that_was_switched_off_here_it_is_gone(bench):
    """library/strategy_base.py:466 and 595: a missing alpha mask makes a cache stale, one too many is loaded."""
    theirs = Npz(resolution=512, alpha=True)
    assert theirs.expected(alpha=False) and "alpha_mask" in theirs.held
    bench.build()
    weights = bench.cache.mask(bench.cache.entries[0])
    assert weights.min() < 0.5
    bench.build(mask_source="none")
    assert bench.cache.mask(bench.cache.entries[0]).eq(1).all()
    bench.build()
    assert torch.equal(bench.cache.mask(bench.cache.entries[0]), weights)


def test_kohya_reuses_latents_of_512_px_at_768_here_a_resolution_has_its_own(bench):
    """library/strategy_base.py:458-462: without `multi_resolution` no key of the file tells its bucket."""
    theirs = Npz(resolution=512, alpha=False)
    assert theirs.expected(alpha=False) and theirs.held["latents"].shape[-1] != 768 // 8
    for resolution in (64, 96, 64):
        bench.build(replace(SETTINGS, resolution=resolution))
        (entry,) = bench.cache.entries
        width, height = entry.bucket
        assert max(width, height) >= resolution
        assert bench.cache.latent(entry).shape == (3, height // 8, width // 8)
        assert bench.cache.mask(entry).shape == (1, height, width)
