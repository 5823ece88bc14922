"""A whole training on ComfyUI's classes: from pictures to a file that ComfyUI's own loader applies."""

import dataclasses
import json
import logging
from pathlib import Path

import comfy.lora
import comfy.sd
import comfy_extras.nodes_model_advanced
import comfy_extras.nodes_train
import folder_paths
import numpy as np
import pytest
import safetensors.torch
import torch
from comfy.model_management import InterruptProcessingException
from safetensors import safe_open

from harness.folders import anywhere, folder_settings, grey, picture
from harness.models import HashedText, small_model
from harness.small import ALL, widely
from harness.training import LIGHT, Caches, CancelAt, make_cache, make_request, pictures
from harness.vaes import small_vae
from masklora.adapters import to_comfyui
from masklora.cache.cache import build_cache
from masklora.dataset.loading import load_dataset
from masklora.errors import AdapterError, ConfigError, FamilyError
from masklora.host.exporting import LoraTensors, apply_lora, export_lora, export_once
from masklora.host.model.encoders import VaeEncoder
from masklora.host.notes import cache_notes
from masklora.host.training import train_lora
from masklora.settings import (
    AdapterSettings,
    CacheSettings,
    CaptionSettings,
    DatasetSettings,
    ExportSettings,
    LossSettings,
    MaskTransform,
    OptimizerSettings,
)
from masklora.training.job import Hooks

# Of networks that are built like others the usual file alone, in a usual run.
EXPORTS = [
    (form, family, dtype)
    for form in ("comfyui", "diffusers")
    for family in LIGHT
    for dtype in ("float32", "float16")
    if family in widely() or (form, dtype) == ("comfyui", "float16") or ALL
]


@pytest.fixture(scope="module")
def caches():
    return Caches()


def run(request, tmp_path, hooks=None):
    return train_lora(request, runs=tmp_path / "runs", hooks=hooks or Hooks(), report=lambda text: None)


def applied_change(model, tensors):
    """What ComfyUI's loader makes of a LoRA file: weight change by key, and the keys that it left over."""
    patched, _ = comfy.sd.load_lora_for_models(model, None, dict(tensors), 1.0, 0.0)
    change = {}
    for key, patches in patched.patches.items():
        weight = model.model.state_dict()[key].float()
        change[key] = comfy.lora.calculate_weight(patches, weight.clone(), key) - weight
    return change


@pytest.mark.parametrize(("file_format", "family", "dtype"), EXPORTS)
def test_every_export_loads_in_comfyui_without_a_left_over_key_and_changes_the_weights_as_ours(
    family, file_format, dtype, caches, tmp_path, caplog
):
    request = make_request(family, caches[family])
    trained = run(request, tmp_path)
    lora = LoraTensors(trained)
    settings = ExportSettings(format=file_format, dtype=dtype)
    if file_format == "diffusers" and not trained.names.diffusers:
        with pytest.raises(AdapterError, match="comfyui"):
            export_lora(lora, tmp_path / "x.safetensors", settings)
        return
    (path,) = export_lora(lora, tmp_path / "lora", settings)
    tensors = safetensors.torch.load_file(path)
    with caplog.at_level(logging.WARNING):
        change = applied_change(request.model, tensors)
    assert "not loaded" not in caplog.text
    assert len(change) == len(trained.factors)
    for name, factors in trained.factors.items():
        found, ours = change[f"diffusion_model.{name}.weight"], factors.delta()
        tolerance = 1e-4 if dtype == "float32" else 2e-3
        assert (found - ours.reshape(found.shape)).norm() <= tolerance * ours.norm(), name


