"""Two models of Wan in one run: each LoRA is that of its own run, pictures are drawn by both, files load in core."""

import dataclasses
import io
import logging
import shutil

import comfy.sd
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import nodes
from harness.models import small_model
from harness.training import make_cache, make_request, make_samples
from masklora.errors import AdapterError, ConfigError, FamilyError, RunError
from masklora.experts import EXPERTS, HIGH, LOW
from masklora.generators.apply import Watch
from masklora.host.estimating import Question, estimated
from masklora.host.exporting import LoraTensors, export_lora, export_once
from masklora.host.strengths import Wanted, draw_run
from masklora.host.training import train_lora
from masklora.runs.record import kept_lora, write_kept
from masklora.runs.run import Run
from masklora.runs.sample_pictures import SampleFolder
from masklora.settings import AdapterSettings, ExportSettings, LossSettings, OptimizerSettings
from masklora.training.job import Hooks

WITHOUT_PRIOR = LossSettings(prior_weight=0.0)


@pytest.fixture(scope="module")
def cache():
    return make_cache("wan")


class StopAfter(Hooks):
    """Stops after so many steps."""

    def __init__(self, count):
        self.count, self.heard = count, []

    def on_step(self, report):
        self.heard.append(report)

    def should_stop(self):
        return len(self.heard) >= self.count


def frames_of(png):
    """uint8 (F, H, W, 3) of an animated PNG."""
    image = Image.open(io.BytesIO(png))
    frames = []
    for number in range(image.n_frames):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


def low_model(name="wan", **options):
    """The same network with other weights."""
    model = small_model(name, **options)
    with torch.no_grad():
        for parameter in model.model.diffusion_model.parameters():
            parameter.mul_(0.9)
    return model


def pair(cache, name="wan", *, loss=None, **train):
    request = make_request(name, cache, **{"steps": 4, "batch_size": 1, "switch_experts_every": 1, **train})
    return dataclasses.replace(request, model_low=low_model(name), loss=loss or request.loss)


def alone(cache, expert, **train):
    """One of both, trained by its range of noise levels, as without the other."""
    request = make_request("wan", cache, **{"steps": 2, "batch_size": 1, **train})
    levels = {"timestep_min": 0.875} if expert == HIGH else {"timestep_max": 0.875}
    model = request.model if expert == HIGH else low_model()
    return dataclasses.replace(request, model=model, loss=dataclasses.replace(request.loss, **levels))


def run(request, runs, hooks=None, heard=None):
    told = [] if heard is None else heard
    return train_lora(request, runs=runs, hooks=hooks or Hooks(), report=told.append)


def of(trained, expert):
    return trained if expert == HIGH else trained.low


@pytest.mark.parametrize("every", [1, 2])
def test_each_lora_is_that_of_a_run_of_its_own(every, cache, tmp_path):
    told = []
    both = run(pair(cache, switch_experts_every=every), tmp_path / "both", heard=told)
    line = "2 steps for high noise, levels from 0.875 up, and 2 for low noise"
    assert any(line in finding.text for finding in told)
    for expert in EXPERTS:
        single = run(alone(cache, expert), tmp_path / expert)
        found = of(both, expert).tensors
        assert found.keys() == single.tensors.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in single.tensors.items()), expert
        assert any(tensor.any() for key, tensor in found.items() if "lora_up" in key)


def test_a_warm_up_that_is_longer_than_the_steps_of_one_of_both_is_told(cache, tmp_path):
    told, request = [], pair(cache)
    run(dataclasses.replace(request, optimizer=OptimizerSettings(warmup_steps=3)), tmp_path, heard=told)
    assert any("warmup_steps: 3 are more than the 2 steps" in finding.text for finding in told)


