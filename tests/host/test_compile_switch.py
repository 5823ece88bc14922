"""The switch `compile` of Train Masked LoRA."""

import dataclasses

import pytest
import torch

from harness.damage import ALL
from harness.training import make_cache, make_request
from masklora.errors import ConfigError
from masklora.host.resolving import resolve
from masklora.host.training import train_lora
from masklora.training.job import Hooks


class Messages(Hooks):
    def __init__(self):
        self.told = []

    def on_message(self, text):
        self.told.append(text)


@pytest.mark.parametrize("mode", ["off", "whole model"])
def test_blocks_that_are_not_recomputed_are_not_compiled_and_the_error_names_both_widgets(mode):
    request = make_request("sd15", make_cache("sd15"), compile=True, checkpointing=mode)
    with pytest.raises(ConfigError, match=f'compile: .*checkpointing is "{mode}".*"per block"'):
        resolve(request)


@pytest.mark.skipif(not ALL, reason="torch compiles for a minute")
def test_a_run_goes_on_compiled_where_it_was_not_and_learns_the_same(tmp_path):
    cache, found = make_cache("flux"), {}
    for name, switch in (("plain", False), ("compiled", True)):
        hooks, told = Messages(), []
        request = make_request("flux", cache, compile=switch, steps=4)
        trained = train_lora(request, runs=tmp_path / name, hooks=hooks, report=told.append)
        found[name] = trained.tensors
        assert not any("uncompiled" in line for line in hooks.told)
        assert any(line.text.startswith("compile: the first step") for line in told) == switch
    assert found["plain"].keys() == found["compiled"].keys()
    for key, wanted in found["plain"].items():
        torch.testing.assert_close(found["compiled"][key], wanted, rtol=1e-3, atol=1e-5)
    again = train_lora(
        dataclasses.replace(request, train=dataclasses.replace(request.train, compile=False)),
        runs=tmp_path / "compiled",
        hooks=Messages(),
        report=lambda line: None,
    )
    assert again.result.loaded
