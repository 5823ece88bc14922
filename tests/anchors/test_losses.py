"""Faults of other trainers in how a mask enters the loss; each is computed here and is not ours.

Those of the priors (ai-toolkit, blissful) are in tests/loss/test_presets_prior.py. Read at kohya-ss/sd-scripts
48d368fa, bghira/SimpleTuner bc8e6ab7, ostris/ai-toolkit 27a03a91, Nerogar/OneTrainer 23df3832 and
DustyL/blissful-tuner 289c641.
"""

import pytest
import torch

from harness.toy import Recorder, open_run, toy_job, train_toy
from masklora.loss.losses import elementwise_loss, flow_weights, masked_objective, outside_share, snr_weights
from masklora.loss.masks import effective_weights
from masklora.loss.presets import apply_preset
from masklora.loss.prior import Prior, prior_weights
from masklora.settings import NORMALIZE, LossSettings

SHAPE = (3, 4, 8, 8)


def draws(dtype=torch.float32):
    g = torch.Generator().manual_seed(2)
    pred, target, base = (torch.randn(SHAPE, generator=g).to(dtype) for _ in range(3))
    return pred.requires_grad_(), target, base


def test_kohya_and_simpletuner_let_the_loss_shrink_with_the_mask_here_samples_have_an_equal_say():
    """library/custom_train_functions.py:487 and simpletuner/helpers/models/common.py:6409: the loss times the mask, and
    then the mean over the whole picture. A mask of one cell in 64 counts for 0.0156 of a picture without one.
    """
    pred, target = torch.ones(SHAPE, requires_grad=True), torch.zeros(SHAPE)
    w = torch.zeros(3, 1, 8, 8)
    w[0, :, 0, 0] = w[1, :, :2, :2] = w[2] = 1
    assert ((pred - target).square() * w).mean(dim=(1, 2, 3)).tolist() == [1 / 64, 4 / 64, 1]
    loss, _ = masked_objective(pred, target, w, LossSettings())
    loss.backward()
    # The smallest is raised 20-fold, no further.
    assert (pred.grad.sum(dim=(1, 2, 3)) * 3 / 2).tolist() == pytest.approx([20 / 64, 1, 1])


def whole_shares(weights_of, count=200):
    """In how many of three samples the mask did not apply, per batch."""
    mask = torch.zeros(3, 1, 8, 8)
    mask[..., :4] = 0.5
    return [int((weights_of(mask) == 1).all(dim=3).all(dim=2).sum()) for _ in range(count)]


@pytest.mark.parametrize("mask_type", ["soft", "hard"])
def test_simpletuner_ignores_the_probability_of_soft_masks_here_it_holds_for_both_types(mask_type):
    """simpletuner/helpers/models/common.py:6409-6418: the probability is asked for `segmentation` alone."""
    assert sum(whole_shares(lambda mask: mask)) == 0
    g, settings = torch.Generator().manual_seed(0), LossSettings(mask_type=mask_type, mask_probability=0.7)
    shares = whole_shares(lambda mask: effective_weights(mask, settings, grid=(8, 8), generator=g))
    assert sum(shares) / 600 == pytest.approx(0.3, abs=0.05)


def test_simpletuner_draws_the_probability_once_for_a_batch_here_each_sample_draws():
    """simpletuner/helpers/models/common.py:6418: one `random.random()` for the batch."""
    g = torch.Generator().manual_seed(0)
    once = whole_shares(lambda mask: mask if torch.rand((), generator=g) < 0.7 else torch.ones_like(mask))
    assert set(once) == {0, 3}
    settings = LossSettings(mask_probability=0.7)
    shares = whole_shares(lambda mask: effective_weights(mask, settings, grid=(8, 8), generator=g))
    assert {1, 2} <= set(shares)


def finite_and_zero(preset, w, **options):
    """Whether a preset's loss and gradient of weight `w` are exactly zero where the weight is."""
    pred, target, _ = draws()
    loss, _ = masked_objective(pred, target, w, apply_preset(preset, LossSettings(**options)))
    loss.backward()
    black = w.flatten(1).sum(dim=1) == 0
    return bool(torch.isfinite(loss)) and bool(torch.isfinite(pred.grad).all()) and not pred.grad[black].any()


def test_ai_toolkit_s_black_batch_is_nan_here_it_contributes_zero():
    """extensions_built_in/sd_trainer/SDTrainer.py:1504: the mask is divided by its mean over the batch."""
    black = torch.zeros(3, 1, 8, 8)
    assert (black / black.mean()).isnan().all()
    assert finite_and_zero("ai-toolkit", black)


def test_onetrainer_s_black_sample_is_nan_when_normalised_here_it_contributes_zero():
    """modules/util/loss/masked_loss.py:34 with an unmasked weight of 0: divided by the sample's mean. One black mask
    takes the whole batch with it.
    """
    w = torch.ones(3, 1, 8, 8)
    w[1] = 0
    assert (w / w.mean(dim=(1, 2, 3), keepdim=True)).mean().isnan()
    for floor in (0.0, 0.1):
        assert finite_and_zero("OneTrainer normalised", w, floor=floor)
    assert finite_and_zero("blissful per sample", w)


