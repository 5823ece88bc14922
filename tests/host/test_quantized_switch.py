"""The switch `quantized_compute` of Train Masked LoRA."""

import dataclasses

import pytest
import torch

from harness.quantised import LAYOUTS, quantised_model, with_kernels
from harness.training import make_cache, make_request
from masklora.errors import ConfigError
from masklora.host.resolving import resolve
from masklora.host.training import train_lora
from masklora.settings import TrainSettings
from masklora.training.job import Hooks


@pytest.fixture(scope="module")
def cache():
    return make_cache("flux")


def loaded(layout):
    with torch.inference_mode():
        return quantised_model("flux", layout)


def asked(cache, model=None, **train):
    request = make_request("flux", cache, **train)
    return request if model is None else dataclasses.replace(request, model=model)


def test_it_is_off_by_default():
    assert not TrainSettings().quantized_compute


@pytest.mark.parametrize(
    ("layout", "stored"),
    [(None, "not quantised"), ("fp8 e4m3", "stored as float8_e4m3fn"), ("nvfp4", "stored as nvfp4")],
)
def test_it_ends_before_anything_is_loaded_where_no_layer_can_be_multiplied_so(cache, layout, stored):
    model = None if layout is None else loaded(LAYOUTS[layout])
    with pytest.raises(ConfigError, match=rf"^quantized_compute: this model is {stored}, .*\(cpu\)\. Switch it off"):
        resolve(asked(cache, model, quantized_compute=True))


def test_a_training_tells_which_layers_and_is_another_run_with_nearly_the_same_lora(cache, tmp_path):
    mixed = {"double_blocks.1": LAYOUTS["nvfp4"], "": LAYOUTS["int8 convrot"]}
    found, lines = {}, {}
    for on in (False, True):
        request, told = asked(cache, loaded(mixed), quantized_compute=on), []
        found[on] = train_lora(
            request, runs=tmp_path, hooks=Hooks(), report=lambda line, told=told: told.append(line.text)
        )
        lines[on] = [line for line in told if line.startswith("quantized_compute")]
    assert not found[True].result.loaded and found[True].result.folder != found[False].result.folder
    assert lines[False] == []
    assert lines[True] == [
        "quantized_compute: 16 layers are multiplied in low precision (16 int8_tensorwise), forward and for gradients. "
        "10 other layers that are stored in it are multiplied exactly (10 nvfp4)."
    ]
    assert found[True].result.losses == pytest.approx(found[False].result.losses, rel=1e-2)
    assert found[True].result.losses != found[False].result.losses
    again = train_lora(request, runs=tmp_path, hooks=Hooks(), report=lambda line: None)
    assert again.result.loaded


class Steps(Hooks):
    def __init__(self):
        self.drift = []

    def on_step(self, report):
        self.drift.append(report.drift)


def test_the_prior_of_an_adapter_that_has_learned_nothing_yet_finds_no_drift(cache, tmp_path):
    """The base model is asked in the arithmetic that is trained: else the adapter would learn to undo the rounding."""
    request, steps = asked(cache, with_kernels(loaded(LAYOUTS["fp8 e4m3"])), quantized_compute=True, steps=2), Steps()
    train_lora(request, runs=tmp_path, hooks=steps, report=lambda line: None)
    first, second = steps.drift
    assert first == 0.0 < second
