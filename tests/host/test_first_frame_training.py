"""Whole trainings of models that continue a picture: from clips in files to the sample clips, and what is told."""

import dataclasses
import io

import comfy.sample
import comfy_extras.nodes_cosmos
import comfy_extras.nodes_kandinsky5
import comfy_extras.nodes_lt
import comfy_extras.nodes_wan
import numpy as np
import pytest
import torch
from PIL import Image

from harness.clips import write_clip
from harness.models import HashedText, small_model
from harness.small import ALL
from harness.training import make_cache, make_request, make_samples, picture_side, pictures
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import merge
from masklora.errors import ConfigError, FamilyError, MaskError
from masklora.generators.apply import Watch
from masklora.host.model.encoders import VaeEncoder
from masklora.host.model.fitting import wants_starts
from masklora.host.outputs import runs_folder
from masklora.host.strengths import Wanted, draw_run
from masklora.host.training import train_lora
from masklora.runs.sample_pictures import SampleFolder
from masklora.settings import CacheSettings, DatasetSettings, LossSettings
from masklora.training.job import Hooks

FRAMES = 9


def walking(side, seed=0):
    """uint8 frames (9, S, S, 3), and their masks: a square that goes from left to right."""
    frames = np.random.default_rng(seed).integers(0, 256, (FRAMES, side, side, 3), dtype=np.uint8)
    masks = np.zeros_like(frames)
    for i in range(FRAMES):
        left = (side // 2) * i // (FRAMES - 1)
        masks[i, side // 4 : 3 * side // 4, left : left + side // 2] = 255
    return frames, masks


def clips(folder, side, *, masks=None, count=2):
    for number in range(count):
        frames, own = walking(side, number)
        write_clip(folder / f"clip{number}.mkv", frames)
        write_clip(folder / "masks" / f"clip{number}.mkv", own if masks is None else masks)
    return load_dataset(DatasetSettings(folder=str(folder)), allowed=lambda path: path)


def cached(name, dataset, first_frame="auto", *, starts=None, **changes):
    """As Cache Dataset builds it with the model connected."""
    usual = {"resolution": picture_side(name), "bucket_step": 32, "storage": "memory", "clip_frames": FRAMES}
    settings = CacheSettings(**usual, first_frame=first_frame, **changes)
    wanted = wants_starts(small_model(name), first_frame=first_frame, clips=True)
    encoder = VaeEncoder(small_vae(name))
    encoder.rule = dataclasses.replace(encoder.rule, starts=wanted if starts is None else starts)
    return build_cache(dataset, settings, encoder=encoder, text=HashedText(name))


class Heard(Hooks):
    def __init__(self, stop_after=1000):
        self.steps, self.stop_after = [], stop_after

    def on_step(self, report):
        self.steps.append(report)

    def should_stop(self):
        return len(self.steps) >= self.stop_after


def run(request, runs, hooks=None, told=None):
    told = [] if told is None else told
    return train_lora(request, runs=runs, hooks=hooks or Heard(), report=lambda finding: told.append(finding.text))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return clips(tmp_path_factory.mktemp("walks"), picture_side("wan"))


@pytest.fixture(scope="module")
def given(dataset):
    return cached("wan21_i2v", dataset)


def test_a_run_tells_it_once_measures_what_is_learned_and_resumes_bit_for_bit(given, tmp_path):
    request = make_request("wan21_i2v", given, steps=4, batch_size=1, save_every=2)
    told, heard = [], Heard()
    whole = run(request, tmp_path / "whole", heard, told)
    assert sum("neither learned" in text for text in told) == 1
    assert sum("CLIP vision" in text for text in told) == 1
    assert whole.plan.fault == ""
    for one in heard.steps:
        assert np.isfinite([one.loss, one.inside, one.outside]).all()
    stopped = run(request, tmp_path / "parts", Heard(stop_after=2))
    assert not stopped.result.completed
    resumed = run(request, tmp_path / "parts")
    assert resumed.result.resumed_from == 2
    for name, tensor in whole.result.adapter.items():
        assert torch.equal(tensor, resumed.result.adapter[name]), name


def test_the_first_frame_s_mask_teaches_nothing(dataset, tmp_path):
    """Two runs whose data differ in the first frame's mask alone end alike; of a model that is not given it, apart."""
    other = clips(tmp_path / "set", picture_side("wan"), masks=_without_first(walking(picture_side("wan"))[1]))
    for setting, alike in (("auto", True), ("never", False)):
        ends = []
        for number, data in enumerate((dataset, other)):
            # What replaces the background in the first frame hangs on that mask, too.
            cache = cached("wan21_i2v", data, setting, infill_variants=0)
            request = make_request("wan21_i2v", cache, steps=2, batch_size=1)
            ends.append(run(request, tmp_path / f"{setting}{number}").result.losses)
        assert (ends[0] == ends[1]) is alike


def _without_first(masks):
    masks = masks.copy()
    masks[0] = 0
    return masks


@pytest.mark.parametrize(
    "name", ["wan22_5b", "ltxv", "ltxav", "hunyuan_video15", "kandinsky5"] if ALL else ["wan22_5b"]
)
def test_models_that_do_both_are_given_it_only_where_that_is_chosen(name, tmp_path):
    data = clips(tmp_path / "set", picture_side(name))
    found = {}
    for setting in ("auto", "never", "always"):
        told = []
        request = make_request(name, cached(name, data, setting), steps=2, batch_size=1)
        # A run with the first frame is another one than that of the same settings without it.
        trained = run(request, tmp_path / ("auto" if setting == "always" else setting), told=told)
        found[setting] = trained.result.losses
        assert not trained.result.loaded
        # What is given is counted with the step's memory.
        assert trained.plan.fault == ""
        assert any("neither learned" in text for text in told) is (setting == "always")
        assert any("as from text alone" in text for text in told) is (setting == "auto")
    assert found["auto"] == found["never"] != found["always"]


def test_cosmos_which_only_continues_is_given_it_unless_that_is_switched_off(tmp_path):
    data = clips(tmp_path / "set", picture_side("cosmos_predict2_i2v"))
    found = {}
    for setting in ("auto", "never", "always"):
        told = []
        request = make_request(
            "cosmos_predict2_i2v", cached("cosmos_predict2_i2v", data, setting), steps=2, batch_size=1
        )
        trained = run(request, tmp_path / ("never" if setting == "never" else "given"), told=told)
        found[setting] = trained.result.losses
        assert any("neither learned" in text for text in told) is (setting != "never")
        assert any("makes clips from a first frame" in text for text in told) is (setting == "never")
    assert found["auto"] == found["always"] != found["never"]


def test_a_picture_in_a_run_of_a_model_that_continues_pictures_is_told(dataset, tmp_path):
    both = merge([dataset, pictures(1, side=picture_side("wan"))])
    told = []
    run(make_request("wan21_i2v", cached("wan21_i2v", both), steps=2, batch_size=1), tmp_path / "runs", told=told)
    assert any("1 picture is learned as from text alone" in text for text in told)
    with pytest.raises(ConfigError, match=r"first_frame: picture-0001 is one frame, .* nothing is left to learn"):
        run(make_request("wan21_i2v", cached("wan21_i2v", both, "always")), tmp_path / "runs")


def test_a_cache_without_first_frames_is_an_error_and_never_trains_as_from_text(dataset, tmp_path):
    cache = cached("wan21_i2v", dataset, starts=False)
    with pytest.raises(ConfigError, match=r"first_frame: .* without the first frames\. Connect the MODEL"):
        run(make_request("wan21_i2v", cache), tmp_path / "runs")
    told = []
    cache = cached("wan21_i2v", dataset, "never")
    run(make_request("wan21_i2v", cache, steps=1, batch_size=1), tmp_path / "runs", told=told)
    assert any("makes clips from a first frame" in text for text in told)


def test_a_model_for_text_is_given_none(dataset, tmp_path):
    with pytest.raises(ConfigError, match="first_frame: this Wan model is given no first frame here"):
        run(make_request("wan", cached("wan", dataset, "always")), tmp_path / "runs")


def test_a_model_that_reads_a_picture_in_another_way_is_refused(tmp_path):
    request = make_request("sd3", make_cache("sd3"))
    # As ComfyUI's models for image to video keep names there.
    request.model.model.concat_keys = ("mask_inverted",)
    with pytest.raises(FamilyError, match="reads a picture beside the noise"):
        run(request, tmp_path / "runs")


def test_routes_and_noise_told_by_frame_do_not_go_together(tmp_path):
    cache = cached("wan22_5b", clips(tmp_path / "set", picture_side("wan22_5b")), "always")
    request = dataclasses.replace(make_request("wan22_5b", cache), loss=LossSettings(routes="0.5: 0..-1"))
    with pytest.raises(ConfigError, match="routes: Wan tells its blocks the noise of each frame apart"):
        run(request, tmp_path / "runs")


@pytest.mark.parametrize("change", [{"routes": "0.5: 0..-1"}, {"attention_mask": True}])
def test_tokens_are_dropped_and_hidden_beside_a_first_frame(change, given, tmp_path):
    request = make_request("wan21_i2v", given, steps=1, batch_size=1)
    trained = run(dataclasses.replace(request, loss=LossSettings(**change)), tmp_path / "runs")
    assert np.isfinite(trained.result.losses).all()


def test_masks_that_end_with_the_first_frame_are_told(tmp_path):
    side = picture_side("wan")
    masks = walking(side)[1]
    masks[1:] = 0
    data = clips(tmp_path / "set", side, masks=masks)
    with pytest.raises(MaskError, match=r"No clip has a mask beyond its first frame, beginning with clip0\.mkv"):
        run(make_request("wan21_i2v", cached("wan21_i2v", data)), tmp_path / "runs")
    write_clip(tmp_path / "set" / "masks" / "clip1.mkv", walking(side)[1])
    data = load_dataset(DatasetSettings(folder=str(tmp_path / "set")), allowed=lambda path: path)
    told = []
    run(make_request("wan21_i2v", cached("wan21_i2v", data), steps=1, batch_size=1), tmp_path / "runs", told=told)
    assert any("clip0.mkv" in text and "is empty after it" in text for text in told)


def shown(png):
    image = Image.open(io.BytesIO(png))
    frames = []
    for number in range(image.n_frames):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


@pytest.mark.parametrize("name", ["wan21_i2v", "wan22_5b", "cosmos_predict2_i2v", "kandinsky5", "ltxav"])
def test_sample_clips_are_those_that_comfyui_makes_of_a_clip_s_first_frame(name, tmp_path):
    data = clips(tmp_path / "set", picture_side(name))
    request = make_request(name, cached(name, data, "always"), steps=2, batch_size=1)
    samples = make_samples(name, frames=FRAMES)
    told = []
    trained = run(dataclasses.replace(request, samples=samples), tmp_path / "runs", told=told)
    assert any("begins with the first frame" in text for text in told)
    folder = SampleFolder(trained.result.folder)
    for number in (0, 1):
        first = torch.from_numpy(walking(picture_side(name), number)[0][:1]).float() / 255
        want = drawn_by_comfyui(name, samples, number, first)
        got = shown(folder.read(0, number)).astype(int)
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= 1


@pytest.mark.parametrize("first_frame", ["always", "never"])
def test_clips_that_are_drawn_afterwards_without_the_first_frame_are_a_warning(first_frame, tmp_path):
    data = clips(tmp_path / "set", picture_side("wan22_5b"))
    request = make_request(
        "wan22_5b", cached("wan22_5b", data, first_frame), steps=1, batch_size=1, name=f"bare {first_frame}"
    )
    samples = make_samples("wan22_5b", frames=FRAMES)
    with torch.inference_mode():
        trained = train_lora(request, runs=runs_folder(), hooks=Hooks(), report=lambda one: None)
        wanted = Wanted(trained.result.folder.name, "", "1")
        _, found = draw_run(request.model, samples, wanted, Watch())
    bare = [one for one in found if "drawn as from text alone" in one.text]
    assert [one.level for one in bare] == (["warning"] if first_frame == "always" else [])


def drawn_by_comfyui(name, samples, number, first):
    """What ComfyUI's own node, sampler and VAE make of a prompt and a first frame."""
    settings, vae = samples.settings, samples.vae
    sizes = {"width": settings.width, "height": settings.height, "length": FRAMES, "batch_size": 1}
    positive, negative = samples.positive[number], samples.negative
    with torch.inference_mode():
        kept = None
        if name == "wan22_5b":
            latent = comfy_extras.nodes_wan.Wan22ImageToVideoLatent.execute(vae, **sizes, start_image=first)[0]
        elif name == "cosmos_predict2_i2v":
            node = comfy_extras.nodes_cosmos.CosmosPredict2ImageToVideoLatent
            latent = node.execute(vae, **sizes, start_image=first)[0]
        elif name == "kandinsky5":
            node = comfy_extras.nodes_kandinsky5.Kandinsky5ImageToVideo
            positive, negative, latent, kept = node.execute(positive, negative, vae, **sizes, start_image=first).result
        elif name == "ltxav":
            node = comfy_extras.nodes_lt.LTXVImgToVideo
            positive, negative, latent = node.execute(positive, negative, first, vae, **sizes, strength=1.0).result
        else:
            made = comfy_extras.nodes_wan.WanImageToVideo.execute(positive, negative, vae, **sizes, start_image=first)
            positive, negative, latent = made[0], made[1], made[2]
        model = small_model(name)
        begun = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
        noise = comfy.sample.prepare_noise(begun, settings.seed)
        options = settings.steps, settings.cfg, settings.sampler, settings.scheduler
        told = {"noise_mask": latent.get("noise_mask"), "seed": settings.seed}
        drawn = comfy.sample.sample(model, noise, *options, positive, negative, begun, **told)
        if kept is not None:
            # As ComfyUI's template of such a model does behind the sampler.
            drawn[:, :, :1] = kept["samples"]
        pictures = vae.decode(drawn)[0]
    return np.rint(pictures.clamp(0, 1).numpy() * 255)
