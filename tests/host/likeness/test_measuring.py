"""Real trainings whose sample pictures are measured: the figures arrive, and change nothing of what is learned."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from harness.dinov2 import write_dinov2
from harness.models import HashedText
from harness.training import Caches, make_request, make_samples, pictures
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.dataset.sample import load_sample
from masklora.errors import DataError
from masklora.host.likeness.dinov2 import NEUTRAL, Dinov2
from masklora.host.likeness.measuring import askers, evenly, flattened, references_of
from masklora.host.model.encoders import VaeEncoder
from masklora.host.training import train_lora
from masklora.loss.likeness import FIGURES, compare
from masklora.runs.history import read_curve
from masklora.runs.sample_pictures import SampleFolder
from masklora.settings import CacheSettings, DatasetSettings, OptimizerSettings
from masklora.training.job import Hooks

SMALL = CacheSettings(resolution=64, bucket_step=32, storage="memory")


def makers():
    return {"encoder": VaeEncoder(small_vae("sd3")), "text": HashedText("sd3")}


class Recorder(Hooks):
    def __init__(self):
        self.messages, self.figures, self.training = [], {}, []

    def on_message(self, told):
        self.messages.append(getattr(told, "text", told))

    def on_likeness(self, step, figures):
        self.figures[step] = figures

    def after_step(self, step):
        self.training.append(torch.is_grad_enabled() and not torch.is_inference_mode_enabled())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dinov2(tmp_path_factory.mktemp("dinov2") / "small")


@pytest.fixture(scope="module")
def caches():
    return Caches()


def train(cache, tmp_path, likeness=None, *, steps=4, told=None):
    request = make_request("sd3", cache, steps=steps)
    request = dataclasses.replace(request, optimizer=OptimizerSettings(learning_rate=2e-2))
    request = dataclasses.replace(request, samples=dataclasses.replace(make_samples("sd3"), likeness=likeness))
    hooks, notes = Recorder(), []
    with torch.inference_mode():
        trained = train_lora(request, runs=tmp_path / "runs", hooks=hooks, report=lambda one: notes.append(one.text))
    return trained, hooks, notes


def read(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_training_measures_its_pictures_and_learns_the_same(caches, folder, tmp_path):
    plain, _, _ = train(caches["sd3"], tmp_path / "plain")
    trained, hooks, notes = train(caches["sd3"], tmp_path, folder)
    assert all(torch.equal(value, trained.tensors[key]) for key, value in plain.tensors.items())
    assert hooks.training == [True] * 4 and [one for one in notes if "likeness" in one] == []
    rows = {row["step"]: row for row in read_curve(trained.result.folder)}
    assert list(hooks.figures) == [2, 4]
    for step, figures in hooks.figures.items():
        assert tuple(figures) == FIGURES and {name: rows[step][name] for name in FIGURES} == figures
    assert not set(FIGURES) & (rows[1].keys() | rows[3].keys())
    (told,) = [one for one in hooks.messages if one.startswith("likeness")]
    assert "compared with 4 of 4 pictures that have a mask. Without their" in told and "The base model's" in told

    # The same by hand, from the files that are there now.
    seeing, kept = Dinov2.load(folder), SampleFolder(trained.result.folder)
    base, drawn = (torch.stack([seeing(read(kept.read(step, i))) for i in (0, 1)]) for step in (0, 4))
    loaded = [load_sample(one) for one in caches["sd3"].samples]
    own, beside = (
        torch.stack([seeing(flattened(one.rgb, one.mask if inside else 1 - one.mask)) for one in loaded])
        for inside in (True, False)
    )
    both = [True, True]
    expected = compare(drawn, base, subjects=own, backgrounds=beside, asking=both, plain=both).row
    assert hooks.figures[4] == pytest.approx(expected, abs=1e-6)
    assert expected["picture_drift"] > 1e-5 and abs(expected["picture_leak"]) > 1e-6


def test_a_resumed_training_measures_on(caches, folder, tmp_path):
    _, first, _ = train(caches["sd3"], tmp_path, folder, steps=2)
    longer, second, _ = train(caches["sd3"], tmp_path, folder, steps=4)
    assert longer.result.resumed_from == 2 and (list(first.figures), list(second.figures)) == ([2], [4])
    measured = [row["step"] for row in read_curve(longer.result.folder) if "picture_drift" in row]
    assert measured == [2, 4]


def test_without_masks_only_the_drift_is_measured(folder, tmp_path):
    dataset = pictures()
    bare = dataclasses.replace(dataset, samples=tuple(dataclasses.replace(one, mask=None) for one in dataset.samples))
    _, hooks, notes = train(build_cache(bare, SMALL, **makers()), tmp_path, folder, steps=2)
    assert hooks.figures[2].keys() == {"picture_drift"}
    assert [one for one in notes if "likeness" in one] == [
        "likeness: no picture has a mask, so that only the drift is measured."
    ]


def test_a_model_that_cannot_be_used_is_refused_before_the_first_step(caches, tmp_path):
    empty = tmp_path / "not filled"
    empty.mkdir()
    with pytest.raises(DataError, match=r"not filled lacks config\.json"):
        train(caches["sd3"], tmp_path, empty)
    assert not list(tmp_path.rglob("step-*")) and not list(tmp_path.rglob("*.png"))


def test_what_fails_while_it_trains_is_told_once_and_ends_nothing(caches, tmp_path):
    folder = write_dinov2(tmp_path / "vanishing")

    class Removing(Recorder):
        def after_step(self, step):
            (folder / "model.safetensors").unlink(missing_ok=True)

    hooks = Removing()
    request = make_request("sd3", caches["sd3"], steps=4)
    request = dataclasses.replace(request, samples=dataclasses.replace(make_samples("sd3"), likeness=folder))
    with torch.inference_mode():
        trained = train_lora(request, runs=tmp_path / "runs", hooks=hooks, report=lambda one: None)
    assert trained.result.completed and SampleFolder(trained.result.folder).pictures().keys() == {0, 2, 4}
    told = [one for one in hooks.messages if "could not be measured" in one]
    assert len(told) == 1 and "step 2" in told[0] and "vanishing lacks model.safetensors" in told[0]
    assert hooks.figures == {}


def test_prompts_with_the_trigger_word_ask_for_what_is_learned():
    prompts = ["a Zibble on a beach", "a dog", "portrait of zibble"]
    assert askers(prompts, ["zibble"]) == ([True, False, True], [False, True, False])
    assert askers(prompts, []) == ([True] * 3, [True] * 3)
    assert askers(prompts, ["zibble", "dog"])[0] == [True] * 3
    # As a word: other words may hold it.
    assert askers(["two desks and masks", "sks, on a desk", "一张sks的照片"], ["sks "])[0] == [False, True, True]
    assert askers(["我的小明在海边", "大海"], ["小明"])[0] == [True, False]


def test_references_have_a_mask_and_are_evenly_chosen(caches):
    assert references_of(caches["sd3"]) == list(caches["sd3"].samples)
    assert evenly([], most=3) == [] and evenly([1, 2], most=3) == [1, 2]
    assert evenly(list(range(10)), most=4) == [0, 2, 5, 7]
    settings = DatasetSettings(regularisation=True)
    assert references_of(build_cache(pictures(settings=settings), SMALL, **makers())) == []


def test_what_is_not_kept_of_a_picture_is_neutral():
    rgb = np.full((2, 2, 3), 10, np.uint8)
    kept = np.array([[1, 0], [0.5, 1]], np.float32)
    found = flattened(rgb, kept)
    assert (found[0, 0] == 10).all() and (found[0, 1] == NEUTRAL).all()
    assert (np.abs(found[1, 0] - (10.0 + NEUTRAL) / 2) <= 0.5).all()
