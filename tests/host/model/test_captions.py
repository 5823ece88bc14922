"""Captions through the text encoders of every family, as ComfyUI's own nodes encode them."""

import functools

import pytest
import torch

import nodes
from harness.models import small_model
from harness.small import small_models
from masklora.host.model.encoders import ClipTextEncoder
from masklora.host.model.fitting import check_text
from masklora.host.model.trainable import TrainableModel

ENCODERS = [name for name, small in small_models().items() if small.encoder is not None and small.family == name]


@pytest.fixture(scope="module")
def clips():
    return functools.cache(lambda name: small_models()[name].encoder.made())


@pytest.mark.parametrize("name", ENCODERS)
def test_a_caption_is_encoded_as_core_s_node_does_it(name, clips):
    """Its template included."""
    (ours,) = ClipTextEncoder(clips(name)).encode(["a thing on grass"])
    ((cond, extras),) = nodes.CLIPTextEncode().encode(clips(name), "a thing on grass")[0]
    assert torch.equal(ours["cond"], cond)
    for key, value in extras.items():
        assert torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value


@pytest.mark.parametrize("name", ENCODERS)
def test_parentheses_and_colons_are_letters(name, clips):
    """As in `name (series)`: what would be a weight in a prompt must not vanish from a caption."""
    encoder = ClipTextEncoder(clips(name))
    bare, named = encoder.encode(["a thing series", "a thing (series:1.4)"])
    assert bare["cond"].shape != named["cond"].shape or not torch.allclose(bare["cond"], named["cond"], atol=1e-3)
    assert named["cond"].isfinite().all()


@pytest.mark.parametrize("name", ENCODERS)
def test_the_model_takes_its_own_encoder_s_captions_the_empty_one_too(name, clips):
    trainable = TrainableModel(small_model(name, page=True))
    for text in ClipTextEncoder(clips(name)).encode(["a thing", ""]):
        check_text(text, trainable)
