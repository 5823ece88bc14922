"""Whole trainings of text encoders beside a model: files, checkpoints, pictures, and what is left as it was."""

import dataclasses
import io
import json
import logging

import comfy.sd
import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import nodes as comfy_nodes
from harness.damage import ALL
from harness.text_encoders import TRAINED, model_for, text_cache, text_training, trained_clip
from harness.vaes import small_vae
from masklora.errors import AdapterError, ConfigError, FamilyError
from masklora.findings import Finding
from masklora.generators.apply import Watch
from masklora.host.exporting import LoraTensors, apply_all, export_lora, export_word, load_run
from masklora.host.outputs import embeddings_folder
from masklora.host.page.run_routes import _export
from masklora.host.sampling import encode_prompts
from masklora.host.strengths import Wanted, draw_run
from masklora.host.training import train_lora
from masklora.runs.sample_pictures import SampleFolder, SampleSettings
from masklora.settings import AdapterSettings, ExportSettings, LossSettings, OptimizerSettings
from masklora.training.job import Hooks

FLOAT, HALF = (torch.float32, 1e-5), (torch.float16, 1e-2)
FILES = [(family, *kind) for family in TRAINED for kind in (FLOAT, HALF)] if ALL else [("sd15", *FLOAT)]
everything = pytest.mark.skipif(not ALL, reason="runs with --all")
PROMPT = "a photo of zwx (red:1.3)"
WORD_ONLY = {"new_word": True, "encoders": "none", "word_learning_rate": 0.3}


class Heard(Hooks):
    def __init__(self, stop_at=None):
        self.messages, self.stop_at, self.step, self.seen = [], stop_at, 0, {}

    def on_job(self, job):
        self.job = job

    def after_step(self, step):
        self.step = step
        self.seen[step] = {name: p.detach().clone() for name, p in self.job.model.params.items()}

    def should_stop(self):
        return self.step == self.stop_at

    def on_message(self, told):
        self.messages.append(told.text if isinstance(told, Finding) else told)


class Caches(dict):
    """A cache by family, made when it is first asked for."""

    def __missing__(self, family):
        self[family] = text_cache(family)
        return self[family]


@pytest.fixture(scope="module")
def caches():
    return Caches()


def run(request, folder, hooks=None):
    with torch.inference_mode():
        return train_lora(request, runs=folder / "runs", hooks=hooks or Heard(), report=lambda text: None)


def encoded(clip, text=PROMPT):
    ((cond, options),) = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    return {"cond": cond, **{name: value for name, value in options.items() if isinstance(value, torch.Tensor)}}


class RatesKnownError(Exception):
    pass


@pytest.mark.parametrize(
    ("algorithm", "rate", "texts"),
    [("loha", 0.0, 1e-4), ("lokr", 0.0, 1e-4), ("loha", 3e-4, 3e-4), ("lora", 0.0, 1e-4)],
)
def test_a_rate_left_to_the_model_s_is_that_of_a_plain_lora_whatever_the_model_learns_with(
    algorithm, rate, texts, caches, tmp_path
):
    class Rates(Hooks):
        def on_job(self, job):
            self.parts, self.rate = [part.learning_rate for part in job.parts], job.optim.learning_rate
            raise RatesKnownError

    hooks, asked = Rates(), {"learning_rate": 0.0, "word_learning_rate": 0.0, "new_word": True}
    request = text_training("sd15", caches["sd15"], texts=asked, steps=1)
    adapter, optimizer = AdapterSettings(algorithm=algorithm, rank=4), OptimizerSettings(learning_rate=rate)
    with pytest.raises(RatesKnownError):
        run(dataclasses.replace(request, adapter=adapter, optimizer=optimizer), tmp_path, hooks)
    assert hooks.parts == [texts, texts]
    assert (hooks.rate == texts) == (rate > 0 or algorithm == "lora")


