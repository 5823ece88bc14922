"""A run's LoRA file is known by its content, with a note of it or without."""

import json

import pytest
import torch

from masklora.runs.lora_file import cast_tensors
from masklora.runs.own_files import NAME, FileMark, read_marks, same_weights, write_once


def ready(value=1.0, size=4):
    return cast_tensors({"lora_unet_x.lora_up.weight": torch.full((size, 3), value)}, dtype="float16")


@pytest.fixture
def write(tmp_path):
    (tmp_path / "run").mkdir()

    def once(tensors=None, name="anna", folder="run"):
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / "loras" / f"{name}.safetensors"
        return write_once(tmp_path / folder, path, tensors or ready(), metadata=lambda: {"a": "b"})

    return once


def test_a_file_is_written_once(write):
    first, again = write(), write()
    assert (first.new, again.new, first.path) == (True, False, again.path)
    assert len(list(first.path.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x55"),
        lambda path: path.write_bytes(b"\xff" * 300),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["gone", "empty", "cut", "longer", "changed", "other", "folder"],
)
def test_what_is_not_this_run_s_any_more_is_written_again_beside_it(write, harm):
    path = write().path
    harm(path)
    before = path.read_bytes() if path.is_file() else None
    again = write()
    assert again.new and same_weights(again.path, ready())
    if before is not None:
        assert (again.path.name, again.taken) == ("anna_00001_.safetensors", "anna.safetensors")
        assert path.read_bytes() == before
    assert (write().new, write().path) == (False, again.path)


def test_another_run_s_file_is_left_alone_and_found_by_its_own_run(write):
    one, two = write(), write(ready(2.0), folder="other")
    assert (two.path.name, two.taken) == ("anna_00001_.safetensors", "anna.safetensors")
    assert write().path == one.path and write(ready(2.0), folder="other").path == two.path


@pytest.mark.parametrize(
    "note", [None, "", "[]", "null", '{"path": 5}', '{"files": [1, {"path": 2}]}', "[" * 9000, "\0"]
)
def test_without_a_note_or_with_a_damaged_one_the_file_is_known_by_its_weights(write, tmp_path, note):
    path = write().path
    at = tmp_path / "run" / NAME
    at.unlink()
    if note is not None:
        at.write_text(note)
    assert (write().new, write().path) == (False, path)
    assert len(list(path.parent.iterdir())) == 1


def test_an_earlier_version_s_note_finds_its_file_too(write, tmp_path):
    path = write().path
    old = {"steps": 3, "format": "comfyui", "dtype": "float16", "title": "", "trigger": "", "path": str(path)}
    (tmp_path / "run" / NAME).write_text(json.dumps(old))
    assert (write().new, len(read_marks(tmp_path / "run"))) == (False, 1)


def test_two_names_are_two_files_and_both_are_remembered(write, tmp_path):
    write(), write(name="x/y"), write(name="x_y")
    assert [mark.path.rpartition("loras")[2].replace("\\", "/") for mark in read_marks(tmp_path / "run")] == [
        "/anna.safetensors",
        "/x/y.safetensors",
        "/x_y.safetensors",
    ]


@pytest.mark.parametrize("other", [{"w": torch.zeros(4, 3)}, {}, {"lora_unet_x.lora_up.weight": torch.ones(3, 4)}])
def test_other_names_shapes_or_numbers_are_other_weights(write, other):
    path = write().path
    assert same_weights(path, ready())
    assert not same_weights(path, cast_tensors(other, dtype="float16"))
    assert not same_weights(path, ready(1.5))


def test_a_mark_reads_the_file_only_where_its_stamps_have_changed(write):
    mark = write().mark
    assert mark.is_there()
    wrong = FileMark(mark.path, "0" * 64, mark.size, mark.mtime_ns)
    assert wrong.is_there()
    content = mark and write().path.read_bytes()
    write().path.write_bytes(content)
    assert mark.is_there() and not FileMark(mark.path, "0" * 64, mark.size, 1).is_there()
