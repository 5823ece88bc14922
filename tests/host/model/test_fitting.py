"""A VAE, captions and sizes that are not the model's are told before the first picture is encoded."""

import dataclasses

import numpy as np
import pytest
import torch

from harness.models import HashedText, small_model, small_text
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.dataset.loading import from_images
from masklora.errors import ConfigError, FamilyError
from masklora.host.model.encoders import VaeEncoder
from masklora.host.model.fitting import check_before_encoding, check_sizes, size_fault
from masklora.host.model.trainable import TrainableModel
from masklora.settings import CacheSettings, DatasetSettings


class Counting(VaeEncoder):
    """A real VAE that counts what it encodes."""

    def __init__(self, vae):
        super().__init__(vae)
        self.encoded = 0

    def encode(self, images):
        self.encoded += len(images)
        return super().encode(images)


def build(model, *, vae, text, side=64, step=16):
    """The cache of one picture for `model`, or its error and how much was encoded by then."""
    image = np.zeros((side, side, 3), np.float32)
    dataset = from_images([image], [np.ones((side, side), np.float32)], ["a thing"], DatasetSettings())
    encoder, captions = Counting(small_vae(vae)), HashedText(text)
    settings = CacheSettings(resolution=side, bucket_step=step, storage="memory", infill_variants=3)
    fits = lambda entries: check_before_encoding(model, encoder, captions, entries)  # noqa: E731
    try:
        build_cache(dataset, settings, encoder=encoder, text=captions, fits=fits)
    except (ConfigError, FamilyError) as error:
        return str(error), encoder.encoded
    return "", encoder.encoded


@pytest.mark.parametrize(
    ("model", "given", "told"),
    [
        ("sd3", {"vae": "sd15", "text": "sd3"}, "VAE of 4 channels and stride 8, but Stable Diffusion 3 takes 16"),
        ("sd3", {"vae": "wan", "text": "sd3"}, "VAE for clips, but Stable Diffusion 3 takes one for pictures"),
        ("wan", {"vae": "flux", "text": "wan"}, "VAE for pictures, but Wan takes one for clips"),
        ("sd3", {"vae": "sd3", "text": "sdxl"}, "captions have 2048 features, but Stable Diffusion 3 reads 4096"),
        ("sd3", {"vae": "sd3", "text": "chroma"}, "its captions lack 'pooled_output', which Stable Diffusion 3 reads"),
        ("flux", {"vae": "flux", "text": "chroma"}, "captions have no pooled features, but FLUX.1 reads 768"),
        ("wan", {"vae": "wan", "text": "z_image"}, "captions have 2560 features, but Wan reads 4096"),
        ("anima", {"vae": "anima", "text": "krea2"}, "its captions lack 't5xxl_ids', which Anima reads"),
        ("krea2", {"vae": "krea2", "text": "anima"}, "captions have 32 features, but Krea 2 reads 384"),
        ("minimax_h3", {"vae": "wan", "text": "minimax_h3"}, "16 channels and stride 8, but MiniMax H3 takes 24"),
        ("minimax_h3", {"vae": "minimax_h3", "text": "anima"}, "captions have 32 features, but MiniMax H3 reads 48"),
        ("sd3", {"vae": "sd3", "text": "sd3", "side": 1024}, "1024×1024 is too large for this Stable Diffusion 3"),
    ],
)
def test_what_is_not_the_model_s_is_told_before_anything_is_encoded(model, given, told):
    error, encoded = build(small_model(model), **given)
    assert told in error and encoded == 0


@pytest.mark.parametrize("family", ["sd15", "sd3", "flux", "chroma", "qwen_image", "z_image", "wan"])
def test_what_is_the_model_s_is_encoded(family):
    assert build(small_model(family), vae=family, text=family) == ("", 1 + 3)


@pytest.mark.parametrize("family", ["ltxav", "anima", "minimax_h3"])
def test_texts_are_looked_at_where_the_weights_lie_before_these_are_brought_to_the_compute_device(family):
    """Some networks put texts through their first layers as soon as conditions are made of them."""
    trainable, texts = TrainableModel(small_model(family)), [small_text(family, tokens=n) for n in (9, 12)]
    trainable.device = torch.device("meta")
    assert trainable.text_fault(texts[0]) is None and not trainable.reads("guidance", texts[0])
    assert trainable.runs_apart(texts, targets=["blocks.0"]) == (family == "minimax_h3")


def test_a_network_whose_patches_must_divide_the_sides_says_which_sides_it_takes():
    trainable = TrainableModel(small_model("wan"))
    assert size_fault(trainable, 72, 64) is None
    trainable.family = dataclasses.replace(trainable.family, divides=True)
    assert size_fault(trainable, 64, 80) is None
    assert "72×64 is no size for Wan, whose sides are multiples of 16 px" in size_fault(trainable, 72, 64)


def test_a_network_that_fails_at_small_pictures_says_how_large_they_must_be():
    trainable = TrainableModel(small_model("pixart"))
    assert size_fault(trainable, 272, 256) is None
    told = size_fault(trainable, 256, 256)
    assert told == "256×256 is too small for PixArt, whose sides are 264 px or more on average"
    check_sizes([(272, 256)], trainable)
    with pytest.raises(ConfigError, match=r"256×256 is too small.*Change resolution"):
        check_sizes([(256, 256)], trainable)
