"""A run's checkpoints drawn at several strengths: as the training drew them, and no picture twice."""

import dataclasses
import io
import zlib

import numpy as np
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from PIL import Image

from harness.models import small_model
from harness.training import Caches, make_request
from harness.training import make_samples as samples
from masklora.errors import AdapterError, ConfigError, RunError
from masklora.generators.apply import Watch
from masklora.host.outputs import runs_folder
from masklora.host.strengths import Wanted, draw_run, drawn_state
from masklora.host.training import train_lora
from masklora.runs.sample_pictures import SampleFolder
from masklora.settings import OptimizerSettings
from masklora.training.job import Hooks


@pytest.fixture(scope="module")
def caches():
    return Caches()


@pytest.fixture
def trained(caches):
    """A function that trains a family with pictures and checkpoints at steps 2 and 4: its request and folder."""

    def make(family, name):
        # A run is known by what it learns: another name alone would find the one of another test.
        seed = zlib.crc32(name.encode())
        request = make_request(family, caches[family], steps=4, name=name, seed=seed, save_every=2, keep_last=3)
        fast = OptimizerSettings(learning_rate=2e-2)
        request = dataclasses.replace(request, optimizer=fast, samples=samples(family))
        with torch.inference_mode():
            made = train_lora(request, runs=runs_folder(), hooks=Hooks(), report=lambda text: None)
        return request, made.result.folder

    return make


def draw(request, folder, steps="", strengths="1", **changes):
    watch = changes.pop("watch", Watch())
    request = dataclasses.replace(request, **changes)
    with torch.inference_mode():
        return draw_run(request.model, request.samples, Wanted(folder.name, steps, strengths), watch)


def pixels(folder, step, number, strength=1.0):
    return np.asarray(Image.open(io.BytesIO(SampleFolder(folder).read(step, number, strength)))).astype(float)


def told(findings):
    return "\n".join(one.text for one in findings)


@pytest.mark.parametrize("family", ["sd15", "sd3", "wan"])
def test_at_strength_one_a_picture_is_the_training_s_and_at_others_it_is_another(family, trained):
    request, folder = trained(family, f"strengths {family}")
    own = {(step, n): pixels(folder, step, n) for step in (2, 4) for n in (0, 1)}
    base = pixels(folder, 0, 0)
    for place in own:
        SampleFolder(folder).file(*place).unlink()
    shown, findings = draw(request, folder, strengths="0.5, 1")
    assert shown.shape == (8, *base.shape) and shown.min() >= 0 and shown.max() <= 1
    for (step, n), wanted in own.items():
        assert np.abs(pixels(folder, step, n) - wanted).max() <= 1
    assert np.abs(pixels(folder, 4, 0, 0.5) - own[4, 0]).max() > 1
    assert np.abs(pixels(folder, 4, 0, 0.5) - base).max() > 1
    order = [(step, n, strength) for step in (2, 4) for strength in (0.5, 1.0) for n in (0, 1)]
    assert all(
        np.allclose(one * 255, pixels(folder, *place), atol=0.01) for one, place in zip(shown, order, strict=True)
    )
    assert (pixels(folder, 0, 0) == base).all() and "8 pictures were drawn" in told(findings)


def test_what_is_there_is_not_drawn_again_and_what_is_gone_or_damaged_is(trained):
    request, folder = trained("sd3", "kept ones")
    first, _ = draw(request, folder, strengths="1, 0.5")
    kept = SampleFolder(folder)
    stamps = {one: one.stat().st_mtime_ns for one in kept.path.iterdir() if one.suffix == ".png"}
    shown, findings = draw(request, folder, steps="4, 2", strengths="0.5, 1")
    assert "none was drawn" in told(findings) and stamps == {one: one.stat().st_mtime_ns for one in stamps}
    wanted = first.reshape(2, 2, 2, *first.shape[1:]).flip(0, 1).flatten(0, 2)
    assert torch.equal(shown, wanted)
    kept.file(2, 0, 0.5).unlink()
    kept.file(4, 1).write_bytes(b"\x89PNG nothing")
    again, findings = draw(request, folder, strengths="1, 0.5")
    assert "2 pictures were drawn" in told(findings) and torch.allclose(again, first, atol=1.5 / 255)


