"""Whole trainings with swapped blocks: the LoRA, the pictures and the resumed run are those without."""

import dataclasses
import gc
from unittest import mock

import comfy.model_management
import pytest
import torch
from comfy.model_management import InterruptProcessingException

from harness.damage import ALL
from harness.late_copies import LateCopies
from harness.models import small_clip
from harness.training import Caches, make_request, make_samples
from masklora.errors import ConfigError
from masklora.host import sampling, training
from masklora.host.memory import plan as planning
from masklora.host.model import trainable
from masklora.host.swap import choosing, kept_inputs
from masklora.host.swap.choosing import AS_MANY_AS_NEEDED
from masklora.host.training import train_lora
from masklora.runs.sample_pictures import SampleFolder
from masklora.settings import OFFLOADED, LossSettings
from masklora.training.job import Hooks

FAMILIES = ["flux", "sd15", "z_image", "wan"] if ALL else ["flux"]


class Listening(Hooks):
    def __init__(self, cancel_after=None):
        self.messages, self.done, self.cancel_after = [], 0, cancel_after

    def on_message(self, told):
        self.messages.append(getattr(told, "text", told))

    def after_step(self, step):
        self.done = step

    def check_cancel(self):
        if self.done == self.cancel_after:
            raise InterruptProcessingException


@pytest.fixture(scope="module")
def caches():
    return Caches()


@pytest.fixture
def late_copies():
    """The device copies as late as it may."""
    with LateCopies() as copies, mock.patch.object(choosing, "copies_for", lambda device: copies):
        yield copies


def train(request, folder, hooks=None):
    told = []
    with torch.inference_mode():
        found = train_lora(request, runs=folder / "runs", hooks=hooks or Listening(), report=told.append)
    return found, [one.text for one in told]


def swapping(request, count, **train):
    return dataclasses.replace(request, train=dataclasses.replace(request.train, swap_blocks=count, **train))


