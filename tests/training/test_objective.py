"""What a run's settings do on their way through feed and objective, seen at the prediction's gradient."""

from dataclasses import replace

import pytest
import torch

from harness.toy import ToyEntry, toy_job, with_infills
from masklora.cache.captions import Caption
from masklora.loss.masks import cell_weights
from masklora.settings import LossSettings
from masklora.training.batches import EMPTY_CAPTION, ORIGINAL, Draw
from masklora.training.microbatch import Feed
from masklora.training.objective import Objective

# Two samples of one picture: before a replaced background, and as it is.
CAPTIONS = (Caption("x", "x"), Caption("y", "y", "plain y", "plain y"))
ENTRY = with_infills(ToyEntry("a.png", captions=CAPTIONS), "flat")
DRAWS = [Draw(0, 0, 0, 0), Draw(0, 0, 0, ORIGINAL)]


def gradient(settings, draws=DRAWS, *, part=0):
    """The batch, its noise levels, the gradient of a part of the loss at the prediction, and the numbers of it."""
    settings = replace(settings, prior_weight=0.0)
    job = toy_job(entries=[ENTRY], loss=settings)
    asked = []

    def denoise(noisy, u, conditioning):
        g = torch.Generator().manual_seed(len(asked))
        asked.append((u, torch.randn(noisy.shape, generator=g, requires_grad=True)))
        return asked[-1][1]

    job.model.denoise = denoise
    feed = Feed(job.cache, settings, model=job.model)
    batch = feed.make(draws, plain=part == 1)
    terms = Objective(job.model, seed=0).terms(
        batch, settings, torch.Generator().manual_seed(0), number=0, progress=0.0
    )
    value, seen = terms[part]()
    value.backward()
    u, pred = asked[-1]
    return batch, u, pred.grad.abs().sum(dim=1, keepdim=True), seen


@pytest.mark.parametrize(
    "option",
    [
        {"floor": 0.2},
        {"floor": 0.2, "floor_mode": "max"},
        {"outside_share": 0.3},
        {"mask_probability": 0.0},
        {"latent_blur": 5},
        {"noise_blur": 0.3},
    ],
)
def test_nothing_is_learned_of_a_replaced_background(option):
    batch, _, found, _ = gradient(LossSettings(**option))
    outside = batch.masks == 0
    assert batch.replaced.tolist() == [True, False]
    assert not found[0][outside[0]].any() and found[0][~outside[0]].all()
    assert found[1][outside[1]].any()


def test_the_mask_is_blurred_by_each_sample_s_own_noise():
    settings = LossSettings(noise_blur=0.3)
    batch, u, found, seen = gradient(settings, [Draw(0, 0, 0, ORIGINAL)] * 2)
    w = cell_weights(batch.masks, settings, u=u)
    assert u[0] != u[1] and not torch.equal(w[0], w[1])
    assert torch.equal(seen["coverage"], w.mean(dim=(1, 2, 3)))
    assert torch.equal(found > 0, w > 0)


def test_pictures_with_a_mask_keep_away_from_the_noise_they_are_to_keep_away_from():
    levels = torch.cat([gradient(LossSettings(masked_timestep_max=0.1), [d] * 64)[1] for d in DRAWS])
    assert levels.max() <= 0.1


def test_preservation_holds_the_whole_picture_of_samples_with_a_trigger_word_and_no_other():
    draws = [Draw(0, 0, caption, ORIGINAL) for caption in (1, 0, EMPTY_CAPTION)]
    batch, _, found, seen = gradient(LossSettings(preservation_weight=0.5), draws, part=1)
    assert batch.triggered.tolist() == [1.0, 0.0, 0.0]
    assert found[0].all() and not found[1:].any() and seen["preservation"] > 0
