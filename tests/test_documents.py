"""The one door to a run's JSON: content of the right shape, or nothing and a sentence."""

import pytest

from harness.toy import Recorder, toy_job, train_toy
from masklora import documents
from masklora.documents import metric_rows, read_document
from masklora.runs.history import run_folders

SHAPES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"5",
    b'"text"',
    b"\xff\xfe{",
    b'{"steps": 1.5}',
    b'{"steps": true}',
    b'{"steps": "1"}',
    b'{"other": 1}',
    b'{"steps": NaN}',
    b'{"a":' * 30000,
    b"[" * 100000,
    b'{"steps": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("content", SHAPES, ids=range(len(SHAPES)))
def test_what_has_another_shape_counts_as_missing_and_is_told(tmp_path, content):
    path, told = tmp_path / "x.json", []
    path.write_bytes(content)
    assert read_document(path, {"steps": int}, complain=told.append) is None
    assert len(told) == 1 and str(path) in told[0] and "counts as missing" in told[0]


def test_a_missing_file_and_a_folder_are_nothing(tmp_path):
    told = []
    assert read_document(tmp_path / "none.json", complain=told.append) is None and told == []
    assert read_document(tmp_path, complain=told.append) is None and len(told) == 1


def test_a_huge_file_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MOST_BYTES", 1000)
    (tmp_path / "x.json").write_text('{"a": "' + "x" * 1000 + '"}')
    assert read_document(tmp_path / "x.json") is None


def test_the_right_shape_comes_back_with_numbers_that_are_none_as_none(tmp_path):
    (tmp_path / "x.json").write_text('{"steps": 3, "rate": 1, "none": null, "nan": NaN, "more": [Infinity]}')
    kinds = {"rate": float, "none": str}
    assert read_document(tmp_path / "x.json", {"steps": int}, optional=kinds) == {
        "steps": 3,
        "rate": 1,
        "none": None,
        "nan": None,
        "more": [None],
    }


def test_lines_that_are_no_numbers_of_a_step_are_left_out():
    good = b'{"step": 1, "loss": 0.5, "samples": ["a.png"]}'
    bad = [
        b"null",
        b"5",
        b"[]",
        b'{"step": "1"}',
        b'{"step": true}',
        b'{"step": -1}',
        b"\xff",
        b'{"step": 1, "loss": "x"}',
    ]
    assert list(metric_rows([good, *bad, b"", b"[" * 50000, good[:-4]])) == [
        {"step": 1, "loss": 0.5, "samples": ["a.png"]}
    ]


DAMAGE = [b"", b"{", b"[]", b"null", b"5\n", b"\xff\xfe", b'{"step": 4}', b"[" * 9000]
FILES = ["metrics.jsonl", "result.json", "settings.json", "told.json", "checkpoints/best.json", "showings.jsonl"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", DAMAGE, ids=range(len(DAMAGE)))
def test_a_finished_run_with_a_damaged_small_file_gives_its_lora(tmp_path, name, content):
    wanted = train_toy(tmp_path, toy_job()).adapter
    (folder,) = run_folders(tmp_path)
    (folder / name).write_bytes(content)
    again = train_toy(tmp_path, toy_job())
    assert again.steps == 10
    assert all((again.adapter[key] == value).all() for key, value in wanted.items())


@pytest.mark.parametrize("content", DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_newest_checkpoint_goes_back_to_the_one_before(tmp_path, content):
    wanted = train_toy(tmp_path / "whole", toy_job()).adapter
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, toy_job(save_every=3), Recorder(raise_at=7))
    (folder,) = run_folders(tmp_path)
    (folder / "checkpoints" / "step-000007" / "state.json").write_bytes(content)
    hooks = Recorder()
    again = train_toy(tmp_path, toy_job(save_every=3), hooks)
    assert again.resumed_from == 6 and any("damaged" in str(one) for one in hooks.messages)
    assert all((again.adapter[key] == value).all() for key, value in wanted.items())


@pytest.mark.parametrize("when", ["removed", "broken"])
def test_numbers_that_are_lost_while_it_trains_are_told_and_the_lora_is_whole(tmp_path, when):
    class Harming(Recorder):
        def after_step(self, step):
            super().after_step(step)
            (path,) = tmp_path.glob("toy-*/metrics.jsonl")
            if step == 5:
                path.unlink() if when == "removed" else path.write_bytes(b"\xff\xfe\x00")
                path.touch()

    wanted = train_toy(tmp_path / "whole", toy_job()).adapter
    hooks = Harming()
    done = train_toy(tmp_path, toy_job(), hooks)
    assert done.completed
    (told,) = [one.text for one in hooks.messages if "metrics.jsonl" in str(one)]
    assert "lacks the numbers of" in told and "the LoRA is whole" in told
    assert all((done.adapter[key] == value).all() for key, value in wanted.items())
