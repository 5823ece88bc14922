"""A clip's first frame as the network is given it: as by ComfyUI's own nodes and sampler, and never learned."""

import dataclasses

import comfy.sample
import comfy_extras.nodes_cosmos
import comfy_extras.nodes_hunyuan
import comfy_extras.nodes_kandinsky5
import comfy_extras.nodes_lt
import comfy_extras.nodes_wan
import pytest
import torch

from harness.double import in_double, no_float32
from harness.models import small_model, small_text
from harness.vaes import small_vae
from masklora.cache.captions import Caption
from masklora.dataset.geometry import Geometry
from masklora.host.model.adapted import AdaptedModel
from masklora.host.model.encoders import VaeEncoder
from masklora.host.model.first_frame import first_frame_of, read_from
from masklora.host.model.trainable import TrainableModel
from masklora.settings import AdapterSettings, LossSettings
from masklora.training.batches import ORIGINAL, Draw
from masklora.training.microbatch import Feed
from masklora.training.objective import Objective

SIDE = 64
SQUARE = Geometry(source=(SIDE, SIDE), resized=(SIDE, SIDE), crop=(0, 0, SIDE, SIDE))
GIVEN = ["wan21_i2v", "wan22_i2v", "wan22_5b", "ltxv", "ltxav", "hunyuan_video15", "kandinsky5", "cosmos_predict2_i2v"]
FRAMES = 9


def frames():
    return torch.rand(FRAMES, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(5))


def conds(text):
    return [[text["cond"], {k: v for k, v in text.items() if k != "cond"}]]


def by_comfyui(name, vae, text):
    """Conditions and latent as ComfyUI's own node for that model makes them of the first frame."""
    first, sizes = frames()[:1], {"width": SIDE, "height": SIDE, "length": FRAMES, "batch_size": 1}
    positive = conds(text)
    if name == "wan22_5b":
        return positive, comfy_extras.nodes_wan.Wan22ImageToVideoLatent.execute(vae, **sizes, start_image=first)[0]
    if name == "cosmos_predict2_i2v":
        node = comfy_extras.nodes_cosmos.CosmosPredict2ImageToVideoLatent
        return positive, node.execute(vae, **sizes, start_image=first)[0]
    if name == "kandinsky5":
        node = comfy_extras.nodes_kandinsky5.Kandinsky5ImageToVideo
        made = node.execute(positive, positive, vae, **sizes, start_image=first)
    elif name in ("ltxv", "ltxav"):
        node = comfy_extras.nodes_lt.LTXVImgToVideo
        made = node.execute(positive, positive, first, vae, **sizes, strength=1.0)
    elif name == "hunyuan_video15":
        node = comfy_extras.nodes_hunyuan.HunyuanVideo15ImageToVideo
        made = node.execute(positive, positive, vae, **sizes, start_image=first)
    else:
        made = comfy_extras.nodes_wan.WanImageToVideo.execute(positive, positive, vae, **sizes, start_image=first)
    return made[0], made[2]


def start_of(name, vae, positive, latent):
    """What the training reads, (1, C, F, h, w), at the latents that ComfyUI's node has."""
    if read_from(first_frame_of(TrainableModel(small_model(name)))) == "cache":
        begun = torch.full((FRAMES, SIDE, SIDE, 3), 0.5)
        begun[0] = frames()[0]
        return VaeEncoder(vae).encode_clip(begun)[None]
    given = positive[0][1]
    start = given.get("concat_latent_image", given.get("time_dim_replace", latent["samples"]))
    count = latent["samples"].shape[2]
    return torch.cat([start, torch.zeros_like(start).repeat(1, 1, count - 1, 1, 1)], dim=2)[:, :, :count]


def loudest(sampling, noise):
    """What a sampler of ComfyUI begins with, as the network sees it, and its noise level (1,)."""
    sigma = sampling.sigma_max.reshape(1)
    begun = sampling.noise_scaling(sigma[0], noise, torch.zeros_like(noise), True)
    level = sigma / (1 + sigma) if sigma > 1 else sigma
    return sampling.calculate_input(sigma, begun), level.float()


