"""Sample pictures during a training on ComfyUI's classes: they show the weights, and change nothing."""

import dataclasses
import io
import json

import comfy.model_management
import comfy.sample
import numpy as np
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from PIL import Image

from harness.core_latents import empty_latent, for_vae
from harness.models import small_model
from harness.small import widely
from harness.training import Caches, make_request, picture_side
from harness.training import make_samples as samples
from masklora.errors import FamilyError
from masklora.host.exporting import apply_lora
from masklora.host.training import train_lora
from masklora.runs.sample_pictures import SampleFolder
from masklora.settings import AdapterSettings, OptimizerSettings
from masklora.training.job import Hooks


class Recorder(Hooks):
    def __init__(self):
        self.drawings, self.messages, self.training, self.folder = [], [], [], None

    def on_run(self, folder, *, step, total):
        self.folder = folder

    def on_drawing(self, step, *, done, count):
        self.drawings.append((step, done, count))

    def on_message(self, text):
        self.messages.append(text)

    def after_step(self, step):
        state = comfy.model_management.in_training, torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        self.training.append(state)


@pytest.fixture(scope="module")
def caches():
    return Caches()


def train(request, tmp_path, hooks=None):
    with torch.inference_mode():
        return train_lora(request, runs=tmp_path / "runs", hooks=hooks or Recorder(), report=lambda text: None)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("family", widely())
def test_a_run_with_samples_gives_bit_for_bit_the_lora_of_one_without(family, caches, tmp_path):
    request = make_request(family, caches[family], steps=5)
    request = dataclasses.replace(request, adapter=AdapterSettings(rank=4, alpha=2.0, dropout=0.2))
    plain = train(request, tmp_path / "plain")
    hooks = Recorder()
    with_samples = train(dataclasses.replace(request, samples=samples(family)), tmp_path / "samples", hooks)
    assert hooks.messages == []
    assert with_samples.result.losses == plain.result.losses
    assert all(torch.equal(value, with_samples.tensors[key]) for key, value in plain.tensors.items())
    assert with_samples.result.folder.name == plain.result.folder.name
    folder = SampleFolder(with_samples.result.folder)
    assert folder.pictures() == {step: [0, 1] for step in (0, 2, 4, 5)}
    assert hooks.training == [(True, True, False)] * 5
    assert hooks.drawings[:3] == [(0, 0, 2), (0, 1, 2), (0, 2, 2)]
    shown = [pixels(folder.read(step, 0)) for step in (0, 2, 5)]
    assert shown[0].shape == (picture_side(family) + 32, picture_side(family), 3)
    assert not (shown[0] == shown[1]).all() and not (shown[1] == shown[2]).all()


@pytest.mark.parametrize(("family", "algorithm"), [*((family, "lora") for family in widely()), ("sd3", "dora")])
def test_the_pictures_are_those_of_comfyui_with_the_model_before_and_with_the_lora_after(
    family, algorithm, caches, tmp_path
):
    asked = samples(family, every=0)
    height, width = asked.settings.height, asked.settings.width
    fast = OptimizerSettings(learning_rate=2e-2)
    request = dataclasses.replace(make_request(family, caches[family], steps=4), samples=asked, optimizer=fast)
    request = dataclasses.replace(request, adapter=dataclasses.replace(request.adapter, algorithm=algorithm))
    trained = train(request, tmp_path)
    folder = SampleFolder(trained.result.folder)
    assert folder.pictures() == {0: [0, 1], 4: [0, 1]}

    def by_comfyui(model):
        with torch.inference_mode():
            empty = empty_latent(model, width=width, height=height)
            noise = comfy.sample.prepare_noise(empty, 0)
            arguments = (3, 2.0, "euler", "normal", asked.positive[1], asked.negative, empty)
            drawn = comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=0)
            image = asked.vae.decode(for_vae(drawn, model))
        return np.rint(image.reshape(-1, height, width, 3)[0].clamp(0, 1).numpy() * 255)

    assert (by_comfyui(request.model) == pixels(folder.read(0, 1))).all()
    with_lora = by_comfyui(apply_lora(request.model, trained.tensors))
    shown = pixels(folder.read(4, 1)).astype(float)
    assert np.abs(with_lora - shown).max() <= 1
    assert np.abs(shown - pixels(folder.read(0, 1))).max() > 1


def test_the_pictures_show_the_moving_average_where_there_is_one(caches, tmp_path):
    optimizer = OptimizerSettings(learning_rate=1e-2, ema_decay=0.9)
    request = dataclasses.replace(make_request("sd3", caches["sd3"], steps=6), optimizer=optimizer)
    plain = train(request, tmp_path / "plain")
    asked = samples("sd3", every=0)
    trained = train(dataclasses.replace(request, samples=asked), tmp_path / "samples")
    assert all(torch.equal(value, trained.tensors[key]) for key, value in plain.tensors.items())
    raw = dataclasses.replace(request, optimizer=OptimizerSettings(learning_rate=1e-2), samples=asked)
    without = train(raw, tmp_path / "raw")
    last = [pixels(SampleFolder(one.result.folder).read(6, 0)).astype(int) for one in (trained, without)]
    assert np.abs(last[0] - last[1]).max() > 0


