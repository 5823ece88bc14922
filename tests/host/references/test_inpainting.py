"""Models for inpainting are shown what ComfyUI's InpaintModelConditioning shows them: mask and picture, cut alike."""

import dataclasses
import io

import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import numpy as np
import pytest
import torch
from PIL import Image

from harness.damage import ALL
from harness.models import HashedText, small_model
from harness.training import make_cache, make_request, make_samples
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.dataset.loading import from_images
from masklora.dataset.sample import LoadedSample
from masklora.errors import ConfigError
from masklora.generators.apply import Watch
from masklora.host.model.adapted import AdaptedModel
from masklora.host.model.encoders import VaeEncoder
from masklora.host.model.fitting import wants_cut_outs
from masklora.host.outputs import runs_folder
from masklora.host.references.filling import Filling, filling
from masklora.host.resolving import resolve
from masklora.host.strengths import Wanted, draw_run
from masklora.host.training import train_lora
from masklora.runs.sample_pictures import SampleFolder
from masklora.settings import CacheSettings, DatasetSettings, LossSettings
from masklora.training.batches import Draw
from masklora.training.job import Hooks
from masklora.training.microbatch import Feed
from nodes import InpaintModelConditioning

# ComfyUI knows a checkpoint for inpainting by its nine channels.
MODELS = {"flux_fill": {}, "sd15": {"given": 9}}
# Which channels beside the noise are the picture's; the others are the mask's.
PICTURES = {"flux_fill": torch.arange(16), "sd15": torch.arange(1, 5)}
SIDE = 64


def model_of(name):
    return small_model(name, **MODELS[name])


def cached(name, *, model=None, mask=None, **changes):
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.float32) / 255 for _ in range(2)]
    # Soft at its edge, where rounding decides what is cut out.
    usual = np.zeros((SIDE, SIDE), np.float32)
    usual[8:40, 16:48], usual[40:44, 16:48] = 1.0, 64 / 255
    dataset = from_images(images, [usual if mask is None else mask] * 2, ["a", "b"], DatasetSettings())
    encoder = VaeEncoder(small_vae(name))
    encoder.rule = dataclasses.replace(encoder.rule, cut_outs=wants_cut_outs(model or model_of(name)))
    settings = CacheSettings(resolution=SIDE, bucket_step=32, storage="memory", **changes)
    cache = build_cache(dataset, settings, encoder=encoder, text=HashedText(name))
    return cache, torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack([usual] * 2))


@pytest.mark.parametrize("name", MODELS)
def test_mask_and_picture_are_what_core_s_node_gives(name):
    cache, images, masks = cached(name)
    trainable, settings = resolve(dataclasses.replace(make_request(name, cache), model=model_of(name)))
    adapted = AdaptedModel(trainable, trainable.make_adapters(settings.adapter, seed=0))
    with torch.inference_mode(False):
        batch = Feed(cache, LossSettings(), model=adapted).make([Draw(0, 0, 0), Draw(1, 0, 0)])
    with torch.inference_mode():
        text = [[torch.zeros(1, 8, 768), {"pooled_output": torch.zeros(1, 768)}]]
        for number in range(2):
            one = slice(number, number + 1)
            node = InpaintModelConditioning().encode(text, text, images[one], small_vae(name), masks[one])
            conds = {"positive": comfy.sampler_helpers.convert_cond(node[0])}
            noise = torch.zeros_like(batch.latents[one])
            made = comfy.samplers.process_conds(trainable.model, noise, conds, noise.device, noise, None, 0)
            (given,) = made["positive"]
            expected = given["model_conds"]["c_concat"].cond
            found, picture = batch.conditioning[number]["c_concat"], PICTURES[name]
            # The VAE encodes two pictures at once here.
            assert torch.allclose(found[:, picture], expected[:, picture], rtol=0, atol=1e-5)
            there = torch.ones(expected.shape[1], dtype=torch.bool).index_fill(0, picture, False)
            assert torch.equal(found[:, there], expected[:, there])
            assert float(expected[:, picture].std()) > 0.05 and float(expected[:, there].std()) > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_what_is_to_be_filled_in_is_nowhere_in_what_the_model_is_shown(name):
    """Two pictures that differ in the mask alone are cut out alike, and their latents are not."""
    cache, images, masks = cached(name)
    entry = cache.entries[0]
    other = images.clone()
    other[:, 8:40, 16:48] = 0.25
    dataset = from_images(list(other.numpy()), list(masks.numpy()), ["a", "b"], DatasetSettings())
    encoder = VaeEncoder(small_vae(name))
    encoder.rule = dataclasses.replace(encoder.rule, cut_outs=True)
    changed = build_cache(dataset, cache.settings, encoder=encoder, text=HashedText(name))
    assert torch.equal(cache.start(entry), changed.start(changed.entries[0]))
    assert not torch.equal(cache.latent(entry), changed.latent(changed.entries[0]))


