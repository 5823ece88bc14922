"""Model folders in ComfyUI's models tree: found by name, never by path."""

import dataclasses
from pathlib import Path

import folder_paths
import pytest

from masklora.errors import ConfigError
from masklora.generators.sam2 import SAM2
from masklora.host.finders.model_folders import find_model_folder, model_folders, prepare_device

KIND = dataclasses.replace(SAM2, folder="sam2 of this test")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The kind's folder in a models tree of its own."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {})
    return tmp_path / "models" / KIND.folder


def test_without_any_folder_the_error_tells_where_to_put_which_files(root):
    assert model_folders(KIND) == {}
    with pytest.raises(ConfigError) as caught:
        find_model_folder(KIND, "large")
    told = str(caught.value)
    assert "There is none yet" in told
    assert str(root) in told
    assert "model.safetensors" in told


def test_only_folders_are_listed_and_hidden_ones_are_not(root):
    for name in ("tiny", "Large", ".cache"):
        (root / name).mkdir(parents=True)
    (root / "sam2.safetensors").touch()
    assert list(model_folders(KIND)) == ["Large", "tiny"]
    assert find_model_folder(KIND, "tiny") == root / "tiny"


def test_places_that_an_administrator_adds_are_searched_after_the_own_one(root, tmp_path):
    model_folders(KIND)
    folder_paths.add_model_folder_path(KIND.folder, str(tmp_path / "elsewhere"))
    for place in (root / "tiny", tmp_path / "elsewhere" / "tiny", tmp_path / "elsewhere" / "small"):
        place.mkdir(parents=True)
    assert model_folders(KIND) == {"small": tmp_path / "elsewhere" / "small", "tiny": root / "tiny"}


@pytest.mark.parametrize("name", ["..", ".", "", "tiny/..", "tiny/../../outside", "../outside", "tiny/"])
def test_a_name_is_never_used_as_a_path(root, name):
    (root / "tiny").mkdir(parents=True)
    (root.parent / "outside").mkdir()
    with pytest.raises(ConfigError, match="There are: tiny"):
        find_model_folder(KIND, name)
    with pytest.raises(ConfigError, match="There are: tiny"):
        find_model_folder(KIND, str(Path(root / "tiny").resolve()))


def test_models_run_on_comfyui_s_device(root):
    import comfy.model_management

    assert prepare_device([root]) == comfy.model_management.get_torch_device()
