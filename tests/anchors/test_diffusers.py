"""What we train is what diffusers trains: its own networks with the same weights, its timesteps, signs and targets.

Read at diffusers 0.42: the pipelines tell what a network is called with, `examples/dreambooth` what it is trained on.
"""

import functools
from typing import NamedTuple

import diffusers
import pytest
import torch

from harness.diffusers_networks import FAMILIES, diffusers_network
from harness.double import in_double
from harness.models import small_model, small_text
from masklora.dataset.geometry import Geometry
from masklora.host.families import FAMILY_GUIDANCE
from masklora.host.model.trainable import TrainableModel
from masklora.loss.losses import masked_objective
from masklora.loss.noise import add_noise, target
from masklora.settings import AdapterSettings, LossSettings

# Sides, crops and sizes are all unlike, so that nothing can be taken for another.
GEOMETRY = Geometry(source=(200, 150), resized=(128, 96), crop=(24, 16, 96, 64))
# Exact in float32 when multiplied by 1000 and divided again.
LEVELS = (0.25, 0.875)
GUIDANCE = 2.5
PATCH = 2


class Batch:
    """Two samples with unlike texts, levels and masks, for a small model of `family` in both programs."""

    def __init__(self, family: str, dtype: torch.dtype = torch.float32):
        patcher = small_model(family)
        self.theirs = diffusers_network(family, patcher.model, dtype)
        if dtype == torch.float64:
            in_double(patcher.model.diffusion_model)
        # Chroma is always told 0, which is its own guidance here and the only one there.
        guidance = FAMILY_GUIDANCE if family == "chroma" else GUIDANCE
        self.trainable = TrainableModel(patcher, dtype=dtype, guidance=guidance)
        g = torch.Generator().manual_seed(1)
        shape = (2, self.trainable.channels, 8, 12)
        self.latent, self.noise = (torch.randn(shape, generator=g, dtype=dtype) for _ in range(2))
        self.w = torch.rand(2, 1, 8, 12, generator=g)
        self.u = torch.tensor(LEVELS)
        self.texts = [small_text(family, tokens=40, seed=s) for s in (0, 1)]
        self.cond = torch.cat([t["cond"] for t in self.texts]).to(dtype)
        self.pooled = torch.cat([t.get("pooled_output", t["cond"][:, 0]) for t in self.texts]).to(dtype)

    def noisy(self):
        """What our networks are given."""
        return add_noise(self.latent, self.noise, self.u.to(self.latent.dtype), schedule=self.trainable.schedule)

    def predicted(self, noisy):
        """Our raw prediction in a session, whose adapters change nothing yet."""
        t = self.trainable
        with t.session(t.make_adapters(AdapterSettings(rank=1, alpha=1.0), seed=0)), torch.no_grad():
            return t.denoise(noisy, self.u, t.collate(self.texts, [GEOMETRY] * 2, noisy.shape[1:]))


class Outcome(NamedTuple):
    """What a network was given, what it answered and what it should have."""

    noisy: torch.Tensor
    pred: torch.Tensor
    target: torch.Tensor


def by_table(batch, **more):
    """Stable Diffusion: the scheduler's own noise at whole timesteps, and noise as the target."""
    scheduler = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    steps = (batch.u * 1000).long()
    noisy = scheduler.add_noise(batch.latent, batch.noise, steps)
    out = batch.theirs(noisy, steps, encoder_hidden_states=batch.cond, **more).sample
    return Outcome(noisy, out, batch.noise)


def sdxl(batch):
    """Its sizes are (original height and width, crop's top and left, height and width)."""
    ids = torch.tensor([[150, 200, 16, 24, 64, 96]] * 2)
    return by_table(batch, added_cond_kwargs={"text_embeds": batch.pooled, "time_ids": ids})


def by_flow(predict):
    """Straight paths from latent to noise, and noise less latent as the target."""

    @functools.wraps(predict)
    def both(batch):
        u = batch.u.to(batch.latent.dtype).view(-1, 1, 1, 1)
        noisy = (1 - u) * batch.latent + u * batch.noise
        return Outcome(noisy, predict(batch, noisy), batch.noise - batch.latent)

    return both


@by_flow
def sd3(batch, noisy):
    return batch.theirs(
        noisy, timestep=batch.u * 1000, encoder_hidden_states=batch.cond, pooled_projections=batch.pooled
    ).sample


