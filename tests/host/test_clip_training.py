"""Clips through a whole training: real video files, ComfyUI's VAEs and networks, masks that move, pictures beside."""

import dataclasses
import io

import comfy.sample
import numpy as np
import pytest
import torch
from PIL import Image

from harness.clips import write_clip
from harness.models import HashedText
from harness.small import ALL, small_models, tried
from harness.training import make_cache, make_request, make_samples, picture_side
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.dataset.loading import from_images, load_dataset
from masklora.dataset.sample import merge
from masklora.errors import ConfigError
from masklora.host.estimating import Question, estimated
from masklora.host.families import families
from masklora.host.model.encoders import VaeEncoder
from masklora.host.training import train_lora
from masklora.runs.sample_pictures import SampleFolder, SampleSettings, look_of
from masklora.settings import CacheSettings, DatasetSettings, LossSettings
from masklora.training.job import Hooks

CLIPS = [n for n in tried() if any(f.rates for f in families() if f.name == small_models()[n].family)]
CLIPS = CLIPS if ALL else ["wan", "ltxv"]


def moving(count, side, *, seed):
    """uint8 frames (N, S, S, 3) of noise, and their masks: a square that goes from left to right."""
    frames = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    masks = np.zeros((count, side, side, 3), np.uint8)
    for i in range(count):
        left = (side // 2) * i // (count - 1)
        masks[i, side // 4 : 3 * side // 4, left : left + side // 2] = 255
    return frames, masks


def clips(folder, side, *, frames=9, count=2):
    for number in range(count):
        shown, masks = moving(frames, side, seed=number)
        write_clip(folder / f"clip{number}.mkv", shown)
        write_clip(folder / "masks" / f"clip{number}.mkv", masks)
        (folder / f"clip{number}.txt").write_text(f"a thing {number}", encoding="utf-8")
    return load_dataset(DatasetSettings(folder=str(folder)), allowed=lambda path: path)


def cached(name, dataset, **settings):
    side = picture_side(name)
    settings = {"resolution": side, "bucket_step": 32, "storage": "memory", "clip_frames": 9} | settings
    return build_cache(dataset, CacheSettings(**settings), encoder=VaeEncoder(small_vae(name)), text=HashedText(name))


def still(side):
    picture = np.random.default_rng(9).random((side, side, 3), dtype=np.float32)
    mask = np.zeros((side, side), np.float32)
    mask[: side // 2] = 1
    return from_images([picture] * 2, [mask] * 2, ["a thing 8", "a thing 9"])


class Heard(Hooks):
    """Hears every step, and stops after so many."""

    def __init__(self, stop_after=1000):
        self.steps, self.stop_after = [], stop_after

    def on_step(self, report):
        self.steps.append(report)

    def should_stop(self):
        return len(self.steps) >= self.stop_after


def run(request, runs, hooks=None):
    return train_lora(request, runs=runs, hooks=hooks or Hooks(), report=lambda text: None)


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """A cache of two clips for Wan."""
    return cached("wan", clips(tmp_path_factory.mktemp("walks"), picture_side("wan")))


@pytest.mark.parametrize("name", CLIPS)
def test_clips_and_pictures_train_in_one_run(name, tmp_path):
    side = picture_side(name)
    dataset = merge([clips(tmp_path / "set", side), still(side)])
    cache = cached(name, dataset)
    assert sorted(entry.latent_frames > 1 for entry in cache.entries) == [False, False, True, True]
    heard = Heard()
    trained = run(make_request(name, cache, steps=6, batch_size=2), tmp_path / "runs", heard)
    assert len(trained.result.losses) == 6
    shown = {name for one in heard.steps for name in one.samples}
    assert shown == {"clip0.mkv", "clip1.mkv", "picture-0001", "picture-0002"}
    for one in heard.steps:
        assert np.isfinite([one.loss, one.inside, one.outside]).all()
        # Of the square's motion the first and last frames reach half a picture; a still picture's mask is half.
        assert one.coverage == pytest.approx(0.5 if one.samples[0].startswith("picture") else 0.25, abs=0.02)


@pytest.mark.parametrize("change", [{"routes": "0.5: 0..-1"}, {"attention_mask": True}, {"frame_reduction": "max"}])
def test_what_meets_tokens_knows_the_frames(change, walks, tmp_path):
    request = make_request("wan", walks, steps=2, batch_size=2)
    plain = run(request, tmp_path / "plain")
    trained = run(dataclasses.replace(request, loss=LossSettings(**change)), tmp_path / "changed")
    assert np.isfinite(trained.result.losses).all()
    assert trained.result.losses != plain.result.losses


def test_a_clip_run_resumes_bit_for_bit(walks, tmp_path):
    request = make_request("wan", walks, steps=6, batch_size=1, save_every=2)
    whole = run(request, tmp_path / "whole")
    stopped = run(request, tmp_path / "parts", Heard(stop_after=3))
    assert not stopped.result.completed
    resumed = run(request, tmp_path / "parts")
    assert resumed.result.resumed_from == 3
    for name, tensor in whole.result.adapter.items():
        assert torch.equal(tensor, resumed.result.adapter[name]), name


def test_a_clip_that_is_masked_away_adds_nothing_and_is_told(tmp_path):
    side = picture_side("wan")
    dataset = clips(tmp_path / "set", side)
    _, masks = moving(9, side, seed=0)
    write_clip(tmp_path / "set" / "masks" / "clip0.mkv", np.zeros_like(masks))
    dataset = load_dataset(DatasetSettings(folder=str(tmp_path / "set")), allowed=lambda path: path)
    cache = cached("wan", dataset)
    assert any("clip0.mkv" in finding.text and "black" in finding.text for finding in cache.findings)
    heard = Heard()
    run(make_request("wan", cache, steps=4, batch_size=1), tmp_path / "runs", heard)
    gone = [one for one in heard.steps if one.samples == ("clip0.mkv",)]
    assert gone
    assert all(one.zero_weight_samples == 1 for one in gone)
    assert all(one.loss == one.prior for one in gone if one.prior is not None)


def test_a_model_of_pictures_takes_no_clips(tmp_path):
    side = picture_side("qwen_image")
    with pytest.raises(ConfigError, match=r"clip_frames: clip0\.mkv would be learned as 9 frames"):
        run(make_request("qwen_image", cached("qwen_image", clips(tmp_path / "set", side))), tmp_path / "runs")


def test_the_work_of_a_step_grows_with_the_frames(walks):
    plans = []
    for frames in (0, 3):
        entries = tuple(dataclasses.replace(entry, latent_frames=frames) for entry in walks.entries)
        request = make_request("wan", dataclasses.replace(walks, entries=entries))
        asked = Question(request.model, request.cache, loss=request.loss, adapter=request.adapter, train=request.train)
        plans.append(estimated(asked)[0])
    # Three times the image tokens, and the text as before.
    assert plans[0].flops * 1.2 < plans[1].flops < plans[0].flops * 3
    assert plans[1].kept > plans[0].kept


def shown(png):
    """uint8 (F, H, W, 3) of an animated PNG, and milliseconds of a frame."""
    image = Image.open(io.BytesIO(png))
    frames = []
    for number in range(image.n_frames):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames), image.info.get("duration")


def drawn_by_core(model, samples, frames):
    """What ComfyUI's own sampler and VAE make of the request, without anything of ours."""
    settings = samples.settings
    stride = samples.vae.spacial_compression_decode()
    latent = torch.zeros(1, samples.vae.latent_channels, frames, settings.height // stride, settings.width // stride)
    options = settings.steps, settings.cfg, settings.sampler, settings.scheduler
    noise = comfy.sample.prepare_noise(latent, settings.seed)
    with torch.inference_mode():
        drawn = comfy.sample.sample(
            model, noise, *options, samples.positive[0], samples.negative, latent, seed=settings.seed
        )
        pictures = samples.vae.decode(drawn)[0]
    return np.rint(pictures.clamp(0, 1).numpy() * 255)


@pytest.mark.parametrize("name", ["wan", "ltxv", "hunyuan_video15"] if ALL else ["wan"])
def test_sample_clips_are_those_of_comfyui_and_move(name, tmp_path):
    request = make_request(name, cached(name, clips(tmp_path / "set", picture_side(name))), steps=2, batch_size=1)
    samples = make_samples(name, frames=10)
    trained = run(dataclasses.replace(request, samples=samples), tmp_path / "runs")
    stride = samples.vae.temporal_compression_decode()
    latent_frames = 1 + 9 // stride
    folder = SampleFolder(trained.result.folder)
    base, duration = shown(folder.read(0, 0))
    last, _ = shown(folder.read(2, 0))
    assert (
        base.shape
        == last.shape
        == (1 + stride * (latent_frames - 1), samples.settings.height, samples.settings.width, 3)
    )
    assert duration == pytest.approx({"wan": 62.5, "ltxv": 40, "hunyuan_video15": 1000 / 24}[name], abs=1)
    assert np.abs(base[0].astype(int) - base[-1]).max() > 4
    assert np.abs(base.astype(int) - last).max() > 0
    assert np.abs(base - drawn_by_core(make_request(name, request.cache).model, samples, latent_frames)).max() <= 1


def test_sample_clips_of_a_model_of_pictures_are_refused(tmp_path):
    request = dataclasses.replace(make_request("flux", make_cache("flux")), samples=make_samples("flux", frames=5))
    with pytest.raises(ConfigError, match=r"frames: .* draws pictures"):
        run(request, tmp_path / "runs")


def test_sample_pictures_of_before_stay_where_no_clip_is_asked_for():
    settings = SampleSettings(prompts=("a",))
    before = {key: value for key, value in dataclasses.asdict(settings).items() if key != "frames"}
    assert look_of(before) == look_of(dataclasses.asdict(settings))
    assert look_of(before) != look_of(dataclasses.asdict(dataclasses.replace(settings, frames=9)))


@pytest.mark.parametrize(("name", "told"), [("wan21_i2v", True), ("wan", False)])
def test_a_model_that_continues_a_picture_is_told_apart(name, told, walks, tmp_path):
    heard = []
    never = dataclasses.replace(walks, settings=dataclasses.replace(walks.settings, first_frame="never"))
    request = make_request(name, never, steps=1, batch_size=1)
    train_lora(request, runs=tmp_path / "runs", hooks=Hooks(), report=heard.append)
    assert ("from a first frame" in str(heard)) is told