def test_the_networks_are_as_before_afterwards(cache, tmp_path):
    request = pair(cache)
    networks = [model.model.diffusion_model for model in (request.model, request.model_low)]
    before = [{k: v.clone() for k, v in one.state_dict().items()} for one in networks]
    run(request, tmp_path)
    for network, was in zip(networks, before, strict=True):
        now = network.state_dict()
        assert now.keys() == was.keys() and all(torch.equal(now[key], was[key]) for key in was)
        assert not any(hasattr(module, "lora_A") for module in network.modules())


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_goes_on_exactly_whoever_s_turn_it_is(stop, cache, tmp_path):
    request = pair(cache, steps=6, switch_experts_every=2, validate_every=3, validation_share=0.3)
    whole = run(request, tmp_path / "whole")
    assert not run(request, tmp_path / "parts", StopAfter(stop)).result.completed
    resumed = run(request, tmp_path / "parts")
    assert resumed.result.resumed_from == stop
    for name, tensor in whole.result.adapter.items():
        assert torch.equal(tensor, resumed.result.adapter[name]), name
    again = run(request, tmp_path / "parts")
    assert again.result.loaded and all(torch.equal(again.low.tensors[k], v) for k, v in whole.low.tensors.items())


def test_another_second_model_or_switch_is_another_run(cache, tmp_path):
    folders = {run(pair(cache), tmp_path).result.folder, run(pair(cache, expert_switch=0.8), tmp_path).result.folder}
    other = pair(cache)
    with torch.no_grad():
        next(other.model_low.model.diffusion_model.parameters()).add_(0.5)
    folders.add(run(other, tmp_path).result.folder)
    assert len(folders) == 3
    assert run(pair(cache, expert_switch=0.875), tmp_path).result.loaded


def test_both_files_load_in_core_with_every_key(cache, tmp_path, monkeypatch, caplog):
    trained = run(pair(cache), tmp_path / "runs")
    lora, wanted = LoraTensors(trained), tmp_path / "loras" / "walk.safetensors"
    written = export_once(lora, wanted, ExportSettings())
    assert [one.path.name for one in written] == ["walk_high_noise.safetensors", "walk_low_noise.safetensors"]
    exported = export_lora(lora, tmp_path / "loras" / "again.safetensors", ExportSettings(dtype="float32"))
    found = kept_lora(trained.result.folder, None)
    kept = write_kept(found, tmp_path / "loras" / "kept", ExportSettings(dtype="float32"))
    assert [path.name for path in kept] == ["kept_high_noise.safetensors", "kept_low_noise.safetensors"]
    monkeypatch.setattr("folder_paths.get_full_path_or_raise", lambda kind, name: str(tmp_path / "loras" / name))
    models = make_request("wan", cache).model, low_model()
    for number, expert in enumerate(EXPERTS):
        for name in (written[number].path.name, exported[number].name, kept[number].name):
            with caplog.at_level(logging.WARNING):
                (with_lora,) = nodes.LoraLoaderModelOnly().load_lora_model_only(models[number], name, 1.0)
            assert "not loaded" not in caplog.text
            assert len(with_lora.patches) == len(trained.factors)
        one, other = load_file(exported[number]), load_file(kept[number])
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        with safe_open(exported[number], "pt") as file:
            assert file.metadata()["masklora.expert"] == expert
            assert file.metadata()["ss_output_name"] == f"again_{expert}"
    high, low = (load_file(one.path) for one in written)
    assert high.keys() == low.keys() and any(not torch.equal(high[key], low[key]) for key in high)


def drawn_by_core(models, samples, at, frames):
    """What two KSampler (Advanced) and VAE Decode make of the first prompt."""
    settings = samples.settings
    stride = samples.vae.spacial_compression_decode()
    size = settings.height // stride, settings.width // stride
    latent = {"samples": torch.zeros(1, samples.vae.latent_channels, frames, *size)}
    sampler = nodes.KSamplerAdvanced()
    how = settings.steps, settings.cfg, settings.sampler, settings.scheduler, samples.positive[0], samples.negative
    with torch.inference_mode():
        (latent,) = sampler.sample(models[0], "enable", settings.seed, *how, latent, 0, at, "enable")
        (latent,) = sampler.sample(models[1], "disable", settings.seed, *how, latent, at, 10000, "disable")
        pictures = samples.vae.decode(latent["samples"])[0]
    return np.rint(pictures.clamp(0, 1).numpy() * 255)


