"""Tags of captions and changes to many of them: what the routes give and write, and what they refuse."""

import json

import pytest
from PIL import Image

from harness.routes import Routes

CAPTIONS = ["red cat, sofa", "red cat, grass", "dog, sofa", ""]


@pytest.fixture
def tagged(folders):
    """Four pictures, of which the last has no caption."""
    place = folders.make("tagged", 4, size=(128, 128), alpha=True, captions=False)
    for i, text in enumerate(CAPTIONS, 1):
        if text:
            (place / f"cat {i}.txt").write_text(text, encoding="utf-8")
    return place


def texts(place):
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(place.glob("*.txt"))}


class Captions(Routes):
    """Plain requests about the captions of one open data set."""

    def __init__(self, server):
        super().__init__(server)
        self.id = "0" * 20

    def tags(self, kind=""):
        return self.get(f"/datasets/{self.id}/captions/tags{kind}")

    def send(self, route, body, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.post(f"/datasets/{self.id}/captions/{route}", body, **headers)

    def preview(self, action="add at start", text="zib", by="", pictures=None):
        return self.send("preview", {"action": action, "text": text, "by": by, "pictures": pictures})

    def carried(self, status, content):
        """What the work is once it is done."""
        assert status == 200, content

        def done():
            state = self.get(f"/datasets/{self.id}/captions/work")
            return None if state["running"] else state

        return self.until(done)

    def apply(self, *change, **values):
        status, plan = self.preview(*change, **values)
        assert status == 200, plan
        return self.carried(*self.send("apply", {"plan": plan["plan"]}))


@pytest.fixture
def captions(comfy_server, comfy_client, graph, tagged):
    routes = Captions(comfy_server)
    load = graph.add("MLT_LoadDataset", folder=tagged.name)
    node = graph.add("MLT_InspectDataset", dataset=[load, 0])
    routes.id = comfy_client.run(graph.nodes).outputs[node]["masked_lora_dataset"][0]
    routes.folder = tagged
    return routes


def test_tags_are_told_with_the_pictures_that_have_them(captions):
    table = captions.tags()
    assert (table["kind"], table["names"]) == ("tags", ["red cat", "sofa", "dog", "grass"])
    assert table["counts"] == [2, 2, 1, 1] and table["pictures"] == [[0, 1], [0, 3], [2, 1], []]
    assert captions.tags("?kind=words")["names"][:2] == ["cat", "red"]
    assert captions.ask("GET", f"/datasets/{captions.id}/captions/tags?kind=letters")[0] == 400


def test_a_change_is_previewed_written_told_and_undone(captions):
    before = texts(captions.folder)
    status, plan = captions.preview("replace tag", "red cat", "blue cat", [0, 2])
    assert status == 200 and (plan["total"], plan["changes"], plan["failed"]) == (2, 1, 0)
    assert plan["examples"] == [{"name": "cat 1.png", "before": "red cat, sofa", "after": "blue cat, sofa"}]
    assert texts(captions.folder) == before
    state = captions.carried(*captions.send("apply", {"plan": plan["plan"]}))
    assert (state["changed"], state["failed"], state["undo"]) == (1, 0, 1)
    assert texts(captions.folder) == before | {"cat 1": "blue cat, sofa\n"}
    assert "blue cat" in captions.tags()["names"]
    state = captions.apply()
    assert state["changed"] == 4 and texts(captions.folder)["cat 4"] == "zib\n"
    assert "no_caption" not in captions.get(f"/datasets/{captions.id}/pictures")["warnings"][3]
    for left in (1, 0):
        state = captions.carried(*captions.send("undo", {}))
        assert state["kind"] == "undo" and state["undo"] == left
    assert texts(captions.folder) == before
    columns = captions.get(f"/datasets/{captions.id}/pictures")
    assert columns["caption"] == [*CAPTIONS[:3], None] and "no_caption" in columns["warnings"][3]
    assert captions.send("undo", {})[0] == 409


def test_what_was_changed_elsewhere_is_named_and_the_others_go_on(captions):
    _, plan = captions.preview()
    (captions.folder / "cat 2.txt").write_text("theirs", encoding="utf-8")
    state = captions.carried(*captions.send("apply", {"plan": plan["plan"]}))
    assert state["changed"] == 3 and state["failed"] == 1 and state["problems"][0].startswith("cat 2.png")
    (captions.folder / "cat 3.txt").write_text("theirs too", encoding="utf-8")
    state = captions.carried(*captions.send("undo", {}))
    assert state["changed"] == 2 and state["problems"][0].startswith("cat 3.png")
    assert texts(captions.folder) == {"cat 1": "red cat, sofa", "cat 2": "theirs", "cat 3": "theirs too"}


def test_no_request_leads_elsewhere_or_does_what_was_not_previewed(captions):
    before = texts(captions.folder)
    good = {"action": "add at start", "text": "zib", "by": "", "pictures": None}
    for part in (
        {"pictures": [4]},
        {"pictures": [-1]},
        {"pictures": [True]},
        {"pictures": ["0"]},
        {"pictures": "../secret.txt"},
        {"action": "delete"},
        {"text": ""},
        {"text": 5},
        {"text": "a\nb"},
        {"file": "../secret.txt"},
    ):
        assert captions.send("preview", good | part)[0] == 400, part
    assert captions.send("preview", b"[" * 4000)[0] == 400
    assert captions.send("preview", b" " * (2 << 20))[0] == 413
    assert captions.send("preview", good, Origin="http://elsewhere.example")[0] == 403
    for plan in ("0" * 20, "", 5):
        assert captions.send("apply", {"plan": plan})[0] in (400, 409)
    _, first = captions.preview()
    captions.preview(text="other")
    assert captions.send("apply", {"plan": first["plan"]})[0] == 409
    captions.id = "f" * 20
    assert captions.preview()[0] == 404 and captions.send("undo", {})[0] == 404
    assert texts(captions.folder) == before


def test_a_folder_that_leads_out_by_now_is_not_written_to(captions, tmp_path):
    _, plan = captions.preview()
    moved = tmp_path / "elsewhere"
    captions.folder.rename(moved)
    try:
        captions.folder.symlink_to(moved, target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    try:
        before = texts(moved)
        state = captions.carried(*captions.send("apply", {"plan": plan["plan"]}))
        assert state["changed"] == 0 and state["failed"] == 4 and texts(moved) == before
    finally:
        # Other tests make this folder anew.
        captions.folder.unlink()


def test_work_is_stopped_between_two_files_and_what_was_written_is_undone(captions, comfy_client, graph, folders):
    place = folders.empty("many to stop")
    picture = place / "0.png"
    Image.new("RGB", (16, 16)).save(picture)
    for i in range(1, 1500):
        (place / f"{i}.png").write_bytes(picture.read_bytes())
    graph.nodes.clear()
    load = graph.add("MLT_LoadDataset", folder=place.name)
    node = graph.add("MLT_InspectDataset", dataset=[load, 0])
    captions.id = comfy_client.run(graph.nodes).outputs[node]["masked_lora_dataset"][0]
    _, plan = captions.preview()
    assert plan["new"] == plan["changes"] == 1500
    assert captions.send("apply", {"plan": plan["plan"]})[0] == 200
    # Of one picture, which takes no time.
    _, again = captions.preview(pictures=[0])
    assert captions.send("apply", {"plan": again["plan"]})[0] == 409
    state = captions.carried(*captions.send("stop", {}))
    written = len(texts(place))
    assert state["stopped"] and 0 < state["changed"] == state["undo"] == written < 1500
    state = captions.carried(*captions.send("undo", {}))
    assert state["changed"] == written and texts(place) == {}
