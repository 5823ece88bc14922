"""One change to many captions: what becomes of a text, which files are written, and how it is taken back."""

import time

import pytest
from PIL import Image

from harness.damage import ALL
from masklora.dataset.loading import load_dataset
from masklora.errors import ConfigError
from masklora.saving.caption_changes import (
    Change,
    Outcome,
    apply_changes,
    changed_text,
    check_change,
    plan_changes,
    undo_changes,
)
from masklora.saving.captions import same_captions
from masklora.saving.versions import Versions
from masklora.settings import CaptionSettings, DatasetSettings


def anywhere(path):
    return path


class Bulk:
    """Plans, writes and takes back changes of one folder's captions, as the page does."""

    def __init__(self, place, kept):
        self.place, self.versions = place, Versions(kept)
        self.samples = load_dataset(DatasetSettings(folder=str(place)), allowed=anywhere).samples
        self.checks = []

    def plan(self, action, text, by=""):
        return plan_changes(self.samples, Change(action, text, by), allowed=anywhere)

    def _means(self, stop_at):
        def check():
            self.checks.append(1)
            if len(self.checks) == stop_at:
                raise InterruptedError

        self.checks.clear()
        steps = {"progress": lambda done, total: None, "check_cancel": check}
        return {"allowed": anywhere, "versions": self.versions, **steps}

    def write(self, changes, stop_at=0):
        outcome = Outcome()
        try:
            apply_changes(changes, outcome, **self._means(stop_at))
        except InterruptedError:
            assert stop_at
        return outcome

    def undo(self, edits):
        outcome = Outcome()
        undo_changes(edits, outcome, **self._means(0))
        return outcome

    def texts(self):
        return {path.name: path.read_bytes() for path in sorted(self.place.glob("*.txt"))}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for name in ("a.png", "b.png", "c.png", "d.png"):
        Image.new("RGB", (32, 32)).save(place / name)
    (place / "a.txt").write_bytes(b"red cat, sofa")
    (place / "b.txt").write_bytes(b"\xef\xbb\xbfsofa,  red dog\r\n")
    (place / "c.txt").write_bytes("a große cät".encode())
    return place


@pytest.fixture
def bulk(folder, tmp_path):
    return Bulk(folder, tmp_path / "kept")


# A usual run looks at some of them.
MANY = 10_000 if ALL else 1000
ADD, END, REMOVE, TAG, TEXT = "add at start", "add at end", "remove tag", "replace tag", "replace text"
ONE_TEXT, ROWS_OF_TAGS = {"lines": "text"}, {"lines": "tags"}


