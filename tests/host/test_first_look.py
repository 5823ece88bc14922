"""A VAE of another model, or another prediction, has the right shapes: the first steps tell it."""

from pathlib import Path

import comfy.sd
import pytest
import torch

from demo.assemble import build_checkpoint
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.dataset.loading import load_dataset
from masklora.host.model.encoders import ClipTextEncoder, VaeEncoder
from masklora.host.training import Request, train_lora
from masklora.settings import (
    AdapterSettings,
    CacheSettings,
    DatasetSettings,
    LossSettings,
    OptimizerSettings,
    TrainSettings,
)
from masklora.training.first_look import LOST, SAMPLES, FirstLook
from masklora.training.job import Hooks

ROOT = Path(__file__).resolve().parents[2]


class Said(Hooks):
    def __init__(self):
        self.messages = []

    def on_message(self, text):
        self.messages.append(text)


class Permuted:
    """The VAE with its channels in another order, as that of another family would give them."""

    def __init__(self, vae):
        self.vae, self.identity = vae, f"permuted {vae.identity}"
        self.channels, self.stride, self.rule = vae.channels, vae.stride, vae.rule

    def encode(self, images):
        return self.vae.encode(images)[:, torch.arange(self.channels).roll(5)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    path = build_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=True, output_clip=True)[:3]


def said(demo, encoder, folder, *, model=None, seed=0, **loss):
    patcher, clip, _ = demo
    settings = DatasetSettings(folder=str(ROOT / "demo" / "pictures" / "alpha"))
    cache = build_cache(
        load_dataset(settings, allowed=lambda path: path),
        CacheSettings(resolution=128, bucket_step=16, storage="memory", infill_variants=0),
        encoder=encoder,
        text=ClipTextEncoder(clip),
    )
    request = Request(
        model=model or patcher,
        cache=cache,
        loss=LossSettings(prior_weight=0.0, infill_probability=0.0, **loss),
        adapter=AdapterSettings(rank=2, alpha=2.0),
        optimizer=OptimizerSettings(learning_rate=1e-4),
        train=TrainSettings(steps=4, batch_size=4, name="first look", seed=seed),
    )
    hooks = Said()
    train_lora(request, runs=folder, hooks=hooks, report=lambda text: None)
    return [text for text in hooks.messages if "no better than nothing" in text]


def test_a_vae_that_belongs_to_the_model_is_not_complained_of(demo, tmp_path):
    assert said(demo, VaeEncoder(demo[2]), tmp_path) == []


@pytest.mark.parametrize("other", ["another order of channels", "another VAE"])
def test_a_vae_of_another_model_is_told_in_the_first_steps(demo, tmp_path, other):
    encoder = Permuted(VaeEncoder(demo[2])) if other.startswith("another order") else VaeEncoder(small_vae("sd3"))
    # The share hangs on the noise levels that are drawn: of five seeds one falls a little short with the other VAE.
    texts = [text for seed in range(3) for text in said(demo, encoder, tmp_path, seed=seed)]
    assert len(texts) >= 2 and all("VAE and CLIP are those of the MODEL" in text for text in texts)


@pytest.mark.parametrize("seed", range(3))
def test_the_share_is_that_of_predicting_nothing(seed):
    g = torch.Generator().manual_seed(seed)
    told = []
    for scale, expected in ((0.5, False), (1.2, True)):
        look = FirstLook(told.append)
        for _ in range(SAMPLES // 4 + 3):
            target = torch.randn(4, 3, 8, 8, generator=g)
            look.observe(target + scale * torch.randn(target.shape, generator=g), target)
        assert look.share == pytest.approx(scale**2, rel=0.2)
        assert (look.share >= LOST) == expected
    assert len(told) == 1
