"""What layers of text encoders are called in LoRA files: as kohya's tools call them, and as ComfyUI knows them."""

import comfy.lora
import pytest
import torch
from torch import nn

from masklora.adapters.text_encoders import about_texts, is_of_texts, is_whole, kept_texts, kept_word
from masklora.host.texts.parts import aliases, stems

LAYER = "text_model.encoder.layers.0.mlp.fc1"
NAMES = {
    "SD1Tokenizer": {"clip_l": "lora_te_"},
    "SD2Tokenizer": {"clip_h": "lora_te_"},
    "SDXLTokenizer": {"clip_l": "lora_te1_", "clip_g": "lora_te2_"},
    "SD3Tokenizer": {"clip_l": "lora_te1_", "clip_g": "lora_te2_"},
    "FluxTokenizer": {"clip_l": "lora_te1_"},
}


class Named(nn.Module):
    """A module with nothing but the names of encoders' weights."""

    def __init__(self, paths):
        super().__init__()
        self.paths = paths

    def state_dict(self, *args, **kwargs):
        return {f"{path}.weight": torch.zeros(2, 2) for path in self.paths}


@pytest.mark.parametrize("kind", NAMES)
def test_a_layer_s_name_is_kohya_s_and_leads_comfyui_to_that_layer(kind):
    paths = [f"{encoder}.transformer.{LAYER}" for encoder in NAMES[kind]]
    found = stems(paths, kind)
    known = comfy.lora.model_lora_keys_clip(Named(paths), {})
    for (encoder, prefix), path in zip(NAMES[kind].items(), paths, strict=True):
        assert path.startswith(encoder)
        assert found[path] == f"{prefix}text_model_encoder_layers_0_mlp_fc1"
        assert known[found[path]] == f"{path}.weight"
        # And every other name under which a file may have it.
        others = [name for name, where in aliases(paths, kind).items() if where == path]
        assert len(others) >= 3 and all(known[name] == f"{path}.weight" for name in others if name in known)


def test_what_a_checkpoint_holds_becomes_the_file_s_tensors_and_the_word():
    path = f"clip_l.transformer.{LAYER}"
    about = about_texts({path: 0.5}, {path: "lora_te_x"}, word="zwx", trigger="Zwx")
    down, up = torch.randn(4, 8), torch.randn(6, 4)
    held = {f"text_encoder.{path}.lora_A": down, f"text_encoder.{path}.lora_B": up, "new_word.clip_l": torch.ones(2, 8)}
    found = kept_texts({**held, "block.lora_A": torch.zeros(1)}, about)
    assert sorted(found) == ["lora_te_x.alpha", "lora_te_x.lora_down.weight", "lora_te_x.lora_up.weight"]
    assert torch.equal(found["lora_te_x.lora_down.weight"], down) and float(found["lora_te_x.alpha"]) == 2.0
    assert all(map(is_of_texts, found)) and not is_of_texts("lora_unet_x.alpha")
    word = kept_word(held, about)
    assert (word.name, word.trigger) == ("zwx", "Zwx") and torch.equal(word.vectors["clip_l"], torch.ones(2, 8))
    assert kept_texts(held, {}) == {} and kept_word(held, {}) is None
    with pytest.raises(KeyError):
        kept_texts({}, about)


@pytest.mark.parametrize(
    ("about", "whole"),
    [
        ({}, True),
        (about_texts({"a": 1.0}, {"a": "b"}), True),
        (about_texts({"a": 1.0}, {}), False),
        ({**about_texts({}, {}), "word": 3}, False),
        ({"scalings": {}}, False),
        (about_texts({"a": "1"}, {"a": "b"}), False),
    ],
)
def test_a_damaged_note_of_the_encoders_is_known(about, whole):
    assert is_whole(about) == whole