@pytest.mark.parametrize("algorithm", ["rslora", "dora"])
def test_rslora_and_dora_files_change_the_prediction_as_in_training(algorithm, caches, tmp_path):
    request = make_request("sd3", caches["sd3"])
    request = dataclasses.replace(request, adapter=dataclasses.replace(request.adapter, algorithm=algorithm))
    trained = run(request, tmp_path)
    change = applied_change(request.model, to_comfyui(trained.factors))
    for name, factors in trained.factors.items():
        weight = request.model.model.state_dict()[f"diffusion_model.{name}.weight"].float()
        expected = factors.delta()
        if factors.dora_scale is not None:
            summed = weight + expected
            magnitude = trained.result.adapter[f"{name}.magnitude"].reshape(-1, 1)
            expected = magnitude * summed / summed.norm(dim=1, keepdim=True) - weight
        found = change[f"diffusion_model.{name}.weight"]
        assert torch.allclose(found, expected, rtol=1e-3, atol=2e-6), name


def test_convolutions_are_trained_and_exported_when_asked_for(caches, tmp_path):
    request = make_request("sd15", caches["sd15"])
    adapter = dataclasses.replace(request.adapter, convolutions=True, targets="all")
    trained = run(dataclasses.replace(request, adapter=adapter), tmp_path)
    assert any(f.down.ndim == 4 and f.down.shape[-1] == 3 for f in trained.factors.values())
    change = applied_change(request.model, trained.tensors)
    for name, factors in trained.factors.items():
        found = change[f"diffusion_model.{name}.weight"]
        assert torch.allclose(found, factors.delta().reshape(found.shape), rtol=1e-3, atol=1e-6), name


def test_core_saves_no_metadata_here_they_tell_kohya_s_tools_and_us_what_was_trained(caches, tmp_path):
    """comfy_extras/nodes_train.py, SaveLoRA: tensors alone."""
    trained = run(make_request("flux", caches["flux"]), tmp_path)
    comfy_extras.nodes_train.SaveLoRA.execute(trained.tensors, "loras/core")
    (theirs,) = Path(folder_paths.get_output_directory()).glob("loras/core_*.safetensors")
    with safe_open(theirs, "pt") as file:
        assert not file.metadata()
    (path,) = export_lora(LoraTensors(trained), tmp_path / "lora", ExportSettings(trigger="zib"))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_base_model_version"] == "flux1"
    assert metadata["modelspec.architecture"] == "flux-1-dev/lora"
    assert metadata["ss_network_dim"] == "4" and metadata["ss_network_alpha"] == "2"
    assert json.loads(metadata["masklora.loss"])["normalize"] == "area"
    summary = json.loads(metadata["masklora.summary"])
    assert 0 < summary["coverage"] < 1 and summary["inside"] > 0 and summary["outside"] > 0
    assert json.loads(metadata["ss_datasets"])[0]["mask_transforms"]["invert"] is False
    assert json.loads(metadata["masklora.cache"])["resolution"] == 64
    assert json.loads(metadata["masklora.masks"]) == [dataclasses.asdict(MaskTransform())]


def test_record_carries_the_data_sets_own_trigger_word_and_mask_transforms(caches, tmp_path):
    source = dict(caches["flux"].sources[0])
    source["settings"] = {**source["settings"], "caption": {**source["settings"]["caption"], "trigger": "zib"}}
    source["mask_transforms"] = dataclasses.asdict(MaskTransform(grow=3))
    cache = dataclasses.replace(caches["flux"], sources=(source,))
    record = run(make_request("flux", cache), tmp_path).record
    assert record.trigger == "zib" and list(record.masks) == [MaskTransform(grow=3)]


def test_a_run_on_another_noise_schedule_is_another_run(caches, tmp_path):
    request = make_request("sd3", caches["sd3"], steps=1)
    node = comfy_extras.nodes_model_advanced.ModelSamplingSD3()
    models = [node.patch(request.model, shift)[0] for shift in (1.0, 6.0)]
    assert len({run(dataclasses.replace(request, model=m), tmp_path).result.folder for m in models}) == 2


