"""Small real DINOv2 models in local folders: they see what transformers sees, and what is no such model is told."""

import json
import sys

import numpy as np
import pytest
import torch
from transformers import BitImageProcessorPil

from harness.dinov2 import KINDS, write_dinov2
from masklora.errors import DataError, MaskLoraError
from masklora.host.likeness.dinov2 import DEVIATION, MEAN, NEUTRAL, Dinov2, check_model, class_of, prepared


def picture(height=96, width=128, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dinov2(tmp_path_factory.mktemp("dinov2") / "tiny Größe")


def by_transformers(folder, rgb, *, registers=False):
    """The feature by transformers' own preparation, told to squeeze nothing away, and its own model."""
    height, width = prepared(rgb, patch=14).shape[-2:]
    look = {"size": {"height": height, "width": width}, "do_center_crop": False, "resample": 3}
    processor = BitImageProcessorPil(**look, image_mean=list(MEAN), image_std=list(DEVIATION))
    model = KINDS[registers][1].from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        return model(**processor(rgb, return_tensors="pt", input_data_format="channels_last")).pooler_output[0]


@pytest.mark.parametrize("size", [(224, 224), (96, 128), (400, 90)], ids=str)
def test_features_are_those_of_transformers(folder, size):
    rgb = picture(*size)
    found = Dinov2.load(folder)(rgb)
    assert found.shape == (32,) and found.dtype == torch.float32
    assert torch.allclose(found, by_transformers(folder, rgb), atol=1e-5)
    assert torch.cosine_similarity(found, Dinov2.load(folder)(255 - rgb), dim=0) < 0.999


def test_a_model_with_registers_is_one_too(tmp_path):
    folder = write_dinov2(tmp_path / "registers", registers=True)
    rgb = picture()
    assert torch.allclose(Dinov2.load(folder)(rgb), by_transformers(folder, rgb, registers=True), atol=1e-5)


def test_the_whole_picture_is_seen_in_about_its_own_aspect():
    assert prepared(picture(512, 512), patch=14).shape == (1, 3, 224, 224)
    assert prepared(picture(768, 1024), patch=14).shape == (1, 3, 196, 252)
    assert prepared(picture(8, 4000), patch=14).shape == (1, 3, 14, 5012)
    flat = np.full((300, 500, 3), 200, np.uint8)
    edged = flat.copy()
    edged[:, :8] = 0
    assert not torch.equal(prepared(flat, patch=14)[..., :7], prepared(edged, patch=14)[..., :7])


def test_the_neutral_colour_is_next_to_nothing_to_the_network():
    blank = prepared(np.broadcast_to(NEUTRAL, (64, 64, 3)), patch=14)
    assert blank.abs().max() < 0.5 / 255 / min(DEVIATION)


def damaged(folder, tmp_path, **config):
    """A copy of a folder whose config says something else."""
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    told = json.loads((folder / "config.json").read_text(encoding="utf-8")) | config
    (copy / "config.json").write_text(json.dumps(told), encoding="utf-8")
    return copy


def test_what_a_folder_lacks_is_told_with_its_name(folder, tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*gone.*facebook/dinov2"):
        class_of(tmp_path / "gone")
    copy = damaged(folder, tmp_path)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"copy lacks model\.safetensors.*can run code"):
        class_of(copy)
    (copy / "config.json").write_text("no JSON", encoding="utf-8")
    (copy / "model.safetensors").touch()
    with pytest.raises(DataError, match="copy cannot be loaded as DINOv2"):
        class_of(copy)


def test_another_model_is_refused_by_its_type_and_by_its_weights(folder, tmp_path):
    with pytest.raises(DataError, match="copy holds a model of type 'vit', expected dinov2"):
        class_of(damaged(folder, tmp_path, model_type="vit"))
    (tmp_path / "deep").mkdir()
    with pytest.raises(DataError, match=r"copy: .*weights of DINOv2 are missing"):
        check_model(damaged(folder, tmp_path / "deep", num_hidden_layers=3))


def test_weights_that_are_no_safetensors_are_refused_and_never_unpickled(folder, tmp_path):
    copy = damaged(folder, tmp_path)
    torch.save({"a": torch.zeros(1)}, copy / "model.safetensors")
    with pytest.raises(DataError, match="copy cannot be loaded as DINOv2"):
        check_model(copy)


def test_a_model_for_other_pictures_is_refused_when_it_is_tried(tmp_path):
    grey = write_dinov2(tmp_path / "grey", num_channels=1)
    with pytest.raises(DataError, match="grey does not take a picture"):
        check_model(grey)


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "too old"])
def test_a_transformers_that_cannot_do_it_is_told(folder, monkeypatch, missing):
    class Old:
        __version__ = "4.20.0"

    monkeypatch.setitem(sys.modules, "transformers", None if missing else Old)
    with pytest.raises(MaskLoraError, match=r"transformers 4.56 or newer is needed.*pip install"):
        class_of(folder)