def same(found, wanted):
    return found.result.losses == wanted.result.losses and all(
        torch.equal(found.tensors[name], value) for name, value in wanted.tensors.items()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_and_sample_pictures_are_bit_for_bit_those_without_swap(family, caches, late_copies, tmp_path):
    """Prior, routed tokens and pictures in the middle; on a model whose weights others read afterwards."""
    request = make_request(family, caches[family], steps=3)
    loss = LossSettings(prior_weight=1.0, routes="" if family == "sd15" else "0.5: 1..-2")
    request = dataclasses.replace(request, loss=loss, samples=make_samples(family))
    before = {name: value.clone() for name, value in request.model.model.state_dict().items()}
    wanted, _ = train(request, tmp_path / "without")
    found, told = train(swapping(request, 1000), tmp_path / "with")
    assert same(found, wanted) and late_copies.asked > 10 and late_copies.memory == []
    assert "wait in main memory" in told[-2] and "It has no more than" in told[-2]
    shown = [SampleFolder(one.result.folder) for one in (found, wanted)]
    assert shown[0].pictures() == shown[1].pictures() == {step: [0, 1] for step in (0, 2, 3)}
    assert all(shown[0].read(step, 1) == shown[1].read(step, 1) for step in (0, 2, 3))
    after = request.model.model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


def test_a_cancelled_run_goes_on_with_another_number_of_swapped_blocks(caches, late_copies, tmp_path):
    request = make_request("flux", caches["flux"], steps=3)
    wanted, _ = train(request, tmp_path / "straight")
    with pytest.raises(InterruptProcessingException):
        train(swapping(request, 3), tmp_path, Listening(cancel_after=1))
    assert late_copies.memory == []
    asked = late_copies.asked
    with pytest.raises(InterruptProcessingException):
        train(swapping(request, 2), tmp_path, Listening(cancel_after=2))
    assert late_copies.asked > asked
    found, _ = train(request, tmp_path)
    assert found.result.resumed_from == 2 and same(found, wanted)


def test_inputs_of_blocks_wait_beside_weights_and_a_cancelled_run_goes_on_with_all_on_the_device(
    caches, late_copies, tmp_path, monkeypatch
):
    """With gradients of two batches in each step."""
    monkeypatch.setattr(kept_inputs, "_LITTLE", 2**10)
    monkeypatch.setattr(kept_inputs, "copies_for", lambda device: late_copies)
    monkeypatch.setattr(training, "copies_aside", lambda device: True)
    request = make_request("flux", caches["flux"], steps=2, gradient_accumulation=2)
    wanted, _ = train(request, tmp_path / "straight")
    with pytest.raises(InterruptProcessingException):
        train(swapping(request, 2, checkpointing=OFFLOADED), tmp_path, Listening(cancel_after=1))
    # Two swapped blocks have main memory, and each block's inputs.
    assert late_copies.given == 2 + 4 and late_copies.memory == []
    found, told = train(request, tmp_path)
    assert found.result.resumed_from == 1 and same(found, wanted) and not any("no inputs" in line for line in told)


def test_a_finished_run_is_loaded_without_any_copy(caches, late_copies, tmp_path):
    request = make_request("flux", caches["flux"], steps=1)
    wanted, _ = train(request, tmp_path)
    found, _ = train(swapping(request, 2), tmp_path)
    assert found.result.loaded and same(found, wanted) and late_copies.asked == late_copies.given == 0


def test_a_step_is_counted_without_any_copy(caches, late_copies, tmp_path, monkeypatch):
    """Where a swapped training does not fit, its remedies are counted."""
    monkeypatch.setattr(planning, "card_memory", lambda device: 2**20)
    request = swapping(make_request("flux", caches["flux"], batch_size=2), 2)
    with pytest.raises(ConfigError, match=r"^batch_size, "):
        train(request, tmp_path)
    assert late_copies.asked == late_copies.given == 0


@pytest.mark.parametrize(("free", "count"), [(0.0, 4), (0.99, 3), (2.0, 0)])
def test_automatic_swaps_as_many_blocks_as_do_not_fit(free, count, caches, late_copies, tmp_path, monkeypatch):
    """Beside what ComfyUI keeps free, and with what it has loaded and will unload."""
    request = make_request("flux", caches["flux"], steps=1)
    plan = train(request, tmp_path / "plain")[0].plan
    monkeypatch.setattr(comfy.model_management, "current_loaded_models", [])
    room = int(free * plan.total) + comfy.model_management.extra_reserved_memory()
    with mock.patch.object(choosing.comfy.model_management, "get_free_memory", lambda device: room):
        found, told = train(swapping(request, AS_MANY_AS_NEEDED), tmp_path)
    assert told[-2].startswith(
        f"swap_blocks: {count} of the model's 4 blocks wait" if count else "swap_blocks: there is"
    )
    assert (found.plan.total < plan.total) == bool(count)


@pytest.mark.parametrize("checkpointing", ["off", "whole model"])
def test_swap_needs_blocks_that_are_recomputed(checkpointing, caches, tmp_path):
    request = swapping(make_request("flux", caches["flux"]), 2, checkpointing=checkpointing)
    with pytest.raises(ConfigError, match=rf'swap_blocks: .*checkpointing is "{checkpointing}".*"per block"'):
        train(request, tmp_path)


def test_on_the_cpu_nothing_is_swapped_and_that_is_told(caches, tmp_path):
    request = make_request("flux", caches["flux"], steps=1)
    wanted, _ = train(request, tmp_path / "plain")
    found, told = train(swapping(request, 2), tmp_path)
    assert told[-2] == "swap_blocks: a training on the cpu computes in main memory; nothing is swapped."
    assert same(found, wanted) and found.plan == wanted.plan


def test_on_the_cpu_no_inputs_are_moved_and_that_is_told(caches, tmp_path):
    request = make_request("flux", caches["flux"], steps=1)
    wanted, _ = train(request, tmp_path / "plain")
    offloaded = dataclasses.replace(request, train=dataclasses.replace(request.train, checkpointing=OFFLOADED))
    found, told = train(offloaded, tmp_path)
    assert told[-2] == "checkpointing: a training on the cpu computes in main memory; no inputs are moved."
    assert same(found, wanted) and found.plan == wanted.plan


def test_a_model_that_is_gone_meanwhile_does_not_end_the_training(caches, late_copies, tmp_path):
    comfy.model_management.load_models_gpu([make_request("sd15", caches["sd15"]).model])
    gc.collect()
    request = make_request("flux", caches["flux"], steps=1)
    assert train(swapping(request, 2), tmp_path)[0].result.steps == 1


def test_memory_that_cannot_be_pinned_is_told(caches, tmp_path):
    request = make_request("flux", caches["flux"], steps=1)
    wanted, _ = train(request, tmp_path / "plain")
    hooks = Listening()
    with LateCopies(pinned=False) as copies, mock.patch.object(choosing, "copies_for", lambda device: copies):
        found, _ = train(swapping(request, 2), tmp_path, hooks)
    assert "which is slower" in hooks.messages[0]
    assert same(found, wanted)


class Seeing(Listening):
    """Notes which models ComfyUI holds loaded at each step and picture."""

    def __init__(self):
        super().__init__()
        self.at_steps, self.at_pictures = [], []

    def after_step(self, step):
        self.at_steps.append(loaded())

    def on_drawing(self, step, *, done, count):
        if done:
            self.at_pictures.append(loaded())


def loaded():
    return {id(one.model.model) for one in comfy.model_management.current_loaded_models if one.model is not None}


def test_vae_and_text_encoder_are_off_the_device_while_training_and_the_vae_is_back_for_pictures(
    caches, tmp_path, monkeypatch
):
    """As on a card; on the CPU nothing is moved, since nothing is won."""
    request = make_request("flux", caches["flux"], steps=3)
    samples, clip = make_samples("flux"), small_clip("flux")
    request = dataclasses.replace(request, samples=samples)
    comfy.model_management.load_models_gpu([samples.vae.patcher, clip.patcher])
    model, vae = id(request.model.model), id(samples.vae.patcher.model)
    assert {vae, id(clip.patcher.model)} <= loaded()
    monkeypatch.setattr(trainable, "is_main_memory", lambda device: False)
    monkeypatch.setattr(sampling, "is_main_memory", lambda device: False)
    hooks = Seeing()
    train(request, tmp_path, hooks)
    assert hooks.at_steps == [{model}] * 3
    assert all(one == {model, vae} for one in hooks.at_pictures) and len(hooks.at_pictures) == 6
