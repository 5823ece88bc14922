"""The routes of drafts of moving masks on a real server: edited, tracked, saved, and what they refuse."""

import io
import itertools
import json
import time

import numpy as np
import pytest
from PIL import Image

from harness.clips import number_of, numbered, write_clip
from harness.folders import anywhere, folder_settings
from harness.routes import SAFE, Routes
from harness.segmentation_models import SAM3_FILE
from masklora.dataset.loading import load_dataset
from masklora.dataset.moving import load_frames

SIZE, COUNT = (64, 48), 10
NUMBERS = itertools.count()
JSON, PNG = {"Content-Type": "application/json"}, {"Content-Type": "image/png"}


def png(levels, mode=None):
    file = io.BytesIO()
    Image.fromarray(levels, mode).save(file, "PNG")
    return file.getvalue()


def telling(number):
    """A mask uint8 (H, W) that tells its number by how many rows are learned."""
    levels = np.zeros(SIZE[::-1], np.uint8)
    levels[: number + 2] = 255
    return levels


class DraftRoutes(Routes):
    """Asks about the draft of one clip."""

    def __init__(self, server):
        super().__init__(server)
        self.place, self.revision = "", 0

    def draft(self):
        told = self.get(f"{self.place}/draft")
        self.revision = told["revision"]
        return told

    def change(self, path, values=None, *, seen=None, headers=None):
        """Status and answer of a POST; `values` are bytes of a PNG, or go as JSON."""
        kind = PNG if isinstance(values, bytes) else JSON
        body = values if isinstance(values, bytes) else json.dumps({} if values is None else values).encode()
        match = {"If-Match": f'"{self.revision if seen is None else seen}"'}
        status, answered, content = self.ask(
            "POST", f"{self.place}/draft/{path}", body=body, headers=kind | match | (headers or {})
        )
        # ComfyUI itself may be the one that refuses a page from elsewhere.
        assert status == 403 or {name: answered[name] for name in SAFE} == SAFE
        if status == 200 and "revision" in content:
            self.revision = content["revision"]
        return status, content

    def do(self, path, values=None):
        status, told = self.change(path, values)
        assert status == 200, told
        return told

    def refused(self, path, values=None, **more):
        status, told = self.change(path, values, **more)
        assert status >= 400, told
        return status, told if isinstance(told, bytes) else told["error"]

    def levels(self, number):
        status, headers, content = self.ask("GET", f"{self.place}/draft/{number}")
        assert status == 200, content
        image = Image.open(io.BytesIO(content))
        assert (image.format, image.mode, headers["Cache-Control"]) == ("PNG", "L", "no-store")
        return np.asarray(image)

    def tracked(self):
        """The state once tracking has ended."""
        return self.until(lambda: (told := self.draft())["tracking"] is None and told)


@pytest.fixture
def look(comfy_server, comfy_client, graph, folders):
    """Opens a folder, new for each test, by running its graph; gives the routes to its first picture."""
    opened = []

    def run(folder, *, sam3=None, **settings):
        graph.nodes.clear()
        load = graph.add("MLT_LoadDataset", folder=folder, **settings)
        links = {} if sam3 is None else {"sam3": [graph.add("CheckpointLoaderSimple", ckpt_name=sam3), 0]}
        node = graph.add("MLT_InspectDataset", dataset=[load, 0], **links)
        routes = DraftRoutes(comfy_server)
        found = comfy_client.run(graph.nodes).outputs[node]["masked_lora_dataset"][0]
        routes.dataset, routes.place = found, f"/datasets/{found}/pictures/0"
        routes.name, routes.folder = folder, folders.input / folder
        opened.append(routes)
        return routes

    run.folders, run.new = folders, lambda: folders.input / f"drafts {next(NUMBERS)}"
    yield run
    for routes in opened:
        for number in range(len(routes.get(f"/datasets/{routes.dataset}/pictures")["name"])):
            routes.place = f"/datasets/{routes.dataset}/pictures/{number}"
            if routes.ask("GET", f"{routes.place}/draft/0")[0] == 200:
                routes.draft()
                routes.do("discard")