def test_another_mask_is_another_picture_to_fill_in_and_the_same_latent():
    one, two = cached("sd15")[0], cached("sd15", mask=np.ones((SIDE, SIDE), np.float32))[0]
    assert one.entries[0].variants[0].latent == two.entries[0].variants[0].latent
    assert one.entries[0].variants[0].start != two.entries[0].variants[0].start
    # All of it is covered: nothing but grey is left.
    grey = VaeEncoder(small_vae("sd15")).encode(torch.full((1, SIDE, SIDE, 3), 0.5))[0]
    assert torch.allclose(two.start(two.entries[0]), grey, rtol=0, atol=1e-5)


def test_each_replaced_background_has_a_picture_to_fill_in_of_its_own():
    cache = cached("sd15", infill_variants=2)[0]
    (variant,) = cache.entries[0].variants
    assert len({variant.start, *variant.infill_starts}) == 3
    found = [cache.start(cache.entries[0], 0, infill) for infill in (-1, 0, 1)]
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


@pytest.mark.parametrize("name", MODELS)
def test_a_training_tells_what_is_shown_and_resumes_bit_for_bit(name, tmp_path):
    class Stop(Hooks):
        steps = 0

        def on_step(self, report):
            self.steps += 1

        def should_stop(self):
            return self.steps >= 1

    # Of what is measured at the end other tests tell.
    request = make_request(name, cached(name, infill_variants=1)[0], steps=2, save_every=1, leak_every=-1)
    request = dataclasses.replace(request, model=model_of(name))
    told = []

    def run(place, hooks=None):
        return train_lora(request, runs=tmp_path / place, hooks=hooks or Hooks(), report=lambda f: told.append(f.text))

    whole = run("whole")
    assert sum("InpaintModelConditioning shows" in text for text in told) == 1
    run("parts", Stop())
    resumed = run("parts")
    assert resumed.result.resumed_from == 1
    assert all(torch.equal(tensor, resumed.result.adapter[n]) for n, tensor in whole.result.adapter.items())


@pytest.mark.parametrize("name", MODELS)
def test_a_cache_without_what_the_model_is_shown_is_refused(name):
    cache = cached(name, model=small_model("sd3"))[0]
    with pytest.raises(ConfigError, match=r"fills in what a mask covers.*Connect the MODEL to Cache Dataset"):
        resolve(dataclasses.replace(make_request(name, cache), model=model_of(name)))


def test_a_cache_with_pictures_to_fill_in_trains_other_models_as_one_without():
    with_, without = cached("sd15")[0], make_cache("sd15")
    trainable, settings = resolve(make_request("sd15", with_))
    adapted = AdaptedModel(trainable, trainable.make_adapters(settings.adapter, seed=0))
    with torch.inference_mode(False):
        batch = Feed(with_, LossSettings(), model=adapted).make([Draw(0, 0, 0)])
    assert "c_concat" not in batch.conditioning[0]
    assert not any(variant.start for entry in without.entries for variant in entry.variants)