@pytest.mark.parametrize(
    ("before", "change", "after", "settings"),
    [
        ("cat, sofa", (ADD, "zib"), "zib, cat, sofa", {}),
        ("cat, sofa", (END, "zib"), "cat, sofa, zib", {}),
        ("cat, zib", (ADD, "zib"), "cat, zib", {}),
        ("cat, zib hat", (ADD, "zib"), "zib, cat, zib hat", {}),
        ("cat, b, a", (ADD, "a, b"), "cat, b, a", {}),
        ("", (END, "zib"), "zib", {}),
        ("A cat that sleeps on a sofa.", (END, "zib"), "A cat that sleeps on a sofa. zib", {}),
        ("A photo of Zib on the sofa.", (ADD, "zib"), "A photo of Zib on the sofa.", {}),
        ("cat", (ADD, "Photo:"), "Photo: cat", {}),
        ("cat | sofa", (ADD, "zib"), "zib| cat | sofa", {"separator": " |"}),
        ("red, cat, red", (REMOVE, "red"), "cat", {}),
        ("red,cat , red hat", (REMOVE, "red"), "cat , red hat", {}),
        ("red", (REMOVE, "red"), "", {}),
        ("a red cat", (REMOVE, "red"), "a red cat", {}),
        ("red, cat, blue", (TAG, "red", "blue"), "cat, blue", {}),
        ("red,  cat", (TAG, "cat", "dog"), "red,  dog", {}),
        ("a red car, red", (TEXT, "red", "blue"), "a blue car, blue", {}),
        ("a [b] (c)", (TEXT, "[b] (", "+("), "a +(c)", {}),
        # Captions of their own, one caption in two lines, and a line for each tag.
        ("A cat sits here.\nA cat on a sofa.", (ADD, "zib"), "zib, A cat sits here.\nzib, A cat on a sofa.", {}),
        ("A red cat\nThe cat", (ADD, "zib"), "zib, A red cat\nThe cat", ONE_TEXT),
        ("red\ncat\n", (END, "zib"), "red\ncat\nzib", {}),
        ("red\ncat\nsofa", (REMOVE, "cat"), "red\nsofa", ROWS_OF_TAGS),
        ("red, cat\nzib", (ADD, "zib"), "red, cat\nzib", ROWS_OF_TAGS),
    ],
)
def test_a_change_to_one_text(before, change, after, settings):
    got = changed_text(before, check_change(Change(*change)), CaptionSettings(**settings))
    assert got == after
    # Done again, nothing is added or taken away any more.
    if change[0] != TEXT:
        assert changed_text(got, Change(*change), CaptionSettings(**settings)) == got


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("delete", "x"), "expected one of"),
        ((ADD, "  "), "no text to add"),
        ((TEXT, ""), "no text to add"),
        ((TEXT, "a", "a"), "nothing would change"),
        ((ADD, "a\nb"), "several lines"),
        ((TAG, "a", "b\r"), "several lines"),
        ((ADD, "a\0"), "zero byte"),
        ((ADD, "a" * 50_000), "at most 40000"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        check_change(Change(*change))


def test_a_plan_tells_what_would_be_written_and_writes_nothing(bulk):
    before = bulk.texts()
    plan = bulk.plan(ADD, "zib")
    assert [(one.sample.name, one.before, one.after) for one in plan.changes] == [
        ("a.png", "red cat, sofa", "zib, red cat, sofa"),
        ("b.png", "sofa,  red dog", "zib, sofa,  red dog"),
        ("c.png", "a große cät", "zib, a große cät"),
        ("d.png", "", "zib"),
    ]
    assert (plan.total, plan.problems) == (4, ()) and bulk.texts() == before
    assert len(bulk.plan(REMOVE, "sofa").changes) == 2


def test_a_change_is_written_and_taken_back_to_the_byte(bulk, folder):
    before = bulk.texts()
    outcome = bulk.write(bulk.plan(ADD, "zib").changes)
    assert bulk.texts() == {
        "a.txt": b"zib, red cat, sofa\n",
        "b.txt": b"zib, sofa,  red dog\n",
        "c.txt": "zib, a große cät\n".encode(),
        "d.txt": b"zib\n",
    }
    assert [path.read_bytes() for path in bulk.versions.all(folder / "b.txt")] == [before["b.txt"]]
    changed = same_captions(bulk.samples, outcome.edits)
    loaded = load_dataset(DatasetSettings(folder=str(folder)), allowed=anywhere).samples
    assert [changed[i].caption for i in range(4)] == [one.caption for one in loaded]
    undone = bulk.undo(outcome.edits)
    assert undone.problems == [] and bulk.texts() == before
    again = same_captions(loaded, undone.edits)
    assert [again[i].caption for i in range(4)] == [one.caption for one in bulk.samples]
    # What the change wrote into the file that is gone again is not lost.
    assert [path.read_bytes() for path in bulk.versions.all(folder / "d.txt")] == [b"zib\n"]


def test_two_changes_are_taken_back_one_after_the_other(bulk):
    before = bulk.texts()
    first = bulk.write(bulk.plan(ADD, "zib").changes)
    bulk.samples = tuple(edit.after for edit in first.edits)
    middle = bulk.texts()
    second = bulk.write(bulk.plan(TEXT, "red", "blue").changes)
    assert len(second.edits) == 2
    bulk.undo(second.edits)
    assert bulk.texts() == middle
    bulk.undo(first.edits)
    assert bulk.texts() == before


def test_what_cannot_be_written_is_named_and_the_others_go_on(bulk, folder):
    changes = bulk.plan(ADD, "zib").changes
    (folder / "a.txt").write_text("theirs", encoding="utf-8")
    (folder / "c.txt").chmod(0o444)
    outcome = bulk.write(changes)
    assert [edit.after.name for edit in outcome.edits] == ["b.png", "d.png"]
    assert "a.png: its caption was changed elsewhere" in outcome.problems[0]
    assert "c.txt could not be written (it is read-only)" in outcome.problems[1]
    assert bulk.texts()["a.txt"] == b"theirs" and bulk.texts()["c.txt"] == "a große cät".encode()


def test_captions_that_were_changed_since_are_not_taken_back(bulk, folder):
    outcome = bulk.write(bulk.plan(ADD, "zib").changes)
    (folder / "b.txt").write_text("mine", encoding="utf-8")
    (folder / "c.txt").unlink()
    undone = bulk.undo(outcome.edits)
    assert [edit.after.name for edit in undone.edits] == ["d.png", "a.png"]
    assert [text.split(":")[0] for text in undone.problems] == ["c.png", "b.png"]
    assert bulk.texts() == {"a.txt": b"red cat, sofa", "b.txt": b"mine"}


def test_a_stop_leaves_whole_captions_that_can_be_taken_back(bulk):
    before = bulk.texts()
    outcome = bulk.write(bulk.plan(ADD, "zib").changes, stop_at=3)
    assert len(outcome.edits) == 2 and bulk.texts()["c.txt"] == before["c.txt"]
    bulk.undo(outcome.edits)
    assert bulk.texts() == before


def test_unreadable_captions_are_told_in_the_plan(bulk, folder):
    (folder / "a.txt").write_bytes(b"caf\xe9")
    plan = bulk.plan(ADD, "zib")
    assert [one.sample.name for one in plan.changes] == ["b.png", "c.png", "d.png"]
    assert len(plan.problems) == 1 and "a.txt: expected UTF-8" in plan.problems[0]


def test_captions_whose_lines_would_be_read_otherwise_are_left(folder, tmp_path):
    (folder / "a.txt").write_text("red, cat\nblue, cat", encoding="utf-8")
    plan = Bulk(folder, tmp_path / "kept").plan(REMOVE, "cat")
    assert plan.changes == () and "would be read as tags, no longer as captions" in plan.problems[0]


def test_thousands_of_captions_take_seconds(tmp_path):
    place = tmp_path / "many"
    place.mkdir()
    Image.new("RGB", (16, 16)).save(place / "0.png")
    picture = (place / "0.png").read_bytes()
    for i in range(MANY):
        (place / f"{i}.png").write_bytes(picture)
        if i % 2:
            (place / f"{i}.txt").write_text(f"cat, number {i}", encoding="utf-8")
    bulk = Bulk(place, tmp_path / "kept")
    start = time.perf_counter()
    plan = bulk.plan(ADD, "zib")
    planned = time.perf_counter()
    assert (plan.total, len(plan.changes)) == (MANY, MANY)
    outcome = bulk.write(plan.changes)
    written = time.perf_counter()
    assert len(outcome.edits) == MANY and len(same_captions(bulk.samples, outcome.edits)) == MANY
    undone = bulk.undo(outcome.edits)
    took = {"planned": planned - start, "written": written - planned, "undone": time.perf_counter() - written}
    assert len(undone.edits) == MANY and len(list(place.glob("*.txt"))) == MANY // 2
    assert max(took.values()) < 60, took


def test_a_file_that_several_samples_share_is_changed_once(bulk):
    bulk.samples = (*bulk.samples, *bulk.samples)
    plan = bulk.plan(ADD, "zib")
    assert plan.total == len(plan.changes) == 4
    changed = same_captions(bulk.samples, bulk.write(plan.changes).edits)
    assert [changed[i].caption for i in range(4)] == [changed[i].caption for i in range(4, 8)]


def test_pictures_that_share_a_caption_file_change_together(folder, tmp_path):
    Image.new("RGB", (32, 32), "red").save(folder / "a.jpg")
    bulk = Bulk(folder, tmp_path / "kept")
    plan = bulk.plan(REMOVE, "red cat")
    assert [one.sample.name for one in plan.changes] == ["a.jpg"]
    changed = same_captions(bulk.samples, bulk.write(plan.changes).edits)
    assert {bulk.samples[i].name: sample.caption for i, sample in changed.items()} == {"a.jpg": "sofa", "a.png": "sofa"}