def test_finished_run_is_loaded_and_a_changed_one_is_trained(caches, tmp_path):
    request = make_request("sd3", caches["sd3"])
    first = run(request, tmp_path)
    again = run(dataclasses.replace(request, model=small_model("sd3")), tmp_path)
    other = run(dataclasses.replace(request, loss=LossSettings(normalize="none")), tmp_path)
    assert not first.result.loaded and again.result.loaded and not other.result.loaded
    assert all(torch.equal(first.tensors[k], again.tensors[k]) for k in first.tensors)
    assert other.result.folder != first.result.folder
    (path,) = export_once(LoraTensors(first), tmp_path / "out" / "probe.safetensors", ExportSettings())
    (found,) = export_once(LoraTensors(again), tmp_path / "out" / "probe.safetensors", ExportSettings())
    assert (found.path, found.new, path.new) == (path.path, False, True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attention_mask": True, "floor": 0.1}, "floor 0.1 gives weight to all"),
        ({"routes": "0.5: 1..2", "route_until": 0.0}, "routes do nothing: route_until is 0"),
        ({"attention_mask": True, "floor": 0.1, "weight_threshold": 0.2}, ""),
        ({"attention_mask": True, "outside_share": 0.1, "routes": "0.5: 1..2"}, ""),
    ],
)
def test_token_settings_without_effect_are_told(changes, told, caches):
    loss = LossSettings(infill_probability=0.0, **changes)
    notes = [note for note in cache_notes(loss, caches["flux"]) if "backgrounds in the cache" not in note]
    assert [told in note for note in notes] == [True] * bool(told)


def test_an_attention_mask_without_any_mask_is_told(caches):
    entries = tuple(dataclasses.replace(e, has_mask=False) for e in caches["flux"].entries)
    cache = dataclasses.replace(caches["flux"], entries=entries)
    (note,) = cache_notes(LossSettings(attention_mask=True), cache)
    assert "no picture has a mask" in note


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_core_loses_a_cancelled_training_here_it_resumes_bit_for_bit_and_the_model_is_untouched(
    family, caches, tmp_path
):
    """comfy_extras/nodes_train.py, TrainLoraNode: weights leave it with the last step, and nothing is saved before."""

    straight = run(make_request(family, caches[family], steps=4), tmp_path / "straight")
    request = make_request(family, caches[family], steps=4)
    before = {k: v.clone() for k, v in request.model.model.state_dict().items()}
    with pytest.raises(InterruptProcessingException):
        run(request, tmp_path / "cut", CancelAt(2))
    after = request.model.model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[k], before[k]) for k in before)
    resumed = run(request, tmp_path / "cut")
    assert resumed.result.resumed_from == 2
    for key, value in straight.tensors.items():
        assert torch.equal(value, resumed.tensors[key]), key


def test_training_continues_from_a_lora_file_of_ours_or_kohyas(caches, tmp_path):
    request = make_request("sd15", caches["sd15"])
    trained = run(request, tmp_path)
    (path,) = export_lora(LoraTensors(trained), tmp_path / "start", ExportSettings(dtype="float32"))
    still = OptimizerSettings(learning_rate=1e-30, weight_decay=0.0)
    onward = run(dataclasses.replace(request, start_from=path, optimizer=still), tmp_path)
    for name, factors in trained.factors.items():
        assert torch.allclose(onward.factors[name].delta(), factors.delta(), atol=1e-7), name
    with pytest.raises(AdapterError, match=r"start\.safetensors.*not a layer of this model"):
        run(dataclasses.replace(make_request("flux", caches["flux"]), start_from=path), tmp_path)
    wrong_rank = dataclasses.replace(request, start_from=path, adapter=AdapterSettings(rank=8))
    with pytest.raises(AdapterError, match="Set rank to the file's rank, 4"):
        run(wrong_rank, tmp_path)