def packed(latents):
    b, c, h, w = latents.shape
    cells = latents.view(b, c, h // PATCH, PATCH, w // PATCH, PATCH).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(b, -1, c * PATCH * PATCH)


def unpacked(tokens, like):
    b, c, h, w = like.shape
    cells = tokens.view(b, h // PATCH, w // PATCH, c, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(like.shape)


def of_packed(batch, noisy, **more):
    """FLUX.1 and what came of it: tokens of four cells, places as (0, row, column), text at (0, 0, 0)."""
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).view(-1, 3).float()
    out = batch.theirs(
        packed(noisy),
        timestep=batch.u.to(noisy.dtype),
        encoder_hidden_states=batch.cond,
        img_ids=places,
        txt_ids=torch.zeros(batch.cond.shape[1], 3),
        **more,
    ).sample
    return unpacked(out, noisy)


@by_flow
def flux(batch, noisy):
    return of_packed(batch, noisy, guidance=torch.full((2,), GUIDANCE), pooled_projections=batch.pooled)


@by_flow
def chroma(batch, noisy):
    return of_packed(batch, noisy)


@by_flow
def qwen_image(batch, noisy):
    out = batch.theirs(
        packed(noisy),
        encoder_hidden_states=batch.cond,
        timestep=batch.u.to(noisy.dtype),
        img_shapes=[[(1, 4, 6)]] * 2,
    ).sample
    return unpacked(out, noisy)


@by_flow
def z_image(batch, noisy):
    """Its time runs the other way, and its pipeline turns the sign."""
    out = batch.theirs(list(noisy[:, :, None]), 1 - batch.u, list(batch.cond)).sample
    return -torch.stack(out)[:, :, 0]


@by_flow
def wan(batch, noisy):
    return batch.theirs(noisy[:, :, None], timestep=batch.u * 1000, encoder_hidden_states=batch.cond).sample[:, :, 0]


THEIRS = {
    "sd15": by_table,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "chroma": chroma,
    "qwen_image": qwen_image,
    "z_image": z_image,
    "wan": wan,
}


@functools.cache
def outcomes(family):
    """Ours, theirs and the weights of one batch, each from its own noisy latents, timesteps and targets."""
    batch = Batch(family)
    with torch.no_grad():
        theirs = THEIRS[family](batch)
    noisy = batch.noisy()
    goal = target(batch.latent, batch.noise, batch.u, schedule=batch.trainable.schedule)
    return Outcome(noisy, batch.predicted(noisy), goal), theirs, batch.w


def off_by(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_our_raw_prediction_is_that_of_diffusers_network_called_as_its_pipeline_does(family):
    """Z-Image and Wan differ by 4e-6, all others by less than 1e-6: ComfyUI's norm of Z-Image's queries and keys adds
    another epsilon, and Wan's times are told by a power there and by an exponential here.
    """
    ours, theirs, _ = outcomes(family)
    assert ours.pred.shape == theirs.pred.shape and ours.pred.std() > 0.01
    assert off_by(ours.noisy, theirs.noisy) <= 1e-6
    assert off_by(ours.pred, theirs.pred) <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_our_masked_loss_is_diffusers_training_loss_times_the_mask(family):
    """`train_dreambooth_lora_flux.py` and its siblings: the squared error's mean over a picture, then over pictures."""
    ours, theirs, w = outcomes(family)
    loss, _ = masked_objective(ours.pred, ours.target, w, LossSettings(normalize="none", outside_share=0.0))
    error = (theirs.pred.float() - theirs.target.float()) ** 2
    wanted = torch.mean((w * error).reshape(2, -1), 1).mean()
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)


def test_in_float64_the_u_net_is_the_same_network():
    """The only class that can show it: diffusers' transformers have norms, and most rotations, in float32."""
    batch = Batch("sd15", torch.float64)
    noisy, steps = batch.noisy(), (batch.u * 1000).long()
    with torch.no_grad():
        theirs = batch.theirs(noisy, steps, encoder_hidden_states=batch.cond).sample
    ours = batch.predicted(noisy)
    assert ours.dtype == theirs.dtype == torch.float64
    assert off_by(ours, theirs) <= 1e-10
