"""What we train is what diffusers trains: its own networks with the same weights, its timesteps, signs and targets."""

import functools

import pytest
import torch

from harness.diffusers_models import Batch, diffusers_models, off_by, outcomes
from harness.small import tried
from masklora.loss.losses import masked_objective
from masklora.settings import LossSettings

THEIRS = diffusers_models()
MODELS = [name for name, theirs in THEIRS.items() if name in tried() and theirs.predict]
# One call serves both tests of a model.
OUTCOMES = functools.cache(outcomes)


@pytest.mark.parametrize("name", MODELS)
def test_our_raw_prediction_is_that_of_diffusers_network_called_as_its_pipeline_does(name):
    """All within 6e-6: ComfyUI's norm of Z-Image's queries and keys adds another epsilon (4e-6), Wan's times are told
    by a power there and by an exponential here (4e-6), LTX-2's places are turned in float64 there (6e-6).
    """
    ours, theirs, _ = OUTCOMES(name)
    assert ours.pred.shape == theirs.pred.shape and ours.pred.std() > 0.01
    assert off_by(ours.noisy, theirs.noisy) <= 1e-6
    assert off_by(ours.pred, theirs.pred) <= 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_our_masked_loss_is_diffusers_training_loss_times_the_mask(name):
    """`train_dreambooth_lora_flux.py` and its siblings: the squared error's mean over a picture, then over pictures."""
    ours, theirs, w = OUTCOMES(name)
    loss, _ = masked_objective(ours.pred, ours.target, w, LossSettings(normalize="none", outside_share=0.0))
    error = (theirs.pred.float() - theirs.target.float()) ** 2
    wanted = torch.mean((w * error).reshape(2, -1), 1).mean()
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)


def test_in_float64_the_u_net_is_the_same_network():
    """The only class that can show it: diffusers' transformers have norms, and most rotations, in float32."""
    batch = Batch("sd15", THEIRS["sd15"], torch.float64)
    ours = batch.ours()
    with torch.no_grad():
        theirs = batch.theirs(ours.noisy, (batch.u * 1000).long(), encoder_hidden_states=batch.cond).sample
    assert ours.pred.dtype == theirs.dtype == torch.float64
    assert off_by(ours.pred, theirs) <= 1e-10