def test_a_resumed_run_keeps_its_base_pictures_and_drops_those_of_later_steps(caches, tmp_path):
    class Stop(Recorder):
        at = 3

        def should_stop(self):
            return len(self.training) >= self.at

    request = dataclasses.replace(make_request("sd15", caches["sd15"], steps=6), samples=samples("sd15"))
    straight = train(request, tmp_path / "straight")
    stopped = train(request, tmp_path, Stop())
    folder = SampleFolder(stopped.result.folder)
    assert folder.pictures() == {0: [0, 1], 2: [0, 1], 3: [0, 1]}
    before = folder.file(0, 0).stat().st_mtime_ns
    folder.write(5, 0, folder.read(2, 0))
    hooks = Recorder()
    resumed = train(request, tmp_path, hooks)
    assert resumed.result.resumed_from == 3
    assert folder.file(0, 0).stat().st_mtime_ns == before
    assert [step for step, *_ in hooks.drawings if step < 4] == []
    assert list(folder.pictures()) == [0, 2, 3, 4, 6]
    assert all(torch.equal(value, resumed.tensors[key]) for key, value in straight.tensors.items())
    assert folder.read(6, 1) == SampleFolder(straight.result.folder).read(6, 1)


def test_other_prompts_begin_anew_and_the_old_pictures_are_put_aside(caches, tmp_path):
    class Stop(Recorder):
        def should_stop(self):
            return len(self.training) >= 2

    request = make_request("sd15", caches["sd15"], steps=6)
    first = train(dataclasses.replace(request, samples=samples("sd15")), tmp_path, Stop())
    train(dataclasses.replace(request, samples=samples("sd15", seed=7)), tmp_path)
    assert list(SampleFolder(first.result.folder).pictures()) == [0, 2, 4, 6]
    assert (first.result.folder / "samples-1" / "step_000002_0.png").is_file()
    assert json.loads((first.result.folder / "samples" / "samples.json").read_text())["seed"] == 7


def test_a_failing_picture_is_told_and_the_training_goes_on_to_the_same_lora(caches, tmp_path):
    request = make_request("sd15", caches["sd15"], steps=4)
    plain = train(request, tmp_path / "plain")
    asked = samples("sd15")

    def fail(latent):
        raise torch.OutOfMemoryError("out of memory")

    asked.vae.decode = fail
    hooks = Recorder()
    trained = train(dataclasses.replace(request, samples=asked), tmp_path / "samples", hooks)
    assert len(hooks.messages) == 3 and "out of memory" in hooks.messages[0]
    # Nobody goes on waiting for what failed.
    assert {step: (done, count) for step, done, count in hooks.drawings} == {0: (2, 2), 2: (2, 2), 4: (2, 2)}
    assert trained.result.completed
    assert all(torch.equal(value, trained.tensors[key]) for key, value in plain.tensors.items())


def test_a_cancel_while_a_picture_is_drawn_ends_the_run_and_leaves_the_model_as_it_was(caches, tmp_path):
    class Cancel(Recorder):
        def check_cancel(self):
            if self.drawings and self.drawings[-1][0] == 2:
                raise InterruptProcessingException

    request = dataclasses.replace(make_request("flux", caches["flux"], steps=6), samples=samples("flux"))
    before = {name: type(module) for name, module in request.model.model.named_modules()}
    hooks = Cancel()
    with pytest.raises(InterruptProcessingException):
        train(request, tmp_path, hooks)
    assert not comfy.model_management.in_training
    assert {name: type(module) for name, module in request.model.model.named_modules()} == before
    assert not any("forward" in module.__dict__ for module in request.model.model.diffusion_model.modules())
    resumed = train(request, tmp_path)
    straight = train(request, tmp_path / "straight")
    assert resumed.result.resumed_from == 2
    assert all(torch.equal(value, resumed.tensors[key]) for key, value in straight.tensors.items())


def test_a_wish_to_stop_while_pictures_are_drawn_does_not_wait_for_the_others(caches, tmp_path):
    class Stop(Recorder):
        def should_stop(self):
            return len(self.training) == 2 or bool(self.drawings and self.drawings[-1][:2] == (2, 1))

    request = make_request("sd15", caches["sd15"], steps=6)
    hooks = Stop()
    asked = dataclasses.replace(request, samples=samples("sd15"))
    stopped = train(asked, tmp_path / "samples", hooks)
    assert SampleFolder(stopped.result.folder).pictures() == {0: [0, 1], 2: [0]}
    assert "step 2" in hooks.messages[-1] and not stopped.result.completed and stopped.result.steps == 2
    plain = train(request, tmp_path / "plain", Stop())
    assert all(torch.equal(value, stopped.tensors[key]) for key, value in plain.tensors.items())


def test_a_person_s_wish_is_drawn_once_also_while_the_training_waits(caches, tmp_path):
    class Wishing(Recorder):
        waits, wishes = 0, 0

        def should_pause(self):
            self.waits += len(self.training) == 3
            return len(self.training) == 3 and self.waits < 4

        def should_sample(self):
            self.wishes += len(self.training) == 3 and self.waits == 2
            return self.waits == 2 and self.wishes == 1

    hooks = Wishing()
    request = dataclasses.replace(make_request("sd15", caches["sd15"], steps=5), samples=samples("sd15", every=0))
    trained = train(request, tmp_path, hooks)
    assert list(SampleFolder(trained.result.folder).pictures()) == [0, 3, 5]


def test_a_vae_of_another_model_is_refused_before_anything_is_trained(caches, tmp_path):
    request = dataclasses.replace(make_request("flux", caches["flux"]), samples=samples("sd15"))
    with pytest.raises(FamilyError, match="Sample Pictures"):
        train(request, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_the_user_s_model_carries_no_injection_afterwards(caches, tmp_path):
    model = small_model("sd3")
    request = dataclasses.replace(make_request("sd3", caches["sd3"]), model=model, samples=samples("sd3"))
    train(request, tmp_path)
    assert model.injections == {} and not model.is_injected