def test_onetrainer_s_prior_of_a_white_sample_is_nan_when_normalised_here_it_is_zero():
    """modules/util/loss/masked_loss.py:43: the prior is divided by the mean of one minus the mask."""
    w = torch.ones(3, 1, 8, 8)
    w[1, ..., :3] = 0
    v = 1 - w
    assert (v / v.mean(dim=(1, 2, 3), keepdim=True)).mean().isnan()
    settings = apply_preset("OneTrainer normalised", LossSettings(prior_weight=1.0))
    pred, target, base = draws()
    prior = Prior(base, prior_weights(w, w, settings), torch.ones(3))
    loss, seen = masked_objective(pred, target, w, settings, prior=prior)
    loss.backward()
    assert 0 < seen["prior"] < loss
    assert torch.isfinite(pred.grad).all()


def test_blissful_s_black_batch_has_no_graph_and_crashes_here_it_has_a_zero_gradient():
    """src/musubi_tuner/modules/mask_loss.py: the loss of a batch without weight is a new zero."""
    pred, target, _ = draws()
    with pytest.raises(RuntimeError, match="does not require grad"):
        (pred - target).square().new_zeros(()).backward()
    for preset in ("blissful", "blissful per sample", "blissful threshold"):
        assert finite_and_zero(preset, torch.zeros(3, 1, 8, 8))


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_ai_toolkit_s_masks_are_of_half_precision_here_weights_are_float32(normalize):
    """extensions_built_in/sd_trainer/SDTrainer.py:1488: float16, and then the model's dtype."""
    pred, target, _ = draws(torch.bfloat16)
    mask = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    settings = LossSettings(normalize=normalize)
    w = effective_weights(mask, settings, grid=(8, 8))
    exact = mask.double().unfold(2, 8, 8).unfold(3, 8, 8).mean(dim=(-1, -2))
    assert w.dtype == torch.float32
    assert (w - exact).abs().max() < 1e-6 < (w.bfloat16() - exact).abs().max() / 100
    loss, _ = masked_objective(pred, target, w, settings)
    assert loss.dtype == torch.float32
    wide, _ = masked_objective(pred.double(), target.double(), exact, settings)
    rounded, _ = masked_objective(pred.double(), target.double(), w.bfloat16().double(), settings)
    assert abs(loss - wide) < 1e-6 * wide
    assert abs(rounded - wide) > 1e-6 * wide


def test_one_word_is_another_curve_in_each_trainer_here_each_curve_has_its_own_name():
    """Huber: sd-scripts library/train_util.py:6148, ai-toolkit SDTrainer.py:903. Min-SNR of v models: sd-scripts
    library/custom_train_functions.py:68, ai-toolkit toolkit/train_tools.py:720. Debiased and SIGMA: OneTrainer
    modules/modelSetup/mixin/ModelSetupDiffusionLossMixin.py:226 and 338.
    """
    pred, zero, half = torch.tensor([0.3]), torch.zeros(1), torch.tensor([0.5])
    names = ("huber", "huber (kohya)", "pseudo_huber (ai-toolkit)")
    huber = [elementwise_loss(pred, zero, kind=name, param=0.1).item() for name in names]
    assert huber == pytest.approx([0.1 * 0.25, 0.2 * (0.1**0.5 - 0.1), 0.1**0.5 - 0.1])
    snr = {name: snr_weights(half, kind=name, prediction="v").item() for name in ("min-snr", "min-snr (ai-toolkit)")}
    assert snr == {"min-snr": pytest.approx(1 / 3), "min-snr (ai-toolkit)": 1}
    debiased = [snr_weights(half, kind=name, prediction="v").item() for name in ("debiased", "debiased (OneTrainer)")]
    assert debiased == pytest.approx([1 / 1.5, 1 / 1.5**0.5])
    sigma = [flow_weights(half, kind=name).item() for name in ("sigma-sqrt", "sigma-linear (OneTrainer)")]
    assert sigma == [4, 0.5]


def test_onetrainer_s_unmasked_weight_gives_a_small_mask_s_background_the_say_here_a_share_is_a_share():
    """modules/util/loss/masked_loss.py:11: at least 0.1 in every pixel, its default. Of a mask that covers 5 % the
    background then has 66 % of the weight, and a toy study learned it (leak 0.98).
    """
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., :2, :10] = 1

    def background(w):
        return ((w * (1 - mask)).sum() / w.sum()).item()

    assert background(mask.clamp(min=0.1)) == pytest.approx(0.095 / 0.145)
    assert background(outside_share(mask, share=0.1)) == pytest.approx(0.1, abs=1e-6)
    assert background(effective_weights(mask, LossSettings(), grid=(20, 20))) == 0


def test_no_anchor_shows_that_the_mask_works_here_every_step_tells_what_it_did(tmp_path):
    """Asked for in bmaltais/kohya_ss #2884, LoRA_Easy_Training_Scripts #331 and kohya-ss/sd-scripts #2083: from the
    loss alone a mask that is ignored looks like one that works.
    """

    def steps(name, mask):
        job, recorder = toy_job(steps=3), Recorder()
        inner = job.cache.mask
        job.cache.mask = lambda entry, variant: mask(inner(entry, variant))
        train_toy(tmp_path / name, job, recorder)
        with open_run(tmp_path / name) as run:
            assert [row.get("outside") for row in run.read_metrics()] == [r.outside for r in recorder.reports]
        return recorder.reports

    for report in steps("works", lambda mask: mask):
        assert report.loss > 0 and report.inside > 0 and report.outside > 0 and 0.4 < report.coverage < 0.7
    for report in steps("ignored", torch.ones_like):
        assert report.loss > 0 and report.outside is None and report.coverage == 1