def test_the_change_of_a_file_is_the_same_whatever_its_alpha_and_the_algorithm_that_goes_on(caches, tmp_path):
    request = make_request("sd3", caches["sd3"])
    trained = run(request, tmp_path)
    still = OptimizerSettings(learning_rate=1e-30, weight_decay=0.0)
    request = dataclasses.replace(request, optimizer=still, train=dataclasses.replace(request.train, steps=1))
    for algorithm, factor in (("lora", 4.0), ("rslora", 0.5)):
        # As some tools write it, an alpha is a row of one.
        tensors = {k: (t * factor).reshape(1) if k.endswith("alpha") else t for k, t in trained.tensors.items()}
        path = tmp_path / f"{algorithm} {factor}.safetensors"
        safetensors.torch.save_file(tensors, path)
        adapter = dataclasses.replace(request.adapter, algorithm=algorithm)
        onward = run(dataclasses.replace(request, start_from=path, adapter=adapter), tmp_path)
        for name, factors in trained.factors.items():
            assert factors.delta().any()
            assert torch.allclose(onward.factors[name].delta(), factor * factors.delta(), rtol=1e-4, atol=1e-7), name
    few = dataclasses.replace(request.adapter, exclude=r"joint_blocks\.0\.")
    with pytest.raises(AdapterError, match=r"that are no targets here, such as .* Choose targets that include them"):
        run(dataclasses.replace(request, start_from=path, adapter=few), tmp_path)


def test_a_model_that_carries_a_lora_is_trained_on_top_of_it_and_that_is_told(caches, tmp_path):
    request = make_request("sd3", caches["sd3"])
    below, told = run(request, tmp_path), []
    patched = dataclasses.replace(request, model=apply_lora(request.model, LoraTensors(below)))
    above = train_lora(patched, runs=tmp_path / "runs", hooks=Hooks(), report=told.append)
    layers = len(below.factors)
    assert [f"patches (LoRAs) on {layers} weights: trained on top" in one.text for one in told].count(True) == 1
    assert not above.result.loaded and above.result.losses[0] != below.result.losses[0]
    # Loaded after the other, its change is added.
    both = applied_change(patched.model, above.tensors)
    for name, factors in above.factors.items():
        wanted, found = factors.delta() + below.factors[name].delta(), both[f"diffusion_model.{name}.weight"]
        assert torch.allclose(found, wanted.reshape(found.shape), rtol=1e-3, atol=1e-6), name


def test_cache_of_another_vae_or_without_captions_is_refused(caches, tmp_path):
    with pytest.raises(FamilyError, match="VAE of 16 channels"):
        run(make_request("sd15", caches["flux"]), tmp_path)
    silent = build_cache(
        pictures(),
        CacheSettings(resolution=64, bucket_step=16, storage="memory"),
        encoder=VaeEncoder(small_vae("flux")),
    )
    with pytest.raises(ConfigError, match="Connect the CLIP"):
        run(make_request("flux", silent), tmp_path)


@pytest.mark.parametrize(
    ("loss", "widget"),
    [
        (LossSettings(noise_offset=0.1), "noise_offset"),
        (LossSettings(multires_noise=0.3), "multires_noise"),
        (LossSettings(timestep_weight="min-snr"), "timestep weight"),
        (LossSettings(zero_terminal_snr=True), "zero_terminal_snr"),
    ],
)
def test_options_of_another_kind_of_model_are_refused_before_a_run_is_made(loss, widget, caches, tmp_path):
    with pytest.raises(ConfigError, match=widget):
        run(dataclasses.replace(make_request("sd3", caches["sd3"]), loss=loss), tmp_path)
    assert not (tmp_path / "runs").exists()


def test_text_of_another_width_is_refused(tmp_path):
    cache = build_cache(
        pictures(),
        CacheSettings(resolution=64, bucket_step=16, storage="memory"),
        encoder=VaeEncoder(small_vae("sd15")),
        text=HashedText("sdxl"),
    )
    with pytest.raises(FamilyError, match=r"2048 features.*768"):
        run(make_request("sd15", cache), tmp_path)


