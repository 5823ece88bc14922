"""A training adapter: a training runs on top of it, and nothing that comes out of it contains it."""

import dataclasses
import io
import math

import comfy.model_management
import comfy.sd
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from harness.models import small_model, small_text
from harness.training import Caches, make_request, make_samples
from masklora.dataset.geometry import Geometry
from masklora.errors import AdapterError
from masklora.host.exporting import apply_lora
from masklora.host.model.trainable import TrainableModel
from masklora.host.training import train_lora
from masklora.runs.sample_pictures import SampleFolder
from masklora.settings import AdapterSettings, OptimizerSettings
from masklora.training.job import Hooks

SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


@pytest.fixture(scope="module")
def caches():
    return Caches()


@pytest.fixture(autouse=True)
def unloaded():
    yield
    comfy.model_management.unload_all_models()


def train(request, folder, report=None):
    with torch.inference_mode():
        return train_lora(request, runs=folder / "runs", hooks=Hooks(), report=report or (lambda told: None))


@pytest.fixture
def assistant(caches, tmp_path):
    """A LoRA file in the form that ai-toolkit writes, which changes `family` a good deal."""

    def make(family, **changes):
        request = make_request(family, caches[family], name="made")
        request = dataclasses.replace(request, optimizer=OptimizerSettings(learning_rate=3e-2))
        factors = train(request, tmp_path / "made").factors
        tensors = {}
        for path, f in factors.items():
            tensors[f"diffusion_model.{path}.lora_A.weight"] = f.down.clone().contiguous()
            tensors[f"diffusion_model.{path}.lora_B.weight"] = (f.up * f.alpha / f.down.shape[0]).contiguous()
        path = tmp_path / "assistant.safetensors"
        safetensors.torch.save_file(tensors | changes, path)
        return path

    return make


def predicted(patcher, family, *, file=None):
    trainable = TrainableModel(patcher, assistant=file)
    trainable.load(activation_bytes=0)
    noisy = torch.randn(1, trainable.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    adapters = trainable.make_adapters(AdapterSettings(rank=1, alpha=1.0), seed=0)
    with trainable.session(adapters), torch.no_grad():
        text = trainable.collate([small_text(family, tokens=12)], [SQUARE], noisy.shape[1:])
        return trainable.denoise(noisy, torch.tensor([0.6]), text)


@pytest.mark.parametrize("family", ["flux", "z_image", "sd15"])
def test_the_model_that_is_trained_is_core_s_with_this_lora(family, assistant):
    file, patcher = assistant(family), small_model(family)
    with_it = predicted(patcher, family, file=file)
    loaded, _ = comfy.sd.load_lora_for_models(patcher, None, safetensors.torch.load_file(file), 1.0, 0.0)
    assert torch.equal(with_it, predicted(loaded, family))
    assert not torch.allclose(with_it, predicted(patcher, family), atol=1e-3)
    assert not patcher.patches


@pytest.mark.parametrize("family", ["flux", "z_image"])
def test_pictures_and_lora_are_without_it_and_pictures_change_no_number(family, caches, assistant, tmp_path):
    fast = OptimizerSettings(learning_rate=2e-2)
    request = dataclasses.replace(make_request(family, caches[family], steps=4), optimizer=fast)
    drawn = dataclasses.replace(request, samples=make_samples(family))
    file, told = assistant(family), []
    plain = train(drawn, tmp_path / "plain")
    on_top = train(dataclasses.replace(drawn, assistant=file), tmp_path / "top", told.append)
    unseen = train(dataclasses.replace(request, assistant=file), tmp_path / "unseen")
    assert plain.result.folder.name != on_top.result.folder.name == unseen.result.folder.name
    assert on_top.result.losses == unseen.result.losses != plain.result.losses
    assert all(torch.equal(value, unseen.tensors[key]) for key, value in on_top.tensors.items())
    first = [SampleFolder(one.result.folder).read(0, 1) for one in (plain, on_top)]
    assert first[0] == first[1]
    shown = SampleFolder(on_top.result.folder).read(4, 1)
    # The pictures of the end are those of a training that went on from this LoRA, without the assistant.
    again = dataclasses.replace(drawn, model=apply_lora(request.model, on_top.tensors))
    merged = SampleFolder(train(again, tmp_path / "after").result.folder).read(0, 1)
    assert np.abs(pixels(merged) - pixels(shown)).max() <= 1 < np.abs(pixels(shown) - pixels(first[0])).max()
    assert any("assistant_lora: trained on top of assistant.safetensors" in one.text for one in told)
    assert not any("carries patches" in one.text for one in told)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"diffusion_model.nowhere.lora_A.weight": torch.ones(1, 4)}, "changes diffusion_model.nowhere.lora_A.weight"),
        ({"lora_te1_text_model_final.lora_down.weight": torch.ones(1, 4)}, "changes lora_te1_text_model_final"),
        ({"diffusion_model.img_in.lora_A.weight": torch.full((1, 4), math.nan)}, "not finite"),
    ],
    ids=["another layer", "the text encoder", "nan"],
)
def test_what_is_not_for_this_model_is_refused_by_name(changes, words, caches, assistant, tmp_path):
    request = dataclasses.replace(make_request("flux", caches["flux"]), assistant=assistant("flux", **changes))
    with pytest.raises(AdapterError, match=f"^assistant_lora: assistant.safetensors .*{words}"):
        train(request, tmp_path)


def test_a_file_that_is_none_and_one_that_changes_nothing_are_refused(caches, tmp_path):
    request, file = make_request("flux", caches["flux"]), tmp_path / "assistant.safetensors"
    file.write_bytes(b"no tensors")
    with pytest.raises(AdapterError, match=r"assistant_lora: .*cannot be read"):
        train(dataclasses.replace(request, assistant=file), tmp_path)
    safetensors.torch.save_file({}, file)
    with pytest.raises(AdapterError, match=r"assistant_lora: .*changes no layer"):
        train(dataclasses.replace(request, assistant=file), tmp_path)
