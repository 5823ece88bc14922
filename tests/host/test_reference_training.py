"""Whole trainings of models that edit pictures: from references in files to the sample pictures, and what is told."""

import dataclasses
import io

import comfy.sample
import numpy as np
import pytest
import torch
from PIL import Image

from harness.damage import ALL
from harness.models import HashedText, SeeingText, small_model
from harness.training import make_request, make_samples, picture_side
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.dataset.loading import load_dataset
from masklora.errors import ConfigError, FamilyError
from masklora.host.estimating import training_of
from masklora.host.memory.step import count_step
from masklora.host.model.adapted import AdaptedModel
from masklora.host.model.encoders import VaeEncoder
from masklora.host.model.fitting import reference_rule
from masklora.host.resolving import resolve
from masklora.host.training import train_lora
from masklora.runs.sample_pictures import SampleFolder
from masklora.settings import AS_TARGET, OWN_SIZE, CacheSettings, CaptionSettings, DatasetSettings, LossSettings
from masklora.training.batches import EMPTY_CAPTION, BatchPlan, Draw
from masklora.training.job import Hooks
from masklora.training.microbatch import Feed

TRIGGER = "zwx"


def pairs(folder, side, *, count=2, references=1, wide=0):
    """Pictures with masks and so many references; the first `wide` of them have references twice as wide as high."""
    rng = np.random.default_rng(3)
    for number in range(count):
        mask = np.zeros((side, side), np.uint8)
        mask[side // 4 :, : side // 2] = 255
        shown = [(side, 2 * side) if number < wide else (side, side)] * references
        files = {"pictures": rng.integers(0, 256, (side, side, 3), dtype=np.uint8), "masks": mask}
        files |= {f"references{i}": rng.integers(0, 256, (*size, 3), dtype=np.uint8) for i, size in enumerate(shown)}
        for place, pixels in files.items():
            (folder / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / place / f"{number}.png")
        (folder / "pictures" / f"{number}.txt").write_text(f"{TRIGGER} make it {number}", encoding="utf-8")
    beside = "\n".join(str(folder / f"references{i}") for i in range(references))
    given = DatasetSettings(
        folder=str(folder / "pictures"),
        mask_folder=str(folder / "masks"),
        reference_folders=beside,
        caption=CaptionSettings(trigger=TRIGGER),
    )
    return load_dataset(given, allowed=lambda path: path)


def cached(name, dataset, *, size=OWN_SIZE, text=None, **changes):
    usual = {"resolution": picture_side(name), "bucket_step": 32, "storage": "memory", "reference_size": size}
    settings, encoder = CacheSettings(**usual, **changes), VaeEncoder(small_vae(name))
    return build_cache(dataset, settings, encoder=encoder, text=text or HashedText(name))


class Heard(Hooks):
    def __init__(self, stop_after=1000):
        self.steps, self.stop_after, self.held = [], stop_after, []

    def on_step(self, report):
        self.steps.append(report)

    def on_validation(self, step, loss):
        self.held.append(loss)

    def should_stop(self):
        return len(self.steps) >= self.stop_after


def run(request, runs, hooks=None, told=None):
    told = [] if told is None else told
    # Of what is measured at the end other tests tell.
    request = dataclasses.replace(request, train=dataclasses.replace(request.train, leak_every=-1))
    return train_lora(request, runs=runs, hooks=hooks or Heard(), report=lambda finding: told.append(finding.text))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return pairs(tmp_path_factory.mktemp("pairs"), picture_side("flux"), references=2)


@pytest.fixture(scope="module")
def given(dataset):
    return cached("flux", dataset, infill_variants=1)


def test_every_pass_sees_the_references_the_prior_s_and_the_preservation_s_too(given, tmp_path):
    request = make_request("flux", given, steps=1, validation_share=0.5, validate_every=1)
    loss = LossSettings(preset="custom", prior_weight=1.0, preservation_weight=1.0, preservation_probability=1.0)
    seen = []
    network = request.model.model.diffusion_model
    look = lambda _, args, said: seen.append(said.get("ref_latents"))  # noqa: E731
    hook = network.register_forward_pre_hook(look, with_kwargs=True)
    heard = Heard()
    try:
        run(dataclasses.replace(request, loss=loss), tmp_path, heard)
    finally:
        hook.remove()
    # The base and the adapted model, for the caption and for the one without trigger; and the held-out ones.
    assert len(seen) > 4 and heard.held and np.isfinite(heard.held).all()
    assert all(shown is not None and len(shown) == 2 for shown in seen)


def test_a_run_with_references_tells_them_and_resumes_bit_for_bit(given, tmp_path):
    request = make_request("flux", given, steps=2, batch_size=1, save_every=1)
    told, heard = [], Heard()
    whole = run(request, tmp_path / "whole", heard, told)
    assert sum("neither learned nor dropped" in text for text in told) == 1
    assert whole.plan.fault == ""
    stopped = run(request, tmp_path / "parts", Heard(stop_after=1))
    assert not stopped.result.completed
    resumed = run(request, tmp_path / "parts")
    assert resumed.result.resumed_from == 1
    assert all(torch.equal(tensor, resumed.result.adapter[name]) for name, tensor in whole.result.adapter.items())


@pytest.mark.skipif(not ALL, reason="with --all: what the network is given of references is tested without a training")
def test_other_references_are_another_training(given, tmp_path):
    other = pairs(tmp_path / "set", picture_side("flux"), references=1)
    caches = given, cached("flux", other, infill_variants=1)
    losses = [run(make_request("flux", one, steps=1), tmp_path / f"{i}").result.losses for i, one in enumerate(caches)]
    assert losses[0] != losses[1]


def test_references_of_unlike_shapes_are_never_in_one_batch(tmp_path):
    cache = cached("flux", pairs(tmp_path, picture_side("flux"), count=4, wide=2))
    sizes = [entry.reference_sizes for entry in cache.entries]
    assert len(set(sizes)) == 2 and len({entry.bucket for entry in cache.entries}) == 1
    plan = BatchPlan(cache.entries, 2, 0)
    for number in range(12):
        assert len({sizes[draw.entry] for draw in plan.batch(number)}) == 1
    assert np.isfinite(run(make_request("flux", cache, steps=1), tmp_path / "runs").result.losses).all()


def test_references_of_a_model_that_takes_none_are_refused_and_one_that_needs_some_says_so(dataset, tmp_path):
    with pytest.raises(FamilyError, match=r"0\.png has a reference.*Stable Diffusion 3 model takes none.*FLUX\.2"):
        resolve(make_request("sd3", cached("sd3", dataset)))
    with pytest.raises(FamilyError, match=r"FLUX.1 model takes none"):
        resolve(make_request("flux_fill", cached("flux_fill", dataset)))
    bare = load_dataset(dataclasses.replace(dataset.samples[0].settings, reference_folders=""), allowed=lambda p: p)
    with pytest.raises(ConfigError, match=r"JoyImage edits a reference picture, and .* has none"):
        resolve(make_request("joyimage", cached("joyimage", bare)))
    with pytest.raises(ConfigError, match=r"2 reference pictures, and LongCat-Image takes 1\."):
        resolve(make_request("longcat_image", cached("longcat_image", dataset)))


def test_captions_that_were_made_without_the_references_are_refused_where_the_model_s_are_made_with_them(dataset):
    with pytest.raises(ConfigError, match=r"Qwen-Image is shown the reference.*Connect the MODEL to Cache Dataset"):
        resolve(make_request("qwen_image", cached("qwen_image", dataset)))
    resolve(make_request("qwen_image", cached("qwen_image", dataset, text=SeeingText("qwen_image", "qwen edit plus"))))


def test_an_empty_caption_is_the_one_that_was_seen_with_the_references(dataset):
    cache = cached("qwen_image", dataset, text=SeeingText("qwen_image", "qwen edit plus"))
    trainable, settings = resolve(make_request("qwen_image", cache))
    adapted = AdaptedModel(trainable, trainable.make_adapters(settings.adapter, seed=0))
    with torch.inference_mode(False):
        batch = Feed(cache, LossSettings(), model=adapted).make([Draw(0, 0, EMPTY_CAPTION), Draw(1, 0, EMPTY_CAPTION)])
    for number, entry in enumerate(cache.entries[:2]):
        assert torch.equal(batch.conditioning[number]["c_crossattn"], cache.text(entry.empty_key)["cond"])
    assert cache.entries[0].empty_key != cache.entries[1].empty_key


def test_the_rule_of_a_cache_is_that_of_the_family():
    rules = {name: reference_rule(small_model(name)) for name in ("flux", "mage_flow", "sd15", "flux_fill")}
    assert rules["flux"].own_size and rules["flux"].pictures == ""
    assert not rules["mage_flow"].own_size and rules["mage_flow"].pictures == "mage"
    assert rules["sd15"] == rules["flux_fill"] == reference_rule(None)


def test_the_memory_plan_counts_the_tokens_of_references(given):
    trainable, settings = resolve(make_request("flux", given))
    adapters = trainable.make_adapters(settings.adapter, seed=0)
    step = training_of(trainable, adapters, settings, given).step
    assert step.references == (step.grid,) * 2
    bare = dataclasses.replace(step, references=())
    with_, without = (count_step(trainable, adapters, one) for one in (step, bare))
    assert with_.kept > without.kept and with_.work > 1.2 * without.work
    assert with_.forward_flops > 1.2 * without.forward_flops


def test_sample_pictures_with_references_are_those_of_comfyui(given, tmp_path):
    plain = make_samples("krea2", every=0, steps=1)
    shown = torch.randn(1, 16, 1, 6, 8, generator=torch.Generator().manual_seed(2))
    with_ = [[[cond, {**extra, "reference_latents": [shown]}] for cond, extra in one] for one in plain.positive]
    asked = dataclasses.replace(plain, positive=with_, negatives=tuple(with_))
    dataset = pairs(tmp_path / "set", picture_side("krea2"))
    cache = cached("krea2", dataset, text=SeeingText("krea2", "qwen edit plus"), size=AS_TARGET)
    request = dataclasses.replace(make_request("krea2", cache, steps=1), samples=asked)
    told = []
    folder = SampleFolder(run(request, tmp_path / "runs", told=told).result.folder)
    assert not any("sample pictures have none" in text for text in told)
    height, width = asked.settings.height, asked.settings.width
    # As ComfyUI's template of such a model places them.
    said = [[[c, {**e, "reference_latents_method": "index_timestep_zero"}] for c, e in one] for one in with_]
    with torch.inference_mode():
        empty = comfy.sample.fix_empty_latent_channels(request.model, torch.zeros(1, 16, height // 8, width // 8))
        noise = comfy.sample.prepare_noise(empty, 0)
        drawn = comfy.sample.sample(
            request.model, noise, 1, 2.0, "euler", "normal", said[1], said[1], empty, disable_pbar=True, seed=0
        )
        image = asked.vae.decode(drawn).reshape(-1, height, width, 3)[0]
    expected = np.rint(image.clamp(0, 1).numpy() * 255)
    assert (expected == np.asarray(Image.open(io.BytesIO(folder.read(0, 1))))).all()


def test_sample_pictures_without_references_are_a_warning_and_with_them_of_another_model_refused(given, tmp_path):
    told, request = [], make_request("flux", given, steps=1)
    run(dataclasses.replace(request, samples=make_samples("flux", every=0)), tmp_path, told=told)
    assert sum("sample pictures have none" in text for text in told) == 1
    samples = _beside(make_samples("sd3", every=0), count=1)
    several = dataclasses.replace(request, samples=_beside(make_samples("flux", every=0), count=17))
    with pytest.raises(ConfigError, match=r"17 reference pictures, and FLUX.1 takes 16\."):
        resolve(several)
    bare = load_dataset(dataclasses.replace(_settings(given), reference_folders=""), allowed=lambda p: p)
    with pytest.raises(FamilyError, match=r"Stable Diffusion 3 takes no reference pictures. Disconnect"):
        resolve(dataclasses.replace(make_request("sd3", cached("sd3", bare)), samples=samples))


def test_a_model_that_makes_nothing_without_a_reference_draws_no_sample_pictures_without(tmp_path):
    side, seen = picture_side("joyimage"), SeeingText("joyimage", "joyimage")
    request = make_request("joyimage", cached("joyimage", pairs(tmp_path / "set", side), text=seen), steps=1)
    given = make_samples("joyimage", every=0)
    bare = dataclasses.replace(request, samples=dataclasses.replace(given, positive=make_samples("flux").positive))
    with pytest.raises(ConfigError, match=r"samples: JoyImage edits a reference picture, and the prompts have none"):
        run(bare, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    resolve(dataclasses.replace(request, samples=given))


def _beside(samples, *, count):
    shown = [torch.zeros(1, 16, 8, 8)] * count
    told = [[[cond, {**extra, "reference_latents": shown}] for cond, extra in one] for one in samples.positive]
    return dataclasses.replace(samples, positive=told)


def _settings(cache):
    return cache.samples[0].settings