def test_pooled_text_of_another_width_is_refused(tmp_path):
    text = HashedText("flux")
    text.pooled = "sd3"
    cache = build_cache(
        pictures(),
        CacheSettings(resolution=64, bucket_step=16, storage="memory"),
        encoder=VaeEncoder(small_vae("flux")),
        text=text,
    )
    with pytest.raises(FamilyError, match=r"2048 pooled features.*768"):
        run(make_request("flux", cache), tmp_path)


def test_lora_that_changes_the_text_encoder_is_refused_by_name(tmp_path, caches):
    request = make_request("sd15", caches["sd15"])
    tensors = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(4, 8)}
    safetensors.torch.save_file(tensors, tmp_path / "both.safetensors")
    with pytest.raises(AdapterError, match=r"both\.safetensors.*text encoder"):
        run(dataclasses.replace(request, start_from=tmp_path / "both.safetensors"), tmp_path)


def test_model_with_lora_predicts_what_training_ended_with(caches, tmp_path):
    request = make_request("sd3", caches["sd3"])
    trained = run(request, tmp_path)
    patched = apply_lora(request.model, LoraTensors(trained))
    assert len(patched.patches) == len(trained.factors) and not request.model.patches


def test_float8_model_trains_and_its_weights_stay_float8(caches, tmp_path):
    request = make_request("flux", caches["flux"])
    model = small_model("flux", options={"dtype": torch.float8_e4m3fn})
    stored = {p.dtype for p in model.model.diffusion_model.parameters()}
    trained = run(dataclasses.replace(request, model=model), tmp_path)
    assert torch.float8_e4m3fn in stored
    assert {p.dtype for p in model.model.diffusion_model.parameters()} == stored
    assert all(np.isfinite(trained.result.losses))


@pytest.mark.parametrize("option", [{"floor": 0.1}, {"outside_share": 0.2}, {"mask_probability": 0.5}])
def test_that_replaced_backgrounds_get_no_weight_is_told(option, caches):
    (note,) = cache_notes(LossSettings(**option), caches["sd15"])
    assert "not where the background was replaced" in note and next(iter(option)) in note
    assert cache_notes(LossSettings(), caches["sd15"]) == []
    (unused,) = cache_notes(LossSettings(**option, infill_probability=0.0), caches["sd15"])
    assert unused == "The replaced backgrounds in the cache are not used: infill_probability is 0."


def test_a_cache_without_replaced_backgrounds_is_told_where_training_asks_for_them(caches):
    cache = dataclasses.replace(
        caches["sd15"], entries=tuple(dataclasses.replace(e, infills=()) for e in caches["sd15"].entries)
    )
    assert cache_notes(LossSettings(), cache) == []
    (note,) = cache_notes(LossSettings(infill_probability=0.8), cache)
    assert "infill_variants" in note


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_training_with_the_prior_tells_it_in_metrics_and_metadata_and_resumes_bit_for_bit(family, caches, tmp_path):
    class StopAtFive(Hooks):
        steps = 0

        def after_step(self, step):
            self.steps = step

        def should_stop(self):
            return self.steps == 5

    loss = LossSettings(prior_weight=1.0, prior_probability=0.5, prior_schedule="linear")
    request = dataclasses.replace(make_request(family, caches[family], steps=10), loss=loss)
    straight = run(request, tmp_path / "straight")
    assert not run(request, tmp_path / "halves", StopAtFive()).result.completed
    resumed = run(request, tmp_path / "halves")
    assert resumed.result.resumed_from == 5 and resumed.result.losses == straight.result.losses
    assert all(torch.equal(value, resumed.tensors[key]) for key, value in straight.tensors.items())
    rows = [[json.loads(line) for line in (t.result.folder / "metrics.jsonl").open()] for t in (straight, resumed)]
    told, again = [[(r["step"], r["prior"], r["drift"]) for r in found] for found in rows]
    assert told == again
    asked = [(prior, drift) for _, prior, drift in told if prior is not None]
    assert 0 < len(asked) < 10 and all(prior > 0 and drift > 0 for prior, drift in asked[1:])
    (path,) = export_lora(LoraTensors(straight), tmp_path / "lora", ExportSettings())
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    stored, summary = json.loads(metadata["masklora.loss"]), json.loads(metadata["masklora.summary"])
    assert (stored["prior_weight"], stored["prior_probability"], stored["prior_schedule"]) == (1.0, 0.5, "linear")
    assert summary["prior"] > 0 and summary["drift"] > 0


