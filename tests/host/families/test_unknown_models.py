"""Models of ComfyUI's that have no family here: they train behind a switch, exactly, or say why they cannot."""

import comfy.lora
import pytest
import safetensors.torch
import torch

from benchmarks.gradients import MODES, Problem
from harness.damage import many
from harness.models import small_model
from harness.small_unknown import UNKNOWN
from harness.training import make_cache, make_request
from masklora.errors import FamilyError
from masklora.host.exporting import LoraTensors, export_lora
from masklora.host.model.trainable import TrainableModel
from masklora.host.training import train_lora
from masklora.settings import ExportSettings
from masklora.training.job import Hooks

REFUSED = {
    "hidream_o1": "HiDreamO1 cannot be trained: its noise is 8 times as strong.*Use another model",
    "cogvideox": "CogVideoX_T2V cannot be trained: ComfyUI shows its network.*without scaling.*Use another model",
}
TRAINED = [name for name in UNKNOWN if name not in REFUSED]
TRIED = many(["joyimage", "hunyuan_dit", "chroma_radiance"], TRAINED)
# Their networks make float32 of what they are given, whatever they compute in.
SINGLE = ("mochi", "z_image_pixel", "chroma_radiance")


@pytest.mark.parametrize("name", many([*TRIED, *REFUSED], list(UNKNOWN)))
def test_without_the_switch_the_error_names_the_model_and_says_how_to_train_it(name):
    model = small_model(name)
    config = type(model.model.model_config).__name__
    with pytest.raises(FamilyError, match=rf"does not know {config}\. Connect.*Wan.*switch on unknown_model in Train"):
        TrainableModel(model)


@pytest.mark.parametrize(("name", "reason"), REFUSED.items(), ids=REFUSED)
def test_with_the_switch_one_that_cannot_be_trained_says_why(name, reason):
    with pytest.raises(FamilyError, match=reason):
        TrainableModel(small_model(name), unknown=True)


@pytest.mark.parametrize("name", TRIED)
def test_its_gradients_are_those_of_plain_autograd_on_comfyuis_own_call(name):
    single = name in SINGLE
    problem = Problem(name, dtype=torch.float32 if single else torch.float64, unknown=True)
    plain = problem.plain_gradients()
    length = sum(float(g.square().sum()) for g in plain.values()) ** 0.5
    assert length > 0
    for mode in MODES:
        found = problem.gradients(mode)
        apart = sum(float((found[n] - plain[n]).square().sum()) for n in plain) ** 0.5
        assert apart / length <= (1e-5 if single else 1e-10), mode


@pytest.mark.parametrize("name", TRIED)
def test_what_a_training_writes_loads_in_comfyui_with_no_key_left_over(name, tmp_path, caplog):
    with torch.inference_mode():
        request = make_request(name, make_cache(name), unknown_model=True)
        trained = train_lora(request, runs=tmp_path, hooks=Hooks(), report=lambda told: None)
        settings = ExportSettings(format="comfyui", dtype="float32")
        path = export_lora(LoraTensors(trained), tmp_path / "written", settings)
        tensors = safetensors.torch.load_file(path)
        known = comfy.lora.model_lora_keys_unet(request.model.model, {})
        patches = comfy.lora.load_lora(tensors, known)
    assert len({key[0] if isinstance(key, tuple) else key for key in patches}) == len(trained.factors) > 0
    assert "not loaded" not in caplog.text
    assert any(float(t.abs().sum()) > 0 for key, t in tensors.items() if "lora_up" in key)