@pytest.fixture
def clip(look):
    """A clip whose frames show their numbers, without a mask."""
    folder = look.new()
    write_clip(folder / "walk.mkv", [numbered(number, SIZE) for number in range(COUNT)], rate=12)
    return look(folder.name)


def loaded(folder):
    (sample,) = load_dataset(folder_settings(folder), allowed=anywhere).samples
    return sample


def test_a_draft_is_painted_saved_and_loaded_with_the_frames_that_it_belongs_to(clip, comfy_client, graph):
    content = (clip.folder / "walk.mkv").read_bytes()
    told = clip.draft()
    assert (told["frames"], told["size"], told["rate"], told["saves"]) == (COUNT, list(SIZE), 12, "walk-masklabel.mkv")
    assert told["times"] == pytest.approx([number / 12 for number in range(COUNT)], abs=1e-3)
    assert not told["moving"] and not told["unsaved"] and told["methods"][0] == "flow"
    assert told["drift"] == [None] * COUNT and told["tracking"] is None and told["key_frames"] == []
    assert (clip.levels(3) == 255).all()
    for number in range(COUNT):
        clip.do(str(number), png(telling(number)))
        assert np.array_equal(clip.levels(number), telling(number))
    assert clip.draft()["key_frames"] == list(range(COUNT))
    before = clip.get(f"/datasets/{clip.dataset}/pictures")
    saved = clip.do("save")
    assert saved["changed"] == [0] and saved["version"] > before["version"] and saved["moving"] and not saved["unsaved"]
    assert (clip.folder / "walk.mkv").read_bytes() == content
    sample = loaded(clip.folder)
    assert sample.mask_path == clip.folder / "walk-masklabel.mkv" and sample.mask_moving
    found = list(load_frames(sample, range(COUNT)))
    assert [number_of(one.rgb) for one in found] == list(range(COUNT))
    assert all(np.array_equal(one.mask * 255, telling(number)) for number, one in enumerate(found))
    shown = clip.get(f"/datasets/{clip.dataset}/pictures")
    assert shown["clip"][0]["mask_moving"] and shown["has_mask"] == [True]
    assert shown["stamp"] != before["stamp"] and shown["coverage"][0] < 1
    graph.nodes.clear()
    again = graph.add("MLT_LoadDataset", folder=clip.name)
    checked = graph.add("MLT_InspectDataset", dataset=[again, 0])
    assert "1 clip: 1 with a mask" in "\n".join(comfy_client.run(graph.nodes).outputs[checked]["text"])


def test_the_former_masks_are_kept_and_the_next_save_replaces_them(clip, comfy_server):
    clip.draft()
    clip.do("2", png(telling(5)))
    clip.do("save")
    first = (clip.folder / "walk-masklabel.mkv").read_bytes()
    clip.do("apply", {"op": "invert", "amount": 0, "to": [0, 4]})
    clip.do("save")
    kept = [file.read_bytes() for file in comfy_server.base.rglob("previous_masks/*/*-walk-masklabel.mkv")]
    assert first in kept and (clip.folder / "walk-masklabel.mkv").read_bytes() not in kept
    assert np.array_equal(np.rint(next(iter(load_frames(loaded(clip.folder), [2]))).mask * 255), 255 - telling(5))


def test_the_masks_before_the_last_save_come_back_as_a_step(clip):
    clip.draft()
    status, sentence = clip.refused("previous")
    assert (status, "no former version of its masks is kept" in sentence) == (422, True)
    clip.do("2", png(telling(5)))
    clip.do("save")
    clip.do("apply", {"op": "clear", "amount": 0, "to": [0, 4]})
    clip.do("save")
    told = clip.do("previous")
    assert told["unsaved"] and told["undo"] == 3 and np.array_equal(clip.levels(2), telling(5))
    clip.do("undo")
    assert not clip.levels(2).any()