class Reading(Heard):
    """What the encoders made of a prompt before the training, and make of it after the last step."""

    def __init__(self, family, dtype):
        super().__init__()
        self.base = encoded(trained_clip(family, dtype=dtype))

    def after_step(self, step):
        self.read = self.job.model.texts.prompt(PROMPT, self.base)


def through_loader(path, model, clip, caplog):
    """The CLIP that core's Load LoRA gives for a file, and the file's keys that it left over."""
    with caplog.at_level(logging.WARNING):
        loader = comfy_nodes.LoraLoader()
        folder_paths.add_model_folder_path("loras", str(path.parent))
        _, applied = loader.load_lora(model, clip, path.name, 1.0, 1.0)
    return applied, [line for line in caplog.messages if "not loaded" in line.lower()]


@pytest.mark.parametrize(("family", "dtype", "tolerance"), FILES)
def test_the_file_loads_in_comfyui_with_no_key_left_over_and_reads_prompts_as_the_training_did(
    family, dtype, tolerance, caches, tmp_path, caplog
):
    clip = trained_clip(family, dtype=dtype)
    cache = caches[family] if dtype == torch.float32 else text_cache(family, clip)
    request = text_training(family, cache, clip, texts={"learning_rate": 1e-2}, steps=2)
    hooks = Reading(family, dtype)
    trained = run(request, tmp_path, hooks)
    kind = {torch.float32: "float32", torch.float16: "float16"}[dtype]
    (path,) = export_lora(LoraTensors(trained), tmp_path / "files" / "lora", ExportSettings(dtype=kind))
    names = {key.partition("_text_model")[0] for key in load_file(path) if key.startswith("lora_te")}
    wanted = {"sd15": {"lora_te"}, "sd2": {"lora_te"}, "flux": {"lora_te1"}}.get(family, {"lora_te1", "lora_te2"})
    assert names == wanted
    applied, left = through_loader(path, request.model, clip, caplog)
    assert left == []
    after = encoded(applied)
    for name, base in hooks.base.items():
        change = (hooks.read[name] - base).norm()
        assert change > 0 or (family, name) == ("flux", "cond")
        assert (after[name] - hooks.read[name]).norm() <= tolerance * change, name
    # The node gives the same CLIP.
    given = encoded(apply_all(clip, LoraTensors(trained)))
    assert all((given[name] - after[name]).norm() <= 1e-2 * (after[name] - hooks.base[name]).norm() for name in given)


