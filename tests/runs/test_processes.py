"""What a process that trains and one that looks at its run tell each other by files."""

import json
import os
import subprocess
import sys
import time

import pytest

from masklora.files import HOST
from masklora.runs.processes import presence, wishes
from masklora.runs.processes.presence import NAME, Presence, is_shown, present
from masklora.runs.processes.wishes import Wishes, leave_wish, waiting

FACTS = {
    "state": "paused",
    "step": 7,
    "total": 100,
    "steps_per_second": 2,
    "can_sample": True,
    "message": "a sentence.",
    "memory": {"used": 1, "total": 2},
    "drawing": None,
    "names": ["a.png"],
    "node": "4",
}


@pytest.fixture
def hurried(monkeypatch):
    """Wishes are looked for at once."""
    monkeypatch.setattr(wishes, "INTERVAL", 0.0)


def test_wishes_come_once_in_their_order_and_none_of_before_the_start(hurried, tmp_path):
    leave_wish(tmp_path, "stop")
    heard = Wishes(tmp_path)
    assert heard.news() == []
    leave_wish(tmp_path, "save")
    leave_wish(tmp_path, "sample")
    assert waiting(tmp_path, heard.taken) == ["save", "sample"]
    assert heard.news() == ["save", "sample"] and heard.news() == []
    assert waiting(tmp_path, heard.taken) == []
    for _ in range(30):
        leave_wish(tmp_path, "pause")
    assert len(heard.news()) == 20


@pytest.mark.parametrize("content", ["", "[]", '{"wishes": 3}', '{"wishes": [1, {"number": "x", "action": "stop"}]}'])
def test_a_damaged_file_of_wishes_holds_none_and_takes_new_ones(hurried, content, tmp_path):
    heard = Wishes(tmp_path)
    (tmp_path / wishes.NAME).write_text(content, encoding="utf-8")
    assert heard.news() == []
    leave_wish(tmp_path, "stop")
    assert heard.news() == ["stop"]


def test_wishes_are_looked_for_at_most_once_a_second(tmp_path):
    heard = Wishes(tmp_path)
    leave_wish(tmp_path, "stop")
    assert heard.news() == []
    heard._looked -= wishes.INTERVAL
    assert heard.news() == ["stop"]


def shown_by(folder, pid, *, since=None, **changes):
    """As another process would show itself."""
    Presence(folder).show(FACTS, news=(), taken=3)
    document = json.loads((folder / NAME).read_text(encoding="utf-8"))
    document |= {"pid": pid, **({} if since is None else {"since": since}), **changes}
    (folder / NAME).write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture
def other():
    """A process that lives."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_training_counts_while_its_process_lives_and_is_another_one(tmp_path, other):
    assert not is_shown(tmp_path) and present(tmp_path) is None
    shown_by(tmp_path, other.pid)
    facts, taken = present(tmp_path)
    assert taken == 3 and facts == {key: value for key, value in FACTS.items() if key != "node"}
    # Another process has inherited the number since.
    shown_by(tmp_path, other.pid, since=time.time() - 3600)
    assert present(tmp_path) is None
    # Another machine's number says nothing here.
    shown_by(tmp_path, other.pid, host="f" * len(HOST))
    assert present(tmp_path) is None
    for odd in (-1, 0, 10**30):
        shown_by(tmp_path, odd)
        assert present(tmp_path) is None
    # A copy that was made while it trained.
    shown_by(tmp_path, other.pid)
    copy = tmp_path / "a copy"
    copy.mkdir()
    (copy / NAME).write_bytes((tmp_path / NAME).read_bytes())
    assert present(copy) is None and present(tmp_path) is not None
    # This one knows by itself what it trains.
    shown_by(tmp_path, os.getpid())
    assert present(tmp_path) is None
    shown_by(tmp_path, other.pid)
    other.kill()
    other.wait()
    assert present(tmp_path) is None and is_shown(tmp_path)
    Presence(tmp_path).withdraw()
    assert not is_shown(tmp_path)


def test_what_is_no_fact_is_not_told(tmp_path, other):
    odd = {"state": "running", "step": "x", "message": 3, "memory": {"used": "much"}, "drawing": 5, "names": [1, "b"]}
    shown_by(tmp_path, other.pid, facts=odd)
    facts, _ = present(tmp_path)
    assert facts == {"state": "running", "memory": None, "drawing": None, "names": ["b"]}
    shown_by(tmp_path, other.pid, facts={"state": "finished"})
    assert present(tmp_path) is None


def test_numbers_alone_are_shown_every_two_seconds_and_news_at_once(tmp_path):
    shown = Presence(tmp_path)
    assert shown.due((1,))
    shown.show(FACTS, news=(1,), taken=0)
    assert not shown.due((1,)) and shown.due((2,))
    shown._when -= presence.INTERVAL
    assert shown.due((1,))
