"""Small real trainings: a cache of made-up pictures, and a request for each family that trains in a second."""

import dataclasses

import numpy as np
import torch
from comfy.model_management import InterruptProcessingException

from masklora.cache.cache import build_cache
from masklora.dataset.loading import from_images
from masklora.host.families import families
from masklora.host.model.encoders import VaeEncoder
from masklora.host.model.fitting import wants_cut_outs
from masklora.host.sampling import SampleRequest
from masklora.host.training import Request
from masklora.runs.sample_pictures import SampleSettings
from masklora.settings import (
    AdapterSettings,
    CacheSettings,
    DatasetSettings,
    LossSettings,
    OptimizerSettings,
    TrainSettings,
)
from masklora.training.job import Hooks

from .models import HashedText, SeeingText, small_model, small_side
from .small import small_models, tried
from .small_unknown import UNKNOWN
from .vaes import small_vae

PROMPTS = ("a thing 0", "a thing 1")
# All but the one that takes its time.
LIGHT = [name for name in tried() if name != "sdxl"]


def pictures(n=4, settings=None, side=64, *, beside=False):
    rng, s = np.random.default_rng(0), side // 64
    images = [rng.random((side, side, 3), dtype=np.float32) for _ in range(n)]
    masks = [np.zeros((side, side), np.float32) for _ in range(n)]
    for i, mask in enumerate(masks):
        mask[8 * s : (40 + 4 * i) * s, 16 * s : 48 * s] = 1.0
    captions, references = [f"a thing {i}" for i in range(n)], images[::-1] if beside else ()
    return from_images(images, masks, captions, settings or DatasetSettings(), references=references)


def picture_side(name):
    """Pixels a side of a small picture that this small model takes, which all strides divide."""
    if name in UNKNOWN:
        return 64
    (family,) = (f for f in families() if f.name == small_models()[name].family)
    return -(-8 * small_side(family) // 32) * 32


def needed_references(name):
    """How a model is given the reference pictures without which it makes nothing; None where it needs none."""
    kind = None if name in UNKNOWN else small_models()[name].family
    found = next((f.references for f in families() if f.name == kind), None)
    return found if found is not None and found.needed else None


def make_cache(family, settings=None):
    side, encoder = picture_side(family), VaeEncoder(small_vae(family))
    encoder.rule = dataclasses.replace(encoder.rule, cut_outs=wants_cut_outs(small_model(family)))
    beside = needed_references(family)
    return build_cache(
        pictures(settings=settings, side=side, beside=beside is not None),
        CacheSettings(resolution=side, bucket_step=32, storage="memory", infill_variants=3),
        encoder=encoder,
        text=HashedText(family) if beside is None else SeeingText(family, beside.pictures),
    )


class Caches(dict):
    """A cache by family, made when it is first asked for."""

    def __missing__(self, family):
        self[family] = make_cache(family)
        return self[family]


def make_samples(family, **changes):
    """Two small pictures for it, drawn in three steps, with a reference picture where it makes nothing without."""
    side = picture_side(family)
    small = {"width": side, "height": side + 32, "every": 2, "steps": 3, "cfg": 2.0}
    settings = SampleSettings(prompts=PROMPTS, **small | changes)
    texts = HashedText(family).encode([*PROMPTS, ""])
    vae, beside = small_vae(family), {}
    if needed_references(family) is not None:
        shown = np.random.default_rng(1).random((1, side, side, 3), dtype=np.float32)
        with torch.no_grad():
            beside = {"reference_latents": [vae.encode(torch.from_numpy(shown))]}
    encoded = [[[one["cond"], {**{k: v for k, v in one.items() if k != "cond"}, **beside}]] for one in texts]
    return SampleRequest(settings, encoded[:2], encoded[2], vae)


def make_request(family, cache, **train):
    return Request(
        model=small_model(family),
        cache=cache,
        loss=LossSettings(),
        adapter=AdapterSettings(rank=4, alpha=2.0),
        optimizer=OptimizerSettings(learning_rate=1e-3),
        train=TrainSettings(**{"steps": 3, "batch_size": 2, "name": "probe", "leak_every": -1, **train}),
    )


class CancelAt(Hooks):
    """Cancels a training when it has done so many steps."""

    def __init__(self, step):
        super().__init__()
        self.step, self.done = step, 0

    def after_step(self, step):
        self.done = step

    def check_cancel(self):
        if self.done == self.step:
            raise InterruptProcessingException