def calls_of(network):
    """What the network is given from now on: tensors and times by their names."""
    found = []

    def keep(_, args, kwargs):
        named = dict(zip(("x", "timestep"), args, strict=False)) | kwargs
        named["context"] = kwargs.get("context", args[2] if len(args) > 2 else None)
        # A network that makes sound too is given a list of what there is, and the noise of each.
        if isinstance(named["timestep"], tuple):
            named |= {"x": named["x"][0], "timestep": named["timestep"][0], "of the sound": named["timestep"][1]}
        found.append({k: v.clone() for k, v in named.items() if isinstance(v, torch.Tensor)})

    network.register_forward_pre_hook(keep, with_kwargs=True)
    return found


@pytest.mark.parametrize("name", GIVEN)
@torch.no_grad()
def test_the_network_is_given_what_comfyui_s_node_and_sampler_give_it(name):
    vae, text, patcher = small_vae(name), small_text(name, tokens=12), small_model(name)
    positive, latent = by_comfyui(name, vae, text)
    samples = comfy.sample.fix_empty_latent_channels(patcher, latent["samples"])
    noise = comfy.sample.prepare_noise(samples, 3)
    theirs = calls_of(patcher.model.diffusion_model)
    given = {"noise_mask": latent.get("noise_mask"), "disable_pbar": True}
    comfy.sample.sample(patcher, noise, 1, 1.0, "euler", "simple", positive, positive, samples, **given)

    trainable = TrainableModel(small_model(name), guidance=6.0)
    model = AdaptedModel(trainable, trainable.make_adapters(AdapterSettings(rank=2, alpha=2.0), seed=0))
    ours = calls_of(trainable.network)
    made = model.collate([text], [SQUARE], noise.shape[1:], keys=["a"])
    start = start_of(name, vae, positive, latent).float()
    noisy, u = loudest(patcher.model.model_sampling, noise)
    model.denoise(noisy, u, model.with_first_frames(made, start))
    assert len(theirs) == len(ours) == 1
    assert torch.equal(theirs[0]["context"], ours[0]["context"])
    # What is given is the same bit for bit; the noise is ComfyUI's at a level that it may round to just below one.
    times = [call[0]["timestep"].float() for call in (theirs, ours)]
    assert torch.allclose(*times, rtol=1e-6, atol=0) and torch.equal(*(one == 0 for one in times))
    x, y, channels = theirs[0]["x"], ours[0]["x"], noise.shape[1]
    assert torch.equal(x[:, channels:], y[:, channels:])
    # Cosmos' sampler divides what is given by what the model multiplies it with.
    assert torch.equal(x[:, :, 0], y[:, :, 0]) or name.startswith("cosmos")
    assert torch.allclose(x, y, rtol=1e-6, atol=1e-6)
    rest = theirs[0].keys() - {"x", "timestep", "context"}
    assert rest <= ours[0].keys()
    assert all(torch.allclose(theirs[0][one], ours[0][one], rtol=1e-6, atol=1e-6) for one in rest)
    # Without it the network sees something else.
    model.denoise(noisy, u, made)
    assert ours[1].keys() < ours[0].keys() or not torch.equal(ours[0]["x"], ours[1]["x"])


@pytest.mark.parametrize("name", ["wan21_i2v", "ltxv"])
def test_a_clip_s_first_latent_frame_is_that_of_its_first_frame_alone(name):
    encoder = VaeEncoder(small_vae(name))
    whole, alone = encoder.encode_clip(frames()), encoder.encode(frames()[:1])[0]
    assert torch.allclose(whole[:, 0], alone, atol=1e-4 * float(alone.abs().max()))


@dataclasses.dataclass
class Shown:
    """One clip with a mask that moves, as training reads a cache."""

    name: str = "clip"
    captions: tuple = (Caption("x", "x", "plain", "plain"),)
    variants: tuple = (dataclasses.make_dataclass("View", [("geometry", Geometry)])(SQUARE),)
    bucket: tuple = (SIDE, SIDE)
    latent_frames: int = 3
    reference_sizes: tuple[tuple[int, int], ...] = ()
    weight: float = 1.0
    multiplier: float = 1.0
    regularisation: bool = False
    caption_dropout: float = 0.0
    has_mask: bool = True
    infills: tuple = ()


