"""Files that a long training writes into: bounded, whole lines, and nothing lost at either end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from masklora.host.apart.telling import Telling
from masklora.host.headless.bounds import FOLDER, KEPT_BYTES, LOG, MOST_BYTES, TOLD, _fill, cut

# A training of so many steps, as train.py tells it, which starts another process that writes beside it.
LONG = """
import subprocess, sys, time
sys.path.insert(0, {root!r})
from masklora.host.headless import bounds
from masklora.host.headless.output import open_output

bounds._LOOK_SECONDS = 0.05
run = {{"id": "ab", "node": "4", "total": {steps}, "steps_per_second": 2.0}}
beside = "import sys; [sys.stderr.write(f'beside {{n}} ' + 'x' * 90 + chr(10)) for n in range({beside})]"
with open_output(json_lines=True) as output:
    output.told("2", "Load Dataset", "at the start", level="warning")
    print("the log's first line", flush=True)
    for step in range(1, {steps} + 1):
        output.step(run | {{"step": step}}, [{{"step": step, "loss": 0.5, "inside": 0.4, "outside": 0.9}}], "")
    subprocess.run([sys.executable, "-c", beside], stdout=sys.stderr, check=True)
    # So that it is looked at once more.
    time.sleep(0.5)
    print("the log's last line", flush=True)
    output.end("finished")
"""


def test_a_long_training_keeps_small_files_with_their_beginning_and_end(tmp_path):
    root = Path(__file__).resolve().parents[3]
    steps = 3 * MOST_BYTES // 150
    code = LONG.format(root=str(root), steps=steps, beside=3 * MOST_BYTES // 100)
    with (tmp_path / TOLD).open("wb") as told, (tmp_path / LOG).open("wb") as log:
        environment = {**os.environ, FOLDER: str(tmp_path), "PYTHONUTF8": "1"}
        subprocess.run([sys.executable, "-c", code], stdout=told, stderr=log, env=environment, check=True)
    content, log = ((tmp_path / name).read_bytes() for name in (TOLD, LOG))
    # Between two looks it may grow beyond.
    assert KEPT_BYTES < len(content) < 2 * MOST_BYTES and KEPT_BYTES < len(log) < MOST_BYTES
    lines = [json.loads(line) for line in content.splitlines()]
    assert lines[0]["text"] == "at the start" and lines[-1]["event"] == "end" and lines[-2]["step"] == steps
    assert all(line["bytes"] > 0 for line in lines if line["event"] == "left out")
    assert 0 < len([line for line in lines if line["event"] == "left out"]) <= 3
    said = log.splitlines()
    assert said[0] == b"the log's first line" and said[-1] == b"the log's last line" and b"\0" not in log
    assert any(line.startswith(b'{"event": "left out"') for line in said)
    telling = Telling(tmp_path / TOLD)
    telling.look()
    assert (telling.step, telling.end["state"]) == (steps, "finished")
    assert [one["text"] for one in telling.said] == ["at the start"]


@pytest.mark.parametrize(("written", "left"), [(b"", b"\n\n\n\nnext"), (b"ab", b"\n\nabnext")], ids=["none", "some"])
def test_where_the_words_of_another_process_were_cut_off_stand_line_ends(tmp_path, written, left):
    path = tmp_path / "log.txt"
    with path.open("wb", buffering=0) as file:
        file.write(b"first\nof a")
        # It was cut at the first line, with what the other one had just written behind it.
        os.ftruncate(file.fileno(), 6)
        file.seek(10 - len(written))
        file.write(written)
        _fill(path, 6, 10)
        file.write(b"next")
    assert path.read_bytes() == b"first\n" + left


def test_what_is_short_or_another_file_stays_as_it_is(tmp_path):
    short, other = tmp_path / "short", tmp_path / "other"
    for path, size in ((short, MOST_BYTES), (other, MOST_BYTES + 1)):
        path.write_bytes(b"x" * size)
    with short.open("ab") as file:
        assert not cut(file.fileno(), short)
    with other.open("rb+") as file:
        assert not cut(file.fileno(), short)
    assert (short.stat().st_size, other.stat().st_size) == (MOST_BYTES, MOST_BYTES + 1)


def test_what_is_written_after_a_cut_stands_behind_it_also_where_nothing_has_lines(tmp_path):
    path = tmp_path / "log.txt"
    with path.open("wb", buffering=0) as file:
        file.write(b"first\n" + b"x" * (MOST_BYTES + 100))
        assert cut(file.fileno(), path)
        file.write(b"behind\n")
    content = path.read_bytes()
    assert content.startswith(b"first\n{") and content.endswith(b"xbehind\n") and b"\0" not in content
    assert len(content) < 2 * KEPT_BYTES
