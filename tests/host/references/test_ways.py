"""Captions are made with their reference pictures as ComfyUI's own node of each model makes them."""

import comfy_extras.nodes_qwen
import pytest
import torch

from harness.small import small_models
from masklora.cache.keys import digest
from masklora.errors import ConfigError, FamilyError
from masklora.host.families import families
from masklora.host.model.encoders import ClipTextEncoder
from masklora.host.references import ways
from masklora.host.references.conditions import TEXTS, gathered
from masklora.host.references.shown import prompt_with, reference_latents
from masklora.host.references.ways import MOST, WAYS, encoded_with, way_of

PICTURES = [torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(1)), torch.zeros(1, 64, 48, 3)]
SEEN = {family.name: family.references.pictures for family in families() if family.references}


class Recorder:
    """A CLIP that keeps what a node asks of it: of a node two of these are asked alike where ours is the node."""

    def __init__(self, tokenizer="QwenImageTokenizer"):
        self.tokenizer, self.asked = type(tokenizer, (), {})(), []

    def tokenize(self, text, **told):
        self.asked.append(digest(text, told.get("llama_template"), [_bytes(one) for one in told.get("images") or []]))
        return text

    def encode_from_tokens_scheduled(self, tokens, show_pbar=True):
        return [[torch.full((1, 2, 3), float(len(self.asked))), {}]]


def _bytes(picture):
    return [list(picture.shape), picture.double().sum().item()]


def test_every_way_of_a_family_is_known_and_every_known_way_is_a_family_s():
    assert {way for way in SEEN.values() if way} == set(WAYS)
    assert set(ways._BY_TOKENIZER.values()) == set(WAYS) == set(MOST)


@pytest.mark.parametrize("way", list(WAYS))
def test_the_last_picture_that_a_node_takes_is_seen_and_one_more_is_refused(way):
    given = [torch.full((1, 32, 32, 3), number / 20) for number in range(MOST[way])]
    one, other = Recorder(), Recorder()
    encoded_with(one, "make it red", given, way)
    encoded_with(other, "make it red", [*given[:-1], given[-1] + 0.5], way)
    # To the encoder of Z-Image it is told only how many there are.
    assert (one.asked != other.asked) == (way != "z-image omni")
    with pytest.raises(ConfigError, match=rf"is shown {MOST[way]} at most, got {MOST[way] + 1}"):
        encoded_with(one, "make it red", [*given, given[0]], way)


def test_no_family_takes_more_pictures_than_its_node():
    taken = {family.name: family.references.most for family in families() if family.references}
    assert all(taken[name] <= MOST[way] for name, way in SEEN.items() if way)


@pytest.mark.parametrize("name", [name for name, way in SEEN.items() if way])
def test_the_text_encoder_of_a_family_tells_its_way(name):
    encoder = small_models()[name].encoder
    if encoder is not None:
        assert way_of(Recorder(encoder.tokenizer)) == SEEN[name]


def test_the_way_of_qwen_image_edit_plus_is_the_node_s():
    ours, theirs = Recorder(), Recorder()
    encoded_with(ours, "make it red", PICTURES, "qwen edit plus")
    comfy_extras.nodes_qwen.TextEncodeQwenImageEditPlus.execute(theirs, "make it red", None, *PICTURES)
    assert ours.asked == theirs.asked


def test_what_stands_around_the_pictures_of_z_image_is_kept_as_tensors():
    encoder = ClipTextEncoder(small_models()["z_image"].encoder.made(), pictures="z-image omni")
    (text,) = encoder.encode_with(["make it red"], [PICTURES])
    assert all(isinstance(value, (torch.Tensor, int, float, str, bool, type(None))) for value in text.values())
    # Before the first picture, between the two, and behind the second.
    assert len(gathered(text)[TEXTS]) == 3
    (plain,) = encoder.encode(["make it red"])
    assert plain["cond"].shape != text["cond"].shape or not torch.equal(plain["cond"], text["cond"])


def test_a_text_encoder_that_takes_no_pictures_is_refused():
    class Blind(Recorder):
        def tokenize(self, text):
            return text

    with pytest.raises(FamilyError, match=r"cannot be shown reference pictures.*Connect the CLIP"):
        encoded_with(Blind(), "make it red", PICTURES, "qwen edit plus")


class Eye:
    """A VAE that answers with the size of what it is shown."""

    def encode(self, picture):
        assert picture.shape[-1] == 3
        return torch.tensor(picture.shape[1:3])


def test_a_sample_s_references_keep_their_aspect_at_its_area_or_take_its_size_as_the_model_wants_it():
    wide = [torch.rand(1, 100, 200, 4)]
    (own,) = reference_latents(Recorder(), Eye(), wide, width=256, height=256)["reference_latents"]
    assert own.tolist() == [176, 368]
    (same,) = reference_latents(Recorder("MageFlowTokenizer"), Eye(), wide, width=256, height=320)["reference_latents"]
    assert same.tolist() == [320, 256]
    assert reference_latents(Recorder(), Eye(), [], width=256, height=256) == {}


def test_the_negative_prompt_of_boogu_sees_no_picture_and_that_of_qwen_image_does():
    for tokenizer, seen in (("BooguTokenizer", False), ("QwenImageTokenizer", True), ("FluxTokenizer", False)):
        shown, plain = Recorder(tokenizer), Recorder(tokenizer)
        prompt_with(shown, "blurry", PICTURES, negative=True)
        prompt_with(plain, "blurry", [], negative=True)
        assert (shown.asked != plain.asked) == seen