def test_sample_clips_are_those_of_two_samplers_of_core(cache, tmp_path, monkeypatch):
    samples = make_samples("wan", frames=9, steps=6)
    request = dataclasses.replace(pair(cache, steps=2), samples=samples)
    trained = run(request, tmp_path)
    folder = SampleFolder(trained.result.folder)
    models = [make_request("wan", cache).model, low_model()]
    # At shift 8 the levels are 1, 0.97, 0.92, 0.84, 0.67 and nearly 0.
    at = 3
    base = frames_of(folder.read(0, 0))
    assert np.abs(base - drawn_by_core(models, samples, at, 3)).max() <= 1
    assert np.abs(base - drawn_by_core(models, samples, at - 1, 3)).max() > 1
    with_loras = [
        comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]
        for model, lora in zip(models, (LoraTensors(trained), LoraTensors(trained).low), strict=True)
    ]
    last = frames_of(folder.read(2, 0))
    assert np.abs(last - drawn_by_core(with_loras, samples, at, 3)).max() <= 2
    assert np.abs(last.astype(int) - base).max() > 2
    monkeypatch.setattr("masklora.host.exporting.runs_folder", lambda: tmp_path)
    watch, wanted = Watch(lambda *_: None, lambda: None, lambda _: None), Wanted(trained.result.folder.name, "", "1")
    _, said = draw_run(models[0], samples, wanted, watch, model_low=models[1])
    assert "none was drawn" in str(said)
    half = dataclasses.replace(wanted, strengths="0.5")
    # As ComfyUI runs its nodes.
    with torch.inference_mode():
        draw_run(models[0], samples, half, watch, model_low=models[1])
    weak = frames_of(folder.read(2, 0, 0.5))
    assert np.abs(weak.astype(int) - base).max() > 0 and np.abs(weak.astype(int) - last).max() > 0
    with pytest.raises(ConfigError, match=r"model_low: .* trained two models"):
        draw_run(models[0], samples, wanted, watch)


def test_the_memory_of_two_is_that_of_one_with_what_is_trained_twice(cache):
    request = pair(cache)
    asked = Question(request.model, cache, loss=request.loss, adapter=request.adapter, train=request.train)
    one, _ = estimated(asked)
    two, _ = estimated(dataclasses.replace(asked, model_low=request.model_low))
    assert (two.adapters, two.optimizer) == (2 * one.adapters, 2 * one.optimizer)
    same = "weights", "gradients", "captions", "kept", "work"
    assert [getattr(two, name) for name in same] == [getattr(one, name) for name in same]
    with pytest.raises(ConfigError, match="model_low: it is the same model as model"):
        estimated(dataclasses.replace(asked, model_low=request.model.clone()))


