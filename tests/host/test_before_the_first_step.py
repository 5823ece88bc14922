"""What a training refuses or tells before its first step, on ComfyUI's classes, and whose LoRA it gives out."""

import dataclasses
import json
import math
import os
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from harness.training import make_cache, make_request
from harness.vaes import small_vae
from masklora.errors import AdapterError, ConfigError, RunError
from masklora.files import pack
from masklora.host.sampling import SampleRequest
from masklora.host.training import _room, train_lora
from masklora.optimizers.optim import make_optimizer, optimizer_state, parameter_groups
from masklora.runs.record import kept_lora
from masklora.runs.sample_pictures import SampleSettings
from masklora.settings import OptimizerSettings, TrainSettings
from masklora.training.job import Hooks

SHAPES = {"A": (16, 768), "B": (768, 16)}


@pytest.fixture(scope="module")
def cache():
    return make_cache("sd3")


class Told(Hooks):
    """Keeps what is told, and fails at the first step: nothing here may get that far."""

    def __init__(self, steps_allowed=True):
        self.messages, self.steps_allowed = [], steps_allowed

    def on_message(self, told):
        self.messages.append(getattr(told, "text", told))

    def check_cancel(self):
        assert self.steps_allowed, "a step was taken"


def train(request, tmp_path, hooks=None):
    told = []
    found = train_lora(request, runs=tmp_path / "runs", hooks=hooks or Told(), report=told.append)
    return found, told


@pytest.fixture
def lora_file(cache, tmp_path):
    """A LoRA file that fits, with some of its tensors changed."""
    request = make_request("sd3", cache, steps=1)
    trained, _ = train(request, tmp_path / "first")

    def make(**changes):
        tensors = {name: tensor.clone().contiguous() for name, tensor in trained.tensors.items()}
        for ending, tensor in changes.items():
            name = next(one for one in tensors if one.endswith(ending.replace("__", ".")))
            tensors[name] = tensor(tensors[name])
        path = tmp_path / "given.safetensors"
        safetensors.torch.save_file(tensors, path)
        return path

    return make


def filled(value):
    def change(tensor):
        out = tensor.clone()
        out.view(-1)[-1] = value
        return out

    return change


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_up__weight": filled(math.nan)}, "not finite"),
        ({"lora_down__weight": filled(math.inf)}, "not finite"),
        ({"alpha": lambda _: torch.tensor(math.nan)}, "not finite"),
        ({"alpha": lambda _: torch.tensor([1.0, 2.0, 3.0])}, "an alpha of 3 values, expected one"),
        ({"alpha": lambda _: torch.zeros(0)}, "an alpha of 0 values, expected one"),
    ],
    ids=["nan", "infinite", "nan alpha", "three alphas", "no alpha"],
)
def test_a_damaged_start_from_is_named_before_the_first_step(cache, tmp_path, lora_file, changes, words):
    request = dataclasses.replace(make_request("sd3", cache), start_from=lora_file(**changes))
    with pytest.raises(AdapterError, match=rf"^given\.safetensors: lora_unet.*{words}"):
        train(request, tmp_path, Told(steps_allowed=False))


def test_an_alpha_of_one_value_in_a_row_is_one(cache, tmp_path, lora_file):
    path = lora_file(alpha=lambda one: one.reshape(1))
    found, _ = train(dataclasses.replace(make_request("sd3", cache, steps=1), start_from=path), tmp_path)
    assert found.result.steps == 1


@pytest.mark.parametrize(
    ("part", "changes", "widget"),
    [
        ("optimizer", {"learning_rate": math.nan}, "learning_rate"),
        ("train", {"guidance": math.nan}, "guidance"),
        ("loss", {"gamma": math.inf}, "gamma"),
        ("adapter", {"alpha": math.nan}, "alpha"),
        ("adapter", {"dropout": -math.inf}, "dropout"),
    ],
)
def test_a_number_that_is_none_is_refused_by_its_widget(cache, tmp_path, part, changes, widget):
    request = make_request("sd3", cache)
    changed = dataclasses.replace(getattr(request, part), **changes)
    with pytest.raises(ConfigError, match=f"^{widget}: expected a number"):
        train(dataclasses.replace(request, **{part: changed}), tmp_path, Told(steps_allowed=False))


def test_a_warm_up_longer_than_the_run_is_told_and_kept_with_it(cache, tmp_path):
    request = make_request("sd3", cache, steps=3)
    slow = dataclasses.replace(request, optimizer=OptimizerSettings(warmup_steps=500))
    found, told = train(slow, tmp_path)
    (one,) = [finding for finding in told if finding.level == "warning" and "warmup_steps" in finding.text]
    kept = json.loads((found.result.folder / "told.json").read_text(encoding="utf-8"))
    assert {"text": one.text, "level": "warning"} in kept["notes"]