def test_a_run_without_pictures_gets_the_base_model_s_too(trained):
    request, folder = trained("sd3", "without pictures")
    for one in SampleFolder(folder).path.iterdir():
        one.unlink()
    draw(request, folder, steps="4", strengths="0.8")
    assert SampleFolder(folder).pictures() == {0: [0, 1]} and SampleFolder(folder).pictures(0.8) == {4: [0, 1]}


def test_other_prompts_begin_a_new_set_and_say_so(trained):
    request, folder = trained("sd3", "another set")
    other = samples("sd3", seed=7)
    _, findings = draw(request, folder, samples=other)
    assert "put aside as samples-1" in told(findings) and findings[0].level == "warning"
    assert (folder / "samples-1" / "step_000004_0.png").is_file()
    _, findings = draw(request, folder, samples=other)
    assert "aside" not in told(findings)


def test_a_cancel_keeps_what_is_drawn(trained):
    request, folder = trained("sd3", "cancelled ones")

    def cancel():
        if SampleFolder(folder).pictures(0.5):
            raise InterruptProcessingException

    with pytest.raises(InterruptProcessingException):
        draw(request, folder, strengths="0.5", watch=Watch(check_cancel=cancel))
    assert SampleFolder(folder).pictures(0.5) == {2: [0]}
    _, findings = draw(request, folder, strengths="0.5")
    assert "3 pictures were drawn" in told(findings)


def test_a_lora_of_another_model_changes_nothing(trained):
    _, folder = trained("sd15", "of another model")
    before = sorted(folder.rglob("*.png"))
    with pytest.raises(AdapterError, match="model: it has none of the layers"):
        draw(make_request("sd3", None), folder, model=small_model("sd3"), samples=samples("sd3", seed=3))
    assert sorted(folder.rglob("*.png")) == before


def test_bad_steps_and_too_many_pictures_are_refused_by_their_widget(trained):
    request, folder = trained("sd3", "bad asks")
    for steps, error, words in (
        ("3, 2, 9", RunError, f"steps: {folder.name} has no checkpoint of step 3, 9, but of 2, 4"),
        ("two", ConfigError, "steps: expected whole numbers"),
    ):
        with pytest.raises(error, match=words):
            draw(request, folder, steps=steps)
    many = dataclasses.replace(request.samples, positive=request.samples.positive * 17)
    with pytest.raises(ConfigError, match=r"544 pictures \(2 steps × 8 strengths × 34 prompts\), and 512"):
        draw(request, folder, strengths="0, 1, 2, 3, 0.1, 0.2, 0.3, 0.4", samples=many)


def test_the_state_changes_when_pictures_do_but_not_by_drawing_them(trained):
    request, folder = trained("sd3", "states")
    draw(request, folder)
    state = drawn_state(folder.name)
    draw(request, folder, strengths="0.5")
    assert drawn_state(folder.name) == state
    SampleFolder(folder).file(4, 0, 0.5).unlink()
    changed = drawn_state(folder.name)
    assert changed != state
    draw(request, folder, strengths="0.5")
    assert drawn_state(folder.name) == changed
    assert drawn_state("no such run") == []


def test_clips_come_out_frame_by_frame_whether_they_are_there_or_drawn_now(caches):
    request = make_request("wan", caches["wan"], steps=2, name="strengths of clips", seed=7)
    request = dataclasses.replace(request, samples=samples("wan", frames=9))
    with torch.inference_mode():
        made = train_lora(request, runs=runs_folder(), hooks=Hooks(), report=lambda text: None)
    folder, seen = made.result.folder, []
    shown, _ = draw(request, folder, strengths="0.5, 1", watch=Watch(show=seen.append))
    prompts = len(request.samples.positive)
    assert len(shown) == 2 * prompts * 9 and shown.shape[-1] == 3
    assert len(seen) == prompts and all(one.ndim == 3 for one in seen)
    image = Image.open(io.BytesIO(SampleFolder(folder).read(2, prompts - 1)))
    image.seek(image.n_frames - 1)
    assert np.array_equal(np.rint(shown[-1].numpy() * 255), np.asarray(image.convert("RGB")))