def test_the_prior_and_the_held_captions_are_those_of_the_base_encoder(caches, tmp_path):
    """With rates of the encoders that change everything, the base model's passes are those of a run without them."""
    loss = LossSettings(prior_weight=1.0, preservation_weight=1.0, preservation_probability=1.0)
    seen = {}

    class Spy(Hooks):
        def __init__(self, name):
            self.name = name

        def on_job(self, job):
            inner, calls = job.model.denoise, seen.setdefault(self.name, [])

            def denoise(noisy, u, conditioning, **planned):
                out = inner(noisy, u, conditioning, **planned)
                if not torch.is_grad_enabled():
                    calls.append(out)
                return out

            job.model.denoise = denoise

    for name, rate in (("still", 1e-9), ("wild", 10.0)):
        request = text_training("sd15", caches["sd15"], texts={"learning_rate": min(rate, 1.0)}, steps=2, leak_every=-1)
        run(dataclasses.replace(request, loss=loss), tmp_path / name, Spy(name))
    assert len(seen["still"]) == 4
    assert all(torch.equal(one, other) for one, other in zip(seen["still"], seen["wild"], strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", *(("prodigy", "schedule-free adamw") if ALL else ())])
def test_a_run_goes_on_bit_for_bit_with_the_encoders_the_word_and_their_stops(optimizer, caches, tmp_path):
    rates = {"learning_rate": 0.0, "word_learning_rate": 0.0} if optimizer == "prodigy" else {}
    texts = {"new_word": True, "stop_after": 1, "word_stop_after": 2, "word_start": "a dog", **rates}
    request = text_training("sd15", caches["sd15"], texts=texts, steps=3)
    optim = OptimizerSettings(optimizer=optimizer, learning_rate=1e-3, ema_decay=0.9 if optimizer == "adamw" else 0.0)
    request = dataclasses.replace(request, optimizer=optim, adapter=AdapterSettings(rank=4, alpha=2.0, dropout=0.2))
    straight = run(request, tmp_path / "straight")
    stops = (1, 2) if ALL else (2,)
    for stop in stops:
        run(request, tmp_path / "parts", Heard(stop_at=stop))
    resumed = run(request, tmp_path / "parts")
    assert resumed.result.resumed_from == 2 and resumed.result.losses == straight.result.losses
    for name, value in straight.result.adapter.items():
        assert torch.equal(value, resumed.result.adapter[name]), name


def test_after_its_stop_the_encoder_stays_and_the_log_says_so(caches, tmp_path):
    hooks = Heard()
    run(text_training("sd15", caches["sd15"], texts={"stop_after": 2}, steps=4), tmp_path, hooks)
    told = [line for line in hooks.messages if "Text encoder:" in line]
    assert told == ["Text encoder: trained for 2 steps; from here on it stays as it is."]
    own = [name for name in hooks.seen[1] if name.startswith("text_encoder.")]
    rest = [name for name in hooks.seen[1] if not name.startswith("text_encoder.") and name.endswith("lora_B")]
    assert all(torch.equal(hooks.seen[2][name], hooks.seen[4][name]) for name in own)
    assert any(not torch.equal(hooks.seen[1][name], hooks.seen[2][name]) for name in own)
    assert not any(torch.equal(hooks.seen[3][name], hooks.seen[4][name]) for name in rest)


@pytest.mark.parametrize("family", ["sd15", *(["sd2", "sdxl"] if ALL else [])])
def test_a_new_word_s_file_is_what_comfyui_reads_and_the_lora_names_it(family, caches, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    hooks = Reading(family, torch.float32)
    trained = run(text_training(family, caches[family], texts=WORD_ONLY, steps=2), tmp_path, hooks)
    lora = LoraTensors(trained)
    written = export_word(lora, ("train", tmp_path))
    assert written.path == embeddings_folder() / "zwx.safetensors"
    widths = {"sd15": {"clip_l": 768}, "sd2": {"clip_h": 1024}, "sdxl": {"clip_g": 1280, "clip_l": 768}}[family]
    shapes = {name: tuple(v.shape) for name, v in load_file(written.path).items()}
    assert shapes == {name: (2, width) for name, width in widths.items()}
    clip = comfy.sd.CLIP(no_init=True)
    vars(clip).update(vars(trained_clip(family).clone()))
    clip.tokenizer = type(clip.tokenizer)(embedding_directory=[str(written.path.parent)])
    read = encoded(clip, PROMPT.replace("zwx", "embedding:zwx"))
    assert all(torch.equal(read[name], hooks.read[name]) for name in ("cond", "pooled_output"))
    given = encoded(apply_all(trained_clip(family), lora), PROMPT.replace("zwx", "embedding:zwx"))
    assert torch.equal(given["cond"], read["cond"])
    (path,) = export_lora(lora, tmp_path / "lora", ExportSettings())
    with safe_open(path, "pt") as file:
        told = file.metadata()
    assert told["masklora.embedding"] == "zwx" and told["modelspec.trigger_phrase"] == "embedding:zwx"
    assert json.loads(told["masklora.text_encoder"])["rates"] == {"New word": 0.3}
    assert not any(key.startswith("lora_te") for key in load_file(path))
    assert export_word(lora, ("train", tmp_path)).new is False
    # What the page exports of the run's checkpoint names its own file where another has come into the first one's name.
    written.path.write_bytes(b"another's")
    monkeypatch.setattr("masklora.host.exporting.runs_folder", lambda: tmp_path / "runs")
    (path,) = _export(trained.result.folder, None)
    with safe_open(path, "pt") as file:
        told = file.metadata()["masklora.embedding"]
    assert told == "zwx_00001_" and load_file(embeddings_folder() / f"{told}.safetensors").keys() == widths.keys()


@everything
def test_a_word_whose_name_another_file_has_is_called_as_its_own_file(caches, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    embeddings_folder().mkdir(parents=True)
    (embeddings_folder() / "zwx.safetensors").write_bytes(b"another's")
    trained = run(
        text_training("sd15", caches["sd15"], texts={"new_word": True, "encoders": "none"}, steps=1), tmp_path
    )
    lora = LoraTensors(trained)
    written = export_word(lora, ("train", tmp_path))
    assert written.path.name == "zwx_00001_.safetensors" and written.taken == "zwx.safetensors"
    assert lora.trained.record.trigger == "embedding:zwx_00001_"


def samples(clip, vae):
    settings = SampleSettings(prompts=(PROMPT,), width=64, height=64, every=2, steps=2, cfg=1.5, negative="blurry")
    return encode_prompts(clip, vae, settings)


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("texts", [{"learning_rate": 3e-2}, *([WORD_ONLY] if ALL else [])])
def test_sample_pictures_show_the_encoders_in_training_and_sample_run_draws_the_same(
    texts, caches, tmp_path, monkeypatch
):
    clip, vae = trained_clip("sd15"), small_vae("sd15")
    request = text_training("sd15", caches["sd15"], texts=texts, steps=2, name="drawn")
    # The model's own LoRA is as good as nothing.
    request = dataclasses.replace(request, samples=samples(clip, vae), optimizer=OptimizerSettings(learning_rate=1e-8))
    trained = run(request, tmp_path)
    folder = SampleFolder(trained.result.folder)
    base, shown = (pixels(folder.read(step, 0)) for step in (0, 2))
    assert np.abs(base - shown).max() > 2
    plain = run(dataclasses.replace(request, samples=None), tmp_path / "plain")
    assert all(torch.equal(value, trained.result.adapter[name]) for name, value in plain.result.adapter.items())
    monkeypatch.setattr("masklora.host.exporting.runs_folder", lambda: tmp_path / "runs")
    for file in folder.file(2, 0, 1.0).parent.glob("*.png"):
        file.unlink()
    wanted = Wanted(trained.result.folder.name, "2", "0.5, 1")
    with torch.inference_mode():
        drawn, _ = draw_run(model_for("sd15"), samples(clip, vae), wanted, Watch())
    half, whole = (drawn.numpy() * 255).round().astype(int)
    assert np.abs(whole - shown).max() <= 1
    if "new_word" not in texts:
        assert np.abs(half - shown).max() > 1


@everything
def test_a_run_s_checkpoint_has_the_encoders_and_the_word_without_the_model(caches, tmp_path, monkeypatch):
    trained = run(text_training("sd15", caches["sd15"], texts={"new_word": True}, steps=2, name="kept"), tmp_path)
    monkeypatch.setattr("masklora.host.exporting.runs_folder", lambda: tmp_path / "runs")
    kept = load_run("kept", 0)
    assert kept.keys() == LoraTensors(trained).keys()
    assert all(torch.equal(value, trained.tensors[key]) for key, value in kept.items())
    assert kept.kept.word.name == "zwx" and kept.kept.word.trigger == "zwx"
    assert torch.equal(kept.kept.word.vectors["clip_l"], trained.word.vectors["clip_l"])


@everything
def test_a_training_begins_with_the_encoders_of_a_file_and_without_them_the_file_is_refused(caches, tmp_path):
    first = run(text_training("sd15", caches["sd15"], texts={"learning_rate": 1e-2}, steps=2), tmp_path / "first")
    with pytest.raises(AdapterError, match="format: the LoRA of text encoders"):
        export_lora(LoraTensors(first), tmp_path / "x", ExportSettings(format="diffusers"))
    (path,) = export_lora(LoraTensors(first), tmp_path / "start", ExportSettings(dtype="float32"))
    request = dataclasses.replace(text_training("sd15", caches["sd15"], steps=1), start_from=path)
    hooks = Heard()
    hooks.on_job = lambda job: hooks.seen.update({0: {n: p.detach().clone() for n, p in job.model.params.items()}})
    hooks.after_step = lambda step: None
    run(request, tmp_path / "second", hooks)
    for name, value in first.result.adapter.items():
        assert torch.allclose(hooks.seen[0][name], value, rtol=1e-6), name
    with pytest.raises(
        AdapterError, match=r"start\.safetensors: it changes the text encoder too .*Connect Train Text Encoder"
    ):
        run(dataclasses.replace(request, texts=None), tmp_path / "third")
    tensors = load_file(path)
    key = next(key for key in tensors if key.startswith("lora_te") and key.endswith("q_proj.lora_down.weight"))
    stem = key.removesuffix(".lora_down.weight")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{stem}.")}
    factors = {f"{stem}.lokr_w1": torch.ones(2, 2), f"{stem}.lokr_w2": torch.ones(384, 384)}
    save_file(kept | factors, path)
    with pytest.raises(AdapterError, match=r"start_from: start\.safetensors has lokr weights of the text encoder"):
        run(request, tmp_path / "fourth")


@everything
def test_validation_and_caption_dropout_read_by_the_trained_encoders(tmp_path):
    """A dropped caption is the empty one, encoded live too: with all dropped the encoders still learn."""
    cache = text_cache("sd15", dropout=1.0)
    hooks, losses = Heard(), []
    hooks.on_validation = lambda step, loss: losses.append(loss)
    request = text_training(
        "sd15", cache, texts={"learning_rate": 3e-2}, steps=3, validate_every=1, validation_share=0.4
    )
    run(dataclasses.replace(request, optimizer=OptimizerSettings(learning_rate=1e-8)), tmp_path, hooks)
    assert any(
        p.abs().sum() > 0 for name, p in hooks.seen[1].items() if name.startswith("text_") and name.endswith("lora_B")
    )
    # The model's LoRA as good as stands still.
    assert len(set(losses)) == 3


@everything
def test_the_norm_of_the_gradient_is_that_of_all_that_is_trained(caches, tmp_path):
    norms = []

    class Norms(Heard):
        def on_step(self, report):
            norms.append(report.grad_norm)

    request = text_training("sd15", caches["sd15"], texts={"new_word": True, "encoders": "none"}, steps=1)
    run(request, tmp_path / "both", Norms())
    run(dataclasses.replace(request, texts=None), tmp_path / "alone", Norms())
    assert norms[0] > norms[1] * (1 + 1e-6)


def other_clip():
    clip = trained_clip("sd15").clone()
    clip.clip_layer(-2)
    return clip


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (
            lambda r, c: {"texts": text_training("sd15", c, other_clip()).texts},
            ConfigError,
            "its CLIP is not that of Cache",
        ),
        (
            lambda r, c: {"texts": text_training("sd15", c, trained_clip("flux")).texts},
            FamilyError,
            "does not read what",
        ),
        (lambda r, c: {"model_low": r.model}, ConfigError, "models that are two"),
        (lambda r, c: {"optimizer": OptimizerSettings(optimizer="prodigy")}, ConfigError, "prodigy finds one rate"),
    ],
    ids=["another clip", "another family", "two models", "prodigy"],
)
def test_a_clip_that_does_not_go_with_the_rest_is_refused_before_anything_is_loaded(
    change, error, told, caches, tmp_path
):
    request = text_training("sd15", caches["sd15"])
    with pytest.raises(error, match=told):
        run(dataclasses.replace(request, **change(request, caches["sd15"])), tmp_path)
