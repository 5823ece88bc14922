"""What the terminal shows: sentences under their node's title, a bar only on a terminal, lines of JSON for machines."""

import io
import json

import pytest

from masklora.host.headless.output import CODES, JsonLines, Screen
from masklora.host.headless.problems import Problem

RUN = {"id": "ab", "node": "4", "step": 5, "total": 20, "steps_per_second": 0.5}
ROWS = [{"step": 4, "loss": 0.5, "inside": 0.4, "outside": 0.9}, {"step": 5, "loss": 0.25, "inside": 0.2}]


class Tty(io.StringIO):
    def isatty(self):
        return True


def shown(text):
    """What a terminal shows of it: a carriage return goes back to the start of the line, and overwrites."""
    lines = []
    for line in text.split("\n"):
        cells = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return lines


def test_sentences_stand_under_their_node_s_title_and_warnings_are_told_as_such():
    stream = io.StringIO()
    screen = Screen(stream)
    screen.told("2", "Load Dataset", "10 pictures", level="note")
    screen.told("2", "Load Dataset", "one\nblack mask", level="warning")
    screen.told("4", "Train", "ready", level="note")
    assert stream.getvalue() == "Load Dataset\n  10 pictures\n  warning: one\n  black mask\nTrain\n  ready\n"


def test_a_terminal_has_a_bar_under_the_sentences_and_no_rest_of_it_stays():
    stream = Tty()
    screen = Screen(stream)
    screen.step(RUN, ROWS, "step 5/20 · loss 0.25 and many more words that are longer than what comes later")
    assert shown(stream.getvalue())[-1].startswith("[######------------------]  25% step 5/20 · loss 0.25")
    screen.progress("4", "Train", done=1, total=2, text="short")
    assert shown(stream.getvalue())[-1] == "[############------------]  50% Train · short"
    screen.told("4", "Train", "ready", level="note")
    assert screen.end("finished") == 0
    assert shown(stream.getvalue())[:2] == ["Train", "  ready"]
    assert shown(stream.getvalue())[2].startswith("Finished after 0:00")
    assert not screen.lines


def test_a_file_has_no_bar_and_asks_for_lines():
    stream = io.StringIO()
    screen = Screen(stream)
    screen.step(RUN, ROWS, "step 5/20")
    assert stream.getvalue() == "" and screen.lines


def test_lines_of_json_hold_a_step_each_with_the_time_that_is_left():
    stream = io.StringIO()
    lines = JsonLines(stream)
    lines.step(RUN, ROWS, "")
    lines.told("4", "Train", "größer", level="warning")
    assert lines.refuse([Problem("no", "4", "steps")]) == 2
    read = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [one["event"] for one in read] == ["step", "step", "told", "refused", "end"]
    assert [one["seconds_left"] for one in read[:2]] == [32.0, 30.0]
    assert read[0] | ROWS[0] == read[0] and read[0]["total"] == 20 and read[0]["run"] == "ab"
    assert read[2]["text"] == "größer" and read[3]["problems"] == [{"text": "no", "node": "4", "widget": "steps"}]


@pytest.mark.parametrize("kind", [Screen, JsonLines])
def test_every_state_in_which_a_command_ends_has_an_exit_code_of_its_own(kind):
    codes = [kind(io.StringIO()).end(state) for state in CODES]
    assert sorted(codes) == [0, 1, 2, 3]