class Held:
    """A cache of one clip for a small model."""

    def __init__(self, name, trainable):
        g = torch.Generator().manual_seed(2)
        side = SIDE // trainable.stride
        self.entries, self.name = [Shown()], name
        self.shape = (trainable.channels, 3, side, side)
        self.values, self.begun = (torch.randn(self.shape, generator=g) for _ in range(2))
        self.outline = torch.zeros(1, 3, SIDE, SIDE)
        self.outline[:, :, : SIDE // 2] = 1

    def latent(self, entry, variant, infill):
        return self.values

    def start(self, entry, variant, infill):
        return self.begun

    def mask(self, entry, variant):
        return self.outline

    def text(self, key):
        return small_text(self.name, tokens=12, seed=len(key))

    def untouched(self):
        return self


def terms_of(*args, **kwargs):
    """As `_terms_of`, in float64 throughout."""
    with no_float32():
        return _terms_of(*args, **kwargs)


def _terms_of(name, *, checkpointing, factor=None, **loss):
    """Values of the loss's parts for a micro-batch, gradients of the adapters and at the predictions."""
    trainable = TrainableModel(small_model(name), dtype=torch.float64)
    in_double(trainable.network)
    adapters = trainable.make_adapters(AdapterSettings(rank=2, alpha=2.0), seed=0)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in adapters.parameters().values():
            p.data = 0.05 * torch.randn(p.shape, generator=g, dtype=torch.float64)
    if factor is not None:
        factor(adapters.parameters())
    model = AdaptedModel(trainable, adapters)
    settings = LossSettings(timestep_sampling="uniform", **loss)
    cache = Held(name, trainable)
    feed = Feed(cache, settings, model=model, first_frames=read_from(first_frame_of(trainable)))
    predictions, values = [], []
    denoise = model.denoise

    def watched(*args, **kwargs):
        out = denoise(*args, **kwargs)
        if out.requires_grad:
            out.retain_grad()
            predictions.append(out)
        return out

    model.denoise = watched
    with trainable.session(adapters, checkpointing=checkpointing):
        batch = feed.make([Draw(0, 0, 0, ORIGINAL)] * 2, plain=bool(loss.get("preservation_weight")))
        objective, chance = Objective(model, seed=0), torch.Generator().manual_seed(4)
        for term in objective.terms(batch, settings, chance, number=0, progress=0.5):
            # What is shown of the training is what is learned.
            assert torch.equal(objective.seen.latent, batch.latents[0][:, 1:])
            assert objective.seen.weights.shape == objective.seen.latent.shape[1:]
            with model.autograd_scope():
                value, seen = term()
                value.backward()
            values.append((float(value.detach()), seen))
    found = {n: p.grad.clone() for n, p in adapters.parameters().items() if p.grad is not None}
    return values, found, [p.grad for p in predictions]


EVERYTHING = {"prior_weight": 1.0, "preservation_weight": 1.0, "floor": 0.3, "outside_share": 0.2}


@pytest.mark.parametrize("name", GIVEN)
def test_nothing_is_learned_or_held_of_the_first_frame_and_gradients_are_autograd_s(name):
    values, off, at_predictions = terms_of(name, checkpointing="off", **EVERYTHING)
    assert len(at_predictions) == 2
    for grad in at_predictions:
        assert not grad[:, :, 0].any() and grad[:, :, 1:].any()
    assert values[0][1]["coverage"].tolist() == pytest.approx([0.65] * 2)
    again, per_block, _ = terms_of(name, checkpointing="per block", **EVERYTHING)
    assert again[0][0] == pytest.approx(values[0][0], rel=1e-12)
    assert off.keys() == per_block.keys() and off
    for key, grad in off.items():
        scale = max(float(grad.abs().max()), 1e-12)
        assert float((grad - per_block[key]).abs().max()) <= 1e-10 * scale, key


@pytest.mark.parametrize("name", ["wan21_i2v", "wan22_5b"])
def test_gradients_are_the_loss_s_differences(name):
    loss = {"prior_weight": 1.0}
    _, found, _ = terms_of(name, checkpointing="per block", **loss)
    key = max(found, key=lambda k: float(found[k].abs().max()))
    place, step = int(found[key].abs().argmax()), 1e-5

    def moved(by):
        def change(parameters):
            parameters[key].data.view(-1)[place] += by

        return terms_of(name, checkpointing="off", factor=change, **loss)[0][0][0]

    slope = (moved(step) - moved(-step)) / (2 * step)
    assert slope == pytest.approx(float(found[key].view(-1)[place]), rel=1e-5)