def test_a_run_begins_with_a_pair_of_files(cache, tmp_path):
    trained = run(pair(cache), tmp_path / "runs")
    files = export_lora(LoraTensors(trained), tmp_path / "start", ExportSettings(dtype="float32"))
    request = dataclasses.replace(pair(cache, loss=WITHOUT_PRIOR), adapter=AdapterSettings(rank=4, alpha=2.0))
    begun = dataclasses.replace(request, start_from=files[1])
    started = run(begun, tmp_path / "more", StopAfter(0))
    for expert in EXPERTS:
        ours, before = of(started, expert).tensors, of(trained, expert).tensors
        assert all(torch.allclose(ours[key], before[key], atol=1e-6) for key in before)
    named = [file.with_name(f"high_noise tests_{file.stem.removeprefix('start_')}.safetensors") for file in files]
    for file, other in zip(files, named, strict=True):
        shutil.copy(file, other)
    run(dataclasses.replace(begun, start_from=named[1]), tmp_path / "named", StopAfter(0))
    with safe_open(named[0], "pt") as opened:
        told = opened.metadata() | {"ss_training_started_at": "1.5"}
    save_file(load_file(named[0]), named[0], told)
    with pytest.raises(AdapterError, match="are of two trainings"):
        run(dataclasses.replace(begun, start_from=named[1]), tmp_path / "none")
    files[0].unlink()
    with pytest.raises(AdapterError, match=r"start_from: .*start_low_noise\.safetensors has no such partner"):
        run(begun, tmp_path / "none")
    with pytest.raises(AdapterError, match=r"start_from: .*x\.safetensors has no such partner"):
        run(dataclasses.replace(begun, start_from=files[1].rename(tmp_path / "x.safetensors")), tmp_path / "none")


def without_pair(cache):
    request = pair(cache)
    return dataclasses.replace(request, model=small_model("wan22_5b"), cache=make_cache("wan22_5b"))


def stored_otherwise(cache):
    return dataclasses.replace(pair(cache), model_low=small_model("wan", dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (without_pair, FamilyError, "model_low: this Wan model is not one of two"),
        (lambda c: dataclasses.replace(pair(c), model_low=small_model("wan")), ConfigError, "the same model as model"),
        (lambda c: dataclasses.replace(pair(c), model_low=small_model("qwen_image")), FamilyError, "of the kind Qwen"),
        (
            lambda c: dataclasses.replace(pair(c), model_low=low_model("wan22_i2v")),
            FamilyError,
            "as its layer patch_embedding",
        ),
        (stored_otherwise, ConfigError, "model_low: its weights are stored as bfloat16"),
        (lambda c: pair(c, loss=LossSettings(timestep_max=0.8)), ConfigError, "no levels for the high noise model"),
        (lambda c: pair(c, switch_experts_every=4), ConfigError, "switch_experts_every: the run ends after 4 steps"),
        (lambda c: dataclasses.replace(pair(c), assistant=c), ConfigError, "assistant_lora: with two models"),
    ],
)
def test_what_does_not_go_together_is_told_by_its_input(change, error, text, cache, tmp_path):
    with pytest.raises(error, match=text):
        run(change(cache), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_clone_of_the_model_is_no_second_model(cache, tmp_path):
    request = make_request("wan", cache)
    with pytest.raises(ConfigError, match="model_low: it is the same model as model"):
        run(dataclasses.replace(request, model_low=request.model.clone()), tmp_path)


def test_models_that_begin_with_a_picture_change_over_at_their_own_level(tmp_path):
    told = []
    run(pair(make_cache("wan22_i2v"), "wan22_i2v", steps=2), tmp_path, heard=told)
    assert any("levels from 0.9 up" in finding.text for finding in told)


def test_one_model_is_told_what_the_settings_of_two_do_not_do(cache, tmp_path):
    told = []
    plain = run(make_request("wan", cache, steps=2), tmp_path / "plain")
    asked = run(make_request("wan", cache, steps=2, expert_switch=0.5), tmp_path / "plain", heard=told)
    assert any("expert_switch: without a model in model_low" in finding.text for finding in told)
    # It is the same run.
    assert asked.result.loaded and asked.result.folder == plain.result.folder


def test_a_damaged_record_of_two_is_told(cache, tmp_path):
    trained = run(pair(cache), tmp_path)
    assert kept_lora(trained.result.folder, None).low is not None
    rows = Run(folder=trained.result.folder, fingerprint="").read_metrics()
    assert [row["expert"] for row in rows] == [HIGH, LOW, HIGH, LOW]
    record = trained.result.folder / "record.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"two": true', '"two": false'), encoding="utf-8")
    with pytest.raises(RunError, match="layer names"):
        kept_lora(trained.result.folder, None)