def test_a_run_with_another_prior_is_another_run(caches, tmp_path):
    request = make_request("sd3", caches["sd3"], steps=1)
    losses = [LossSettings(prior_weight=weight) for weight in (0.0, 0.5, 1.0)]
    assert len({run(dataclasses.replace(request, loss=loss), tmp_path).result.folder for loss in losses}) == 3


@pytest.mark.parametrize("family", widely())
def test_training_with_preservation_runs_tells_it_and_notes_what_has_no_trigger(family, tmp_path):
    loss = LossSettings(preservation_weight=0.5, prior_weight=1.0)
    caption = CaptionSettings(trigger="thing")
    with_trigger = make_cache(family, DatasetSettings(caption=caption))
    request = dataclasses.replace(make_request(family, with_trigger, steps=4), loss=loss)
    trained = run(request, tmp_path)
    rows = [json.loads(line) for line in (trained.result.folder / "metrics.jsonl").open()]
    assert all(row["preservation"] > 0 for row in rows[1:])
    assert trained.result.summary["preservation"] > 0
    without = make_cache(family)
    (note,) = cache_notes(loss, without)
    assert note.startswith("No caption has a trigger word: preservation_weight does nothing")
    assert cache_notes(loss, with_trigger) == []
    mixed = dataclasses.replace(without, entries=(*with_trigger.entries, *without.entries[:1]))
    (note,) = cache_notes(loss, mixed)
    assert note.startswith("1 of 5 captions has no trigger word")


def subjects_cache(folder, together, **settings):
    """Two pictures of Anna and Ben in a folder, cached for SD 1.5."""
    for name in ("one", "two"):
        picture(folder / f"{name}.png", (128, 128), value=90 + len(name))
        for subject, left in (("anna", 0), ("ben", 64)):
            mask = np.zeros((128, 128))
            mask[32:80, left : left + 48] = 1
            grey(folder / "masks" / f"{name}.{subject}.png", mask)
    loaded = load_dataset(folder_settings(folder, mask_folder="masks", together=together), allowed=anywhere)
    return build_cache(
        loaded,
        CacheSettings(resolution=128, bucket_step=16, storage="memory", infill_variants=0, **settings),
        encoder=VaeEncoder(small_vae("sd15")),
        text=HashedText("sd15"),
    )


def test_subjects_train_on_masked_crops_of_several_sizes(tmp_path):
    cache = subjects_cache(tmp_path / "set", 0.5, crop="masked crop", crop_margin=0.0)
    assert {entry.bucket for entry in cache.entries} == {(48, 48), (112, 48)}
    trained = run(make_request("sd15", cache, steps=4, batch_size=1, validate_every=2), tmp_path)
    lines = [json.loads(line) for line in (trained.result.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(np.isfinite(line["loss"]) and line["inside"] > 0 for line in lines)


def test_a_run_whose_pictures_are_held_out_otherwise_is_another_run(tmp_path):
    cache = subjects_cache(tmp_path / "set", 0.0)
    apart = dataclasses.replace(cache, entries=[dataclasses.replace(e, picture=e.name) for e in cache.entries])
    for validate, runs in ((1, 2), (0, 1)):
        requests = [make_request("sd15", one, steps=1, validate_every=validate) for one in (cache, apart)]
        assert len({run(request, tmp_path).result.folder for request in requests}) == runs
