"""What is known before the first step: names, numbers, words, room."""

from dataclasses import dataclass

import pytest

from masklora.cache.captions import Caption
from masklora.errors import RunError
from masklora.file_names import name_fault
from masklora.runs import checks as beforehand
from masklora.runs.checks import Room, check_takes_files, room_notes, trigger_notes, warmup_notes
from masklora.settings import OptimizerSettings


@dataclass(frozen=True)
class Entry:
    name: str
    texts: tuple = ("a zib cat",)
    regularisation: bool = False
    frames: tuple = ()

    @property
    def captions(self):
        return tuple(map(Caption, self.texts))


@pytest.mark.parametrize(("warmup", "total", "share"), [(500, 10, "2%"), (11, 10, "91%"), (100, 1, "1%")])
def test_a_warm_up_longer_than_the_run_is_told_with_the_share_that_is_reached(warmup, total, share):
    (told,) = warmup_notes(OptimizerSettings(warmup_steps=warmup), total)
    assert told.level == "warning" and f"{warmup} are more than the {total} step" in told.text
    assert f"rises to {share} of its value" in told.text


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (10, 10), (9, 10)])
def test_a_warm_up_that_ends_in_time_is_not(warmup, total):
    assert warmup_notes(OptimizerSettings(warmup_steps=warmup), total) == []


def test_captions_without_the_trigger_word_are_counted_and_named():
    entries = [Entry("1.png"), Entry("2.png", ("a cat",)), Entry("3.png", ("zib", "")), Entry("4.png", (), True)]
    (told,) = trigger_notes(entries, ["zib", ""])
    assert told.level == "warning"
    assert "of 3 pictures, 2 have a caption without it" in told.text and "(2.png, 3.png)" in told.text
    (told,) = trigger_notes([*entries, Entry("walk.mp4", ("a walk",), frames=(0, 1))], ["zib"])
    assert "of 4 pictures and clips, 3 have a caption without it" in told.text


def test_pictures_without_any_caption_are_left_to_the_report_of_their_data_set():
    assert trigger_notes([Entry("1.png"), Entry("2.png", ("",))], ["zib"]) == []


@pytest.mark.parametrize("caption", ["a ZIB cat", "zib, cat", "cat (zib)"])
def test_the_word_counts_in_any_case_and_company(caption):
    assert trigger_notes([Entry("1.png", (caption,))], ["zib"]) == []
    assert trigger_notes([Entry("1.png", ("zibble",))], ["zib"]) != []
    assert trigger_notes([Entry("1.png", ("anything",))], ["", "  "]) == []


def test_too_little_room_is_an_error_and_scarce_room_a_warning(tmp_path, monkeypatch):
    where = {"lora": tmp_path / "loras" / "x.safetensors", "run": tmp_path / "runs" / "x"}
    assert room_notes(Room(lora=10, checkpoint=10, kept=3), **where) == []
    monkeypatch.setattr(beforehand, "free_bytes", lambda path: 100 * 2**20)
    with pytest.raises(RunError, match=r"100.0 MiB are free there, but a checkpoint of this run needs about 200.0 MiB"):
        room_notes(Room(lora=10, checkpoint=200 * 2**20, kept=3), **where)
    with pytest.raises(RunError, match="the LoRA file of this run needs"):
        room_notes(Room(lora=200 * 2**20, checkpoint=10, kept=3), **where)
    (told,) = room_notes(Room(lora=2**20, checkpoint=40 * 2**20, kept=3), **where)
    assert told.level == "warning" and "may need 161.0 MiB" in told.text and "lower keep_last" in told.text
    (told,) = room_notes(Room(lora=10, checkpoint=10, kept=3, lasting=200 * 2**20), **where)
    assert "raise keep_every" in told.text


def test_a_folder_that_takes_files_is_left_as_it_was(tmp_path):
    check_takes_files(tmp_path / "new" / "folder" / "x.safetensors")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file is a file, so x.safetensors cannot lie in it"):
        check_takes_files(tmp_path / "file" / "x.safetensors")


@pytest.mark.parametrize(
    "name", ["anna", "my/cat v1.2", "Mütze", "影" * 78, "x" * 236, "console", "com", "a b/.hidden", "~/x"]
)
def test_names_that_every_system_takes_are_taken(tmp_path, name):
    assert name_fault(name, folder=tmp_path) is None


@pytest.mark.parametrize(
    "name",
    [
        "影" * 79,
        "x" * 237,
        "😀" * 60,
        "con",
        "Aux.v1",
        "a/LPT9",
        "com²",
        "a.",
        "b /c",
        "x" * 256 + "/y",
        "a\x1fb",
        "a|b",
        "\udc80",
    ],
)
def test_names_that_some_system_refuses_are_told_with_what_to_do(tmp_path, name):
    fault = name_fault(name, folder=tmp_path)
    assert fault and any(word in fault for word in ("Choose", "Leave"))
