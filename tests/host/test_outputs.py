"""Names and paths that a stranger's workflow may hold."""

from pathlib import Path

import pytest

from masklora.errors import PathError
from masklora.host.outputs import allow_writing, lora_path, save_folder
from masklora.host.paths import allow, config_path

AWAY = ["../x", "/tmp/x", "\\\\server\\share\\x", "//server/share/x", "C:/x", "", "  ", "folder/", "x\0y"]


@pytest.mark.parametrize("name", AWAY)
def test_a_lora_name_that_leads_away_is_refused(name):
    with pytest.raises(PathError, match="output/loras"):
        lora_path(name)


def test_a_lora_name_may_hold_folders():
    assert lora_path("mine\\cat.safetensors").parts[-3:] == ("loras", "mine", "cat.safetensors")


@pytest.mark.parametrize("path", ["\\\\server\\share", "//server/share"])
def test_a_share_of_another_machine_is_refused_without_looking_at_it(path):
    with pytest.raises(PathError, match="lies outside"):
        allow(path, widget="folder")


@pytest.mark.parametrize("name", [*AWAY[:-2], "a/../..", ".", "x\0y", "x\ud800", "\udcff/y"])
def test_a_folder_to_save_to_that_leads_away_is_refused(name):
    with pytest.raises(PathError, match="destination: "):
        save_folder(name)


def test_a_relative_folder_to_save_to_lies_in_the_output_folder():
    import folder_paths

    assert save_folder("my set/masks") == (Path(folder_paths.get_output_directory()) / "my set" / "masks").resolve()


def test_an_absolute_folder_to_save_to_must_be_an_allowed_one(tmp_path):
    import folder_paths

    inside = Path(folder_paths.get_input_directory()) / "set" / "masks"
    assert save_folder(str(inside)) == inside.resolve()
    with pytest.raises(PathError, match=r"destination: .* lies outside the folders"):
        save_folder(str(tmp_path))


def test_nothing_is_saved_into_the_user_folder_where_settings_lie():
    with pytest.raises(PathError, match="lies in ComfyUI's user folder"):
        allow_writing(config_path())
    with pytest.raises(PathError, match=r"destination: .*user folder"):
        save_folder(str(config_path().parent))
