"""Which of the folders of trainings apart is followed, whatever lies there."""

import json
import time

from masklora.files import HOST
from masklora.host.apart.start import newest

FACTS = {"host": HOST, "pid": 1, "count": 1, "name": "a", "node": "1", "started": 0.0}


def made(root, name, **changes):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "start.json").write_text(json.dumps(FACTS | changes), encoding="utf-8")
    return folder.name


def test_a_number_that_no_process_has_is_one_that_has_ended(tmp_path):
    for number, pid in enumerate((0, -1, 10**30)):
        made(tmp_path, f"{number:020x}", pid=pid, started=float(number))
        facts = newest(tmp_path).facts()
        assert (facts["state"], facts["end"]["state"]) == ("ended", "killed")


def test_the_newest_is_followed_though_the_clock_was_set_back_since_another(tmp_path):
    now = time.time()
    made(tmp_path, "a" * 20, started=now - 20)
    own = made(tmp_path, "b" * 20, started=now - 10)
    made(tmp_path, "c" * 20, started=now + 3600)
    made(tmp_path, "d" * 20, started=10**30)
    assert newest(tmp_path).id == own


def test_a_folder_of_another_name_cannot_be_asked_for_and_is_none(tmp_path):
    own = made(tmp_path, "a" * 20, started=1.0)
    made(tmp_path, f"{own} - Copy", started=2.0)
    assert newest(tmp_path).id == own


def test_one_of_another_machine_with_the_same_user_folder_is_none_here(tmp_path):
    own = made(tmp_path, "a" * 20, started=1.0)
    made(tmp_path, "b" * 20, started=2.0, host="f" * len(HOST))
    assert newest(tmp_path).id == own
