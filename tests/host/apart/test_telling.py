"""Lines of JSON in a file that grows, read as far as they have come."""

import json

from masklora.host.apart.telling import Telling


def line(**event):
    return json.dumps(event) + "\n"


def test_what_was_told_is_read_once_and_a_line_in_the_making_later(tmp_path):
    path = tmp_path / "told.jsonl"
    told = Telling(path)
    told.look()
    assert not told.anything
    warning = line(event="told", node="2", title="Load", level="warning", text="a ✓ warning.")
    progress = line(event="progress", node="3", title="Cache", done=1, total=4, text="caching")
    path.write_text(warning + progress[:20], encoding="utf-8")
    told.look()
    told.look()
    assert told.anything and told.progress is None
    assert told.said == [{"title": "Load", "level": "warning", "text": "a ✓ warning."}]
    with path.open("a", encoding="utf-8") as file:
        file.write(progress[20:])
    told.look()
    assert told.progress == {"title": "Cache", "done": 1, "total": 4, "text": "caching"}
    with path.open("a", encoding="utf-8") as file:
        file.write(line(event="step", run="a" * 20, step=7) + line(event="end", state="finished", code=0, text=""))
    told.look()
    assert (told.run, told.step, told.progress) == ("a" * 20, 7, None)
    assert told.end == {"state": "finished", "text": ""}


def test_lines_that_are_none_of_ours_are_passed_over(tmp_path):
    path = tmp_path / "told.jsonl"
    odd = [
        "W1201 something of torch's\n",
        "[1]\n",
        "\n",
        line(event="step", step="x"),
        line(event="told", level="loud"),
    ]
    odd += [line(event="progress", done="x", total=1), line(event="refused", problems=[1, {"text": "No node trains."}])]
    odd += [line(event="refused", problems=7)]
    path.write_text("".join(odd), encoding="utf-8")
    told = Telling(path)
    told.look()
    assert (told.said, told.progress, told.step, told.end) == ([], None, 0, None)
    assert told.problems == ["No node trains."]


def test_only_the_last_sentences_are_kept(tmp_path):
    path = tmp_path / "told.jsonl"
    path.write_text(
        "".join(line(event="told", title="T", level="note", text=str(i)) for i in range(100)), encoding="utf-8"
    )
    told = Telling(path)
    told.look()
    assert [one["text"] for one in told.said] == [str(i) for i in range(60, 100)]


def test_a_file_whose_middle_was_left_out_is_read_anew_also_where_it_is_as_long_again(tmp_path):
    path = tmp_path / "told.jsonl"
    warning = line(event="told", node="2", title="Load", level="warning", text="at the start")
    steps = [line(event="step", run="a" * 20, step=n) for n in range(1, 200)]
    late = line(event="told", node="3", title="Train", level="error", text="at the end")
    path.write_text(warning + "".join(steps[:100]), encoding="utf-8")
    told = Telling(path)
    told.look()
    assert told.step == 100 and len(told.said) == 1
    short = warning + line(event="left out", bytes=1) + steps[150] + late
    assert len(short) < path.stat().st_size
    path.write_text(short, encoding="utf-8")
    told.look()
    assert told.step == 151 and [one["text"] for one in told.said] == ["at the start", "at the end"]
    path.write_text(warning + line(event="left out", bytes=2) + late + "".join(steps[100:]), encoding="utf-8")
    assert len(short) < path.stat().st_size
    told.look()
    assert told.step == 199 and [one["text"] for one in told.said] == ["at the start", "at the end"]