@pytest.mark.parametrize("places", [1, 3])
def test_pictures_larger_than_the_model_s_places_are_refused(cache, tmp_path, places):
    request = make_request("sd3", cache)
    network = request.model.model.diffusion_model
    network.pos_embed_max_size = places
    with pytest.raises(ConfigError, match=rf"resolution: .*knows {16 * places} px a side.*Cache Dataset"):
        train(request, tmp_path, Told(steps_allowed=False))


@pytest.mark.parametrize("size", [(100, 2000), (2000, 64)])
def test_sample_pictures_that_the_model_cannot_draw_are_refused(cache, tmp_path, size):
    settings = SampleSettings(prompts=("x",), width=size[0], height=size[1])
    samples = SampleRequest(settings, [], None, small_vae("sd3"))
    request = make_request("sd3", cache)
    request.model.model.diffusion_model.pos_embed_max_size = 32
    with pytest.raises(ConfigError, match=r"samples: .*knows 512 px a side. Lower width and height in Sample Pictures"):
        train(dataclasses.replace(request, samples=samples), tmp_path, Told(steps_allowed=False))


def test_a_finished_run_says_that_other_sample_pictures_are_not_drawn(cache, tmp_path):
    request = make_request("sd3", cache, steps=1)
    train(request, tmp_path)
    hooks = Told()
    samples = SampleRequest(SampleSettings(prompts=("new",), width=64, height=64), [], None, small_vae("sd3"))
    found, _ = train(dataclasses.replace(request, samples=samples), tmp_path, hooks)
    assert found.result.loaded and any("if_a_run_exists" in text for text in hooks.messages)


def test_a_place_that_takes_no_file_is_refused(cache, tmp_path):
    (tmp_path / "in the way").write_text("")
    request = dataclasses.replace(make_request("sd3", cache), destination=tmp_path / "in the way" / "x.safetensors")
    with pytest.raises(RunError, match="in the way is a file"):
        train(request, tmp_path, Told(steps_allowed=False))


@pytest.mark.parametrize("name", ["adamw", "lion", "prodigy", "came", "soap"])
def test_the_room_for_a_checkpoint_is_what_its_weights_and_its_optimizer_take(name):
    params = {f"x.lora_{part}": torch.nn.Parameter(torch.randn(shape)) for part, shape in SHAPES.items()}
    settings = OptimizerSettings(optimizer=name)
    optimizer = make_optimizer(parameter_groups(params, settings, learning_rate=1e-3), settings)
    for parameter in params.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.step()
    kept, _ = pack({"params": params, "state": optimizer_state(optimizer)})
    job = SimpleNamespace(courses=lambda: [SimpleNamespace(model=SimpleNamespace(params=params))])
    found = _room(job, SimpleNamespace(optimizer=settings, train=TrainSettings()))
    assert found.checkpoint == pytest.approx(sum(t.numel() * t.itemsize for t in kept.values()), rel=1e-3)
    assert found.lora == 2 * sum(p.numel() for p in params.values())


def test_exporting_a_checkpoint_that_made_room_says_so(cache, tmp_path):
    found, _ = train(make_request("sd3", cache, steps=2), tmp_path)
    with pytest.raises(RunError, match="step 1 is not there any more: it made room"):
        kept_lora(found.result.folder, 1)


RECORDS = ["", "[]", "null", '{"record": 5}', '{"record": {}, "scalings": {}, "kohya": {}}', "[" * 9000]
RECORDS.append('{"record": {}, "scalings": {"x": "1"}, "kohya": {}}')


@pytest.mark.parametrize("content", RECORDS, ids=range(len(RECORDS)))
def test_exporting_with_a_damaged_record_says_what_to_do(cache, tmp_path, content):
    found, _ = train(make_request("sd3", cache, steps=1), tmp_path)
    (found.result.folder / "record.json").write_text(content)
    with pytest.raises(RunError, match="Queue its graph again"):
        kept_lora(found.result.folder, None)


def test_a_finished_run_too_takes_away_what_a_killed_writer_left_beside_its_file(cache, tmp_path):
    destination = tmp_path / "loras" / "one.safetensors"
    destination.parent.mkdir()
    request = dataclasses.replace(make_request("sd3", cache, steps=1), destination=destination)
    train(request, tmp_path)
    left = destination.parent / ".mlt-ffffff-1-0123abcd.tmp"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    found, _ = train(request, tmp_path)
    assert found.result.loaded and not left.exists()