@pytest.mark.parametrize("name", MODELS if ALL else ["flux_fill"])
def test_sample_pictures_fill_in_the_pictures_that_are_learned_as_comfyui_does(name, tmp_path):
    cache, images, masks = cached(name)
    samples = make_samples(name, every=0, height=SIDE)
    request = dataclasses.replace(make_request(name, cache, steps=1), model=model_of(name), samples=samples)
    told = []
    with torch.inference_mode():
        trained = train_lora(request, runs=tmp_path, hooks=Hooks(), report=lambda one: told.append(one.text))
    assert sum("each fills in what the mask covers" in text for text in told) == 1
    folder, settings = SampleFolder(trained.result.folder), samples.settings
    for number in (0, 1):
        one = slice(number, number + 1)
        given = InpaintModelConditioning().encode(
            samples.positive[number], samples.negative, images[one], samples.vae, masks[one], noise_mask=False
        )
        with torch.inference_mode():
            empty = torch.zeros_like(given[2]["samples"])
            noise = comfy.sample.prepare_noise(empty, settings.seed)
            options = settings.steps, settings.cfg, settings.sampler, settings.scheduler
            drawn = comfy.sample.sample(model_of(name), noise, *options, *given[:2], empty, seed=settings.seed)
            picture = np.rint(samples.vae.decode(drawn)[0].clamp(0, 1).numpy() * 255)
        shown = np.asarray(Image.open(io.BytesIO(folder.read(0, number)))).astype(float)
        assert np.abs(shown - picture).max() <= 1


def test_pictures_that_are_drawn_afterwards_with_nothing_to_fill_in_are_a_warning():
    request = make_request("flux_fill", cached("flux_fill")[0], steps=1)
    samples = make_samples("flux_fill", steps=1)
    with torch.inference_mode():
        trained = train_lora(request, runs=runs_folder(), hooks=Hooks(), report=lambda one: None)
        _, found = draw_run(request.model, samples, Wanted(trained.result.folder.name, "", "1"), Watch())
    assert [one.level for one in found if "get pictures to fill in" in one.text] == ["warning"]


def test_without_any_mask_nothing_is_shown_to_fill_in(tmp_path):
    dataset = from_images([np.full((SIDE, SIDE, 3), 0.5, np.float32)], [None], ["a"], DatasetSettings())
    encoder = VaeEncoder(small_vae("sd15"))
    encoder.rule = dataclasses.replace(encoder.rule, cut_outs=True)
    settings = CacheSettings(resolution=SIDE, bucket_step=32, storage="memory")
    cache = build_cache(dataset, settings, encoder=encoder, text=HashedText("sd15"))
    assert filling(cache, make_samples("sd15")) == (None, [])


def test_a_picture_of_another_shape_is_cut_to_the_sample_s_around_its_mask():
    rgb, mask = np.zeros((SIDE, 4 * SIDE, 3), np.uint8), np.zeros((SIDE, 4 * SIDE), np.float32)
    rgb[:, 3 * SIDE :], mask[:, 3 * SIDE + 16 : 3 * SIDE + 48] = 255, 1.0
    filled = Filling([lambda: LoadedSample(rgb, mask, True, mask)], small_vae("sd15"))
    (((_, told),), *_) = filled.given(
        3, [[None, {}]], [[None, {}]], torch.zeros(1, 4, 8, 8), size=(SIDE, SIDE), frames=1
    )
    wanted = np.full((SIDE, SIDE, 3), 1.0, np.float32)
    wanted[:, 16:48] = 0.5
    assert torch.equal(told["concat_mask"][0, 0], torch.from_numpy(mask[:, 3 * SIDE :]))
    with torch.inference_mode():
        assert torch.allclose(told["concat_latent_image"], small_vae("sd15").encode(torch.from_numpy(wanted)[None]))