def test_one_mask_for_all_frames_stays_a_still_picture(clip):
    clip.draft()
    clip.do("4", png(telling(9)))
    told = clip.do("still", {"from": 4})
    assert told["key_frames"] == [4] and all(np.array_equal(clip.levels(n), telling(9)) for n in range(COUNT))
    told = clip.do("save")
    assert not told["moving"] and not told["unsaved"] and told["saves"] == "walk-masklabel.png"
    assert np.array_equal(np.asarray(Image.open(clip.folder / "walk-masklabel.png")), telling(9))
    assert not (clip.folder / "walk-masklabel.mkv").exists()
    clip.do("undo")
    assert clip.do("save")["moving"]
    assert sorted(file.name for file in clip.folder.iterdir()) == ["walk-masklabel.mkv", "walk.mkv"]


def test_copies_changes_and_steps(clip):
    clip.draft()
    clip.do("1", png(telling(1)))
    told = clip.do("copy", {"from": 1, "to": [3, 5]})
    assert [bool(np.array_equal(clip.levels(n), telling(1))) for n in range(7)] == [
        False,
        True,
        False,
        True,
        True,
        True,
        False,
    ]
    assert (told["undo"], told["redo"], told["key_frames"]) == (2, 0, [1])
    clip.do("apply", {"op": "grow", "amount": 3, "to": [4, 5]})
    assert (clip.levels(4) > 0).sum() > (clip.levels(3) > 0).sum() == (clip.levels(1) > 0).sum()
    clip.do("apply", {"op": "clear", "amount": 0, "to": [0, 0]})
    assert clip.levels(0).max() == 0
    for _ in range(4):
        told = clip.do("undo")
    assert (clip.levels(4) == 255).all() and not told["unsaved"] and (told["undo"], told["redo"]) == (0, 4)
    assert clip.refused("undo") == (409, "There is nothing to undo in this draft.")
    clip.do("redo")
    assert np.array_equal(clip.levels(1), telling(1))
    assert clip.do("discard") == {"discarded": True}
    assert clip.ask("GET", f"{clip.place}/draft/0")[0] == 404
    assert clip.draft()["undo"] == 0


def test_two_windows_do_not_overwrite_each_other(clip, comfy_server):
    old = clip.draft()["revision"]
    clip.do("2", png(telling(2)))
    status, told = clip.refused("2", png(telling(3)), seen=old)
    assert status == 412 and "changed in another window" in told
    for path, values in (
        ("copy", {"from": 2, "to": [5, 6]}),
        ("apply", {"op": "fill", "amount": 0, "to": [0, 5]}),
        ("still", {"from": 3}),
        ("undo", {}),
        ("save", {}),
        ("discard", {}),
        ("track", {"from": 3, "to": 5, "method": "flow"}),
    ):
        assert clip.refused(path, values, seen=old)[0] == 412
    assert np.array_equal(clip.levels(2), telling(2))
    _, headers, _ = clip.ask("GET", f"{clip.place}/draft/2")
    assert clip.change("3", png(telling(3)), seen=old)[0] == 200, "another frame"
    assert clip.change("2", png(telling(4)), seen=headers["ETag"].strip('"'))[0] == 200
    for bad, expected in (("", 400), ("x", 400), ("9" * 40, 400), ("9" * 15, 412), ("-1", 400), ("1", 412)):
        assert clip.refused("4", png(telling(3)), seen=bad)[0] == expected
    status, _, told = clip.ask("POST", f"{clip.place}/draft/undo", body=b"{}", headers=JSON)
    assert (status, "If-Match" in told["error"]) == (428, True)


def test_a_mask_that_was_changed_on_the_disk_is_not_overwritten(clip, comfy_server):
    clip.draft()
    clip.do("2", png(telling(2)))
    clip.do("save")
    clip.do("3", png(telling(3)))
    file = clip.folder / "walk-masklabel.mkv"
    write_clip(file, [telling(1)[..., None]] * COUNT, "ffv1", "gray")
    theirs = file.read_bytes()
    status, told = clip.refused("save")
    assert status == 412 and "walk.mkv: its masks were changed elsewhere" in told
    assert file.read_bytes() == theirs
    assert clip.draft()["unsaved"] and clip.do("over")["unsaved"]
    assert not clip.do("save")["unsaved"]
    assert any(kept.read_bytes() == theirs for kept in comfy_server.base.rglob("previous_masks/*/*-walk-masklabel.mkv"))
    clip.do("4", png(telling(4)))
    file.write_bytes(theirs)
    assert clip.refused("save")[0] == 412
    clip.do("discard")
    assert np.array_equal((clip.draft(), clip.levels(7))[1], telling(1))


