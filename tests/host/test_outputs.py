"""Names and paths that a stranger's workflow may hold."""

import pytest

from masklora.errors import PathError
from masklora.host.outputs import lora_path
from masklora.host.paths import allow

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