def scene(count=COUNT):
    """A textured square that moves before a wall: pictures and true masks."""
    random = np.random.default_rng(5)
    wall = random.integers(90, 160, (SIZE[1] // 4, SIZE[0] // 4, 1)).repeat(3, 2).repeat(4, 0).repeat(4, 1)
    skin = random.integers(150, 255, (6, 6)).repeat(4, 0).repeat(4, 1)
    pictures, masks = [], []
    for number in range(count):
        place = (slice(12, 36), slice(4 + 3 * number, 28 + 3 * number))
        picture, mask = wall.astype(np.uint8).copy(), np.zeros(SIZE[::-1], np.uint8)
        picture[place], mask[place] = 0, 255
        picture[(*place, 1)] = skin
        pictures.append(picture)
        masks.append(mask)
    return pictures, masks


@pytest.fixture
def moving(look):
    """A clip in which something moves, its draft open; and the true masks."""
    pictures, masks = scene()
    folder = look.new()
    write_clip(folder / "walk.mkv", pictures)
    routes = look(folder.name)
    routes.masks = masks
    routes.draft()
    return routes


def overlap(one, other):
    one, other = one > 127, other > 127
    return (one & other).sum() / (one | other).sum()


def test_a_mask_is_tracked_both_ways_and_on_from_a_corrected_frame(moving):
    moving.do("4", png(moving.masks[4]))
    told = moving.do("track", {"from": 4, "to": 9, "method": "flow"})
    if told["tracking"] is not None:
        assert told["tracking"].items() >= {"from": 4, "to": 9, "method": "flow", "total": 5}.items()
    told = moving.tracked()
    assert told["tracked"] == {"from": 4, "to": 9, "method": "flow", "reached": 9, "how": "done", "problem": ""}
    moving.do("track", {"from": 4, "to": 0, "method": "flow"})
    told = moving.tracked()
    assert told["key_frames"] == [4] and told["drift"][4] is None
    assert all(0 <= told["drift"][n] <= 1 for n in range(COUNT) if n != 4)
    assert all(overlap(moving.levels(n), moving.masks[n]) > 0.8 for n in range(COUNT))
    before = moving.levels(8)
    moving.do("7", png(moving.masks[0]))
    moving.do("track", {"from": 4, "to": 9, "method": "flow"})
    told = moving.tracked()
    assert (told["tracked"]["to"], told["tracked"]["reached"]) == (6, 6)
    assert np.array_equal(moving.levels(7), moving.masks[0]) and np.array_equal(moving.levels(8), before)
    moving.do("track", {"from": 7, "to": 9, "method": "flow"})
    assert moving.tracked()["tracked"]["how"] == "done" and not np.array_equal(moving.levels(8), before)
    status, sentence = moving.refused("track", {"from": 6, "to": 9, "method": "flow"})
    assert status == 422 and "frame 7 beside it was made by hand" in sentence
    moving.do("save")
    assert np.array_equal(np.rint(next(iter(load_frames(loaded(moving.folder), [7]))).mask * 255), moving.masks[0])


def test_sam_3_tracks_both_ways_over_more_frames_than_it_gives_at_once(look, small_models):
    count, gone = 58, range(20, 24)
    truth = [np.zeros((64, 96), np.uint8) for _ in range(count)]
    for number, mask in enumerate(truth):
        if number not in gone:
            mask[20:44, 4 + number : 28 + number] = 255
    folder = look.new()
    write_clip(folder / "walk.mkv", [np.dstack([mask] * 3) for mask in truth])
    routes = look(folder.name, sam3=SAM3_FILE)
    assert routes.draft()["methods"] == ["flow", "sam3"]
    routes.do("53", png(truth[53]))
    for end in (0, 57):
        routes.do("track", {"from": 53, "to": end, "method": "sam3"})
        assert routes.tracked()["tracked"]["how"] == "done"
    told = routes.draft()
    assert told["drift"] == [None if n == 53 else float(n in gone) for n in range(count)]
    assert all(overlap(routes.levels(n), truth[n]) > 0.85 for n in range(count) if n not in gone)
    assert not any(routes.levels(n).any() for n in gone)


@pytest.fixture
def busy(comfy_client, train_graph):
    """Keeps ComfyUI's queue at work from the call on until the test ends."""
    started = []

    def begin():
        started.append(comfy_client.submit(train_graph(name="busy drafts", steps=3000)))

    yield begin
    for prompt in started:
        comfy_client.wait_for(
            lambda kind, data, prompt=prompt: kind == "execution_start" and data["prompt_id"] == prompt
        )
        comfy_client.interrupt()
        comfy_client.finish(prompt, check=False)


def test_sam_3_works_for_one_at_a_time_and_gives_way_to_the_queue(look, small_models, busy):
    square = np.zeros((64, 96), np.uint8)
    square[20:44, 30:54] = 255
    folder = look.new()
    write_clip(folder / "walk.mkv", [np.dstack([np.roll(square, n % 9, 1)] * 3) for n in range(400)])
    routes = look(folder.name, sam3=SAM3_FILE)
    routes.draft()
    routes.do("0", png(square))
    routes.do("track", {"from": 0, "to": 399, "method": "sam3"})
    routes.until(lambda: routes.draft()["tracking"]["done"] > 0)
    click = json.dumps({"points": [{"x": 40, "y": 30, "inside": True}]}).encode()
    status, _, told = routes.ask("POST", f"{routes.place}/select", body=click, headers=JSON)
    assert (status, "SAM 3 is tracking a mask" in told["error"]) == (409, True)
    busy()
    told = routes.tracked()["tracked"]
    assert told["how"] == "failed" and "began to work on its queue" in told["problem"]
    assert 0 < told["reached"] < 399 and routes.levels(told["reached"]).any()
    status, sentence = routes.refused("track", {"from": told["reached"], "to": 399, "method": "sam3"})
    assert (status, "busy with the queue" in sentence) == (409, True)
    routes.do("track", {"from": told["reached"], "to": told["reached"] + 2, "method": "flow"})
    assert routes.tracked()["tracked"]["how"] == "done"


@pytest.fixture
def long(look):
    """A clip that takes a while to be tracked, while it is."""
    folder = look.new()
    pictures, masks = scene(4)
    big = [picture.repeat(8, 0).repeat(8, 1) for picture in pictures]
    write_clip(folder / "walk.mkv", [big[number // 2 % 4] for number in range(120)])
    routes = look(folder.name)
    routes.draft()
    routes.do("0", png(masks[0].repeat(8, 0).repeat(8, 1)))
    assert routes.do("track", {"from": 0, "to": 119, "method": "flow"})["tracking"]["total"] == 119
    yield routes
    routes.change("track/stop")


def test_while_a_mask_is_tracked_changes_wait_and_stopping_keeps_what_is_done(long):
    long.until(lambda: long.draft()["tracking"]["done"] > 1)
    for path, values in (
        ("track", {"from": 50, "to": 60, "method": "flow"}),
        ("save", {}),
        ("undo", {}),
        ("still", {"from": 3}),
        ("119", png(np.zeros((SIZE[1] * 8, SIZE[0] * 8), np.uint8))),
    ):
        # The revision rises with each frame that is tracked.
        status, told = next(
            found for _ in range(50) if (found := (long.draft(), long.refused(path, values))[1])[0] != 412
        )
        assert (status, "is being tracked" in told) == (409, True)
    assert not (long.folder / "walk-masklabel.mkv").exists()
    status, told = long.change("track/stop")
    assert status == 200 and told["tracking"] is None and told["tracked"]["how"] == "stopped"
    reached = told["tracked"]["reached"]
    assert 1 < reached < 119
    assert told["drift"][reached] is not None and told["drift"][reached + 1] is None
    assert (long.levels(reached + 1) == 255).all() and not (long.levels(reached) == 255).all()
    assert long.change("track/stop")[0] == 200
    long.do("undo")
    assert (long.levels(reached) == 255).all() and not (long.levels(0) == 255).all()


def test_a_clip_that_goes_while_it_is_edited_is_told(moving):
    moving.do("4", png(moving.masks[4]))
    (moving.folder / "walk.mkv").unlink()
    moving.do("track", {"from": 4, "to": 9, "method": "flow"})
    told = moving.tracked()
    assert told["tracked"]["how"] == "failed" and "walk.mkv" in told["tracked"]["problem"]
    status, sentence = moving.refused("save")
    assert status in (404, 422) and "walk.mkv" in sentence
    assert list(moving.folder.iterdir()) == []
    assert np.array_equal(moving.levels(4), moving.masks[4])


BAD = {
    "copy": [
        {"from": COUNT, "to": [0, 1]},
        {"from": -1, "to": [0, 1]},
        {"from": 1, "to": [3, 2]},
        {"from": 1, "to": [0, COUNT]},
        {"from": 1, "to": [0]},
        {"from": 1, "to": 3},
        {"from": True, "to": [0, 1]},
        {"from": 1.0, "to": [0, 1]},
        {"from": "1", "to": [0, 1]},
        {"from": 1},
        {"from": 1, "to": [0, 1], "path": "/etc/passwd"},
        [],
    ],
    "apply": [
        {"op": "explode", "amount": 0, "to": [0, 1]},
        {"op": ["grow"], "amount": 1, "to": [0, 1]},
        {"op": "grow", "amount": 0, "to": [0, 1]},
        {"op": "grow", "amount": -1, "to": [0, 1]},
        {"op": "grow", "amount": 1e9, "to": [0, 1]},
        {"op": "grow", "amount": float("nan"), "to": [0, 1]},
        {"op": "feather", "amount": "2", "to": [0, 1]},
        {"op": "clear", "amount": 3, "to": [0, 1]},
        {"op": "clear", "amount": 0, "to": [1, 0]},
    ],
    "still": [{"from": COUNT}, {"from": None}, {}],
    "track": [
        {"from": 0, "to": COUNT, "method": "flow"},
        {"from": 0, "to": 0, "method": "flow"},
        {"from": 0, "to": 3, "method": "magic"},
        {"from": 0, "to": 3, "method": ["flow"]},
        {"from": 0, "to": 3, "method": "sam3"},
    ],
    "undo": [{"steps": 2}, []],
    "previous": [{"version": 2}],
    "save": [{"path": "/tmp/x"}],
    "track/stop": [{"x": 1}],
    "discard": [{"x": 1}],
}


def test_what_is_of_another_form_is_refused_and_changes_nothing(clip):
    before = clip.draft()
    for path, bodies in BAD.items():
        for values in bodies:
            assert clip.refused(path, values)[0] == 400, (path, values)
    for body in (b"", b"white", png(telling(1).T.copy()), png(np.dstack([telling(1)] * 3)), png(telling(1))[:60]):
        assert clip.refused("1", body)[0] == 400
    assert clip.refused("1", png(telling(1).astype(np.uint16)))[0] == 400
    assert clip.refused("1", {})[0] == 415
    assert clip.refused("copy", png(telling(1)))[0] == 415
    for number, expected in (
        (COUNT, 404),
        ("999999999", 404),
        ("-1", 400),
        ("x", 400),
        ("1e1", 400),
        ("%2e%2e", 400),
    ):
        assert clip.ask("GET", f"{clip.place}/draft/{number}")[0] == expected
        assert clip.refused(str(number), png(telling(1)))[0] == expected
    assert clip.draft() == before and [file.name for file in clip.folder.iterdir()] == ["walk.mkv"]
    for place in (f"/datasets/{'0' * 20}/pictures/0", f"/datasets/{clip.dataset}/pictures/1"):
        assert clip.ask("GET", f"{place}/draft")[0] == 404
        assert clip.ask("POST", f"{place}/draft/undo", body=b"{}", headers=JSON | {"If-Match": '"1"'})[0] == 404
    assert clip.ask("GET", "/datasets/..%2f/pictures/0/draft")[0] in (400, 404)


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_page_from_another_origin_changes_nothing(clip, headers):
    before = clip.draft()
    for path in ("0", "copy", "apply", "still", "undo", "redo", "previous", "track", "track/stop", "save", "discard"):
        assert clip.refused(path, png(telling(1)) if path == "0" else {}, headers=headers)[0] == 403
    assert clip.draft() == before


def test_a_picture_has_no_draft_and_a_frame_may_be_kept_by_its_stamp(clip, look):
    look.folders.make("cats", count=1, size=SIZE)
    cats = look("cats")
    status, _, told = cats.ask("GET", f"{cats.place}/draft")
    assert (status, "is one still picture" in told["error"]) == (422, True)
    stamp = clip.draft()["stamps"][0]
    assert "immutable" in clip.ask("GET", f"{clip.place}/draft/0?stamp={stamp}")[1]["Cache-Control"]
    assert clip.ask("GET", f"{clip.place}/draft/0?stamp={stamp - 1}")[1]["Cache-Control"] == "no-store"


def test_a_new_run_of_the_graph_keeps_the_draft(clip, look):
    clip.draft()
    clip.do("2", png(telling(2)))
    (clip.folder / "walk.txt").write_text("a walk", encoding="utf-8")
    again = look(clip.name)
    assert again.dataset == clip.dataset
    assert again.get(f"/datasets/{again.dataset}/pictures")["caption"] == ["a walk"], "it was loaded again"
    assert again.draft()["undo"] == 1 and np.array_equal(again.levels(2), telling(2))


def test_what_is_not_saved_is_told_and_a_draft_without_changes_follows_its_file(clip):
    assert not clip.get(f"{clip.place}/frames")["draft"]
    clip.draft()
    clip.do("2", png(telling(2)))
    assert clip.get(f"{clip.place}/frames")["draft"]
    clip.do("save")
    assert not clip.get(f"{clip.place}/frames")["draft"]
    write_clip(clip.folder / "walk-masklabel.mkv", [telling(1)[..., None]] * COUNT, "ffv1", "gray")
    assert clip.draft()["undo"] == 0 and np.array_equal(clip.levels(7), telling(1))
    # With changes it stays, and saving tells of the conflict.
    clip.do("3", png(telling(3)))
    write_clip(clip.folder / "walk-masklabel.mkv", [telling(2)[..., None]] * COUNT, "ffv1", "gray")
    assert clip.draft()["unsaved"] and np.array_equal(clip.levels(3), telling(3))
    assert clip.refused("save")[0] == 412


def test_a_draft_without_changes_follows_its_clip(clip):
    clip.draft()
    write_clip(clip.folder / "walk.mkv", [numbered(number, SIZE) for number in range(COUNT + 3)], rate=12)
    assert clip.draft()["frames"] == COUNT + 3


def test_only_so_many_drafts_are_kept_and_one_without_changes_makes_room(look):
    folder = look.new()
    for number in range(10):
        write_clip(folder / f"clip {number}.mkv", [numbered(n, SIZE) for n in range(2)])
    routes = look(folder.name)
    places = [f"/datasets/{routes.dataset}/pictures/{number}" for number in range(10)]
    for place in places[:7]:
        routes.place = place
        routes.draft()
        routes.do("0", png(telling(1)))
    for place in places[7:]:
        routes.place = place
        assert not routes.draft()["unsaved"]
    assert routes.ask("GET", f"{places[7]}/draft/0")[0] == 404, "it had no changes"
    routes.do("0", png(telling(1)))
    status, _, told = routes.ask("GET", f"{places[8]}/draft")
    assert status == 409 and "8 clips have changed masks that are not saved: clip 0.mkv" in told["error"]
    routes.do("discard")
    routes.place = places[8]
    assert routes.draft()["frames"] == 2


def test_a_long_clip_opens_at_once_and_answers_quickly(look):
    folder = look.new()
    write_clip(folder / "walk.mkv", [numbered(n % 256, SIZE) for n in range(600)])
    routes = look(folder.name)
    started = time.monotonic()
    assert len(routes.draft()["stamps"]) == 600
    routes.do("apply", {"op": "invert", "amount": 0, "to": [0, 599]})
    assert time.monotonic() - started < 20
