"""The frames of a clip in the mask editor of the real page: what a person does to them is in the saved mask clip."""

import http.client
import io
import json

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from devtools.page_modules import address
from harness.clip_files import halves, video
from harness.clip_page import TILES, show_clips
from harness.clips import write_clip
from harness.mask_editor import EDITOR, SETTINGS, Editor
from harness.segmentation_models import SAM3_FILE
from masklora.clips.reading import read_mask_frames

SIZE, COUNT = (96, 64), 9
OPEN = f"""([dataset, index, name, size, clip]) => {{
    window.editorClosed = false
    import("/scripts/api.js").then(async ({{ api }}) => {{
        const {{ openEditor }} = await import("{address("mask_editor/editor")}")
        const onSaved = answer => (window.saves ??= []).push(answer)
        await openEditor({{ api, dataset, picture: {{ index, name, size, clip }}, onSaved }})
        window.editorClosed = true
    }})
}}"""


def moving_square():
    """Frames uint8 (N, H, W, 3) with a square that goes to the right over a still field, and its masks."""
    width, height = SIZE
    ground = (
        np.random.default_rng(3).integers(40, 120, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    )
    texture = np.random.default_rng(4).integers(150, 255, (6, 6, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    frames, masks = np.repeat(ground[None], COUNT, 0), np.zeros((COUNT, height, width, 3), np.uint8)
    for number in range(COUNT):
        left = 8 + 3 * number
        frames[number, 20:44, left : left + 24] = texture
        masks[number, 20:44, left : left + 24] = 255
    return frames, masks


def walk_that_hides(count, *, hidden):
    """Frames uint8 (N, H, W, 3) with a red square that goes to the right and a green one that stands still.

    And the masks of the red one, bool (N, H, W), which is not to be seen in the frames `hidden`.
    """
    frames = np.full((count, SIZE[1], SIZE[0], 3), 90, np.uint8)
    frames[:, 4:14, 80:92] = (30, 200, 40)
    masks = np.zeros((count, SIZE[1], SIZE[0]), bool)
    for number in set(range(count)) - set(hidden):
        masks[number, 20:44, 4 + 2 * number : 28 + 2 * number] = True
    frames[masks] = (220, 40, 30)
    return frames, masks


class ClipEditor(Editor):
    """The editor on a clip of so many frames."""

    count = COUNT

    def open_clip(self, dataset, index, name):
        self.page.evaluate(OPEN, [dataset, index, name, list(SIZE), {"frames": COUNT, "rate": 10}])
        self.ready(SIZE)
        self.idle()
        self.tab.wait_for_selector(f"{EDITOR} .mlt-editor-clip:visible")
        return self

    def at(self, number):
        self.tab.locator(f"{EDITOR} .mlt-timeline-words").get_by_text(f"Frame {number} of {self.count - 1}").wait_for()
        return self

    def words(self):
        return self.tab.locator(f"{EDITOR} .mlt-timeline-words").text_content()

    def go(self, number):
        self.tab.locator(f"{EDITOR} .mlt-timeline-slider").fill(str(number))
        return self.at(number)

    def saved(self, path):
        self.press("Control+s")
        self.says(f"Saved as {path.name}.")
        return np.stack([mask > 0.5 for mask in read_mask_frames(path, range(self.count))])


@pytest.fixture
def editor(page):
    page.evaluate(f"() => localStorage.removeItem('{SETTINGS}')")
    return ClipEditor(page)


@pytest.fixture
def opened(comfy_client, graph, folders):
    """A folder of two clips, one with a mask that moves and one without, and the id of its opened data set."""
    folder = folders.make("clip editor", count=0)
    frames, _ = moving_square()
    video(folder / "bare.mp4", frames=frames, rate=10)
    video(folder / "walk.mp4", COUNT, SIZE, rate=10)
    video(folder / "walk_mask.mkv", frames=halves(COUNT, SIZE), rate=10, codec="ffv1")
    load = graph.add("MLT_LoadDataset", folder="clip editor")
    node = graph.add("MLT_InspectDataset", dataset=[load, 0], resolution=64)
    return folder, comfy_client.run(graph.nodes).outputs[node]["masked_lora_dataset"][0]


def test_grabcut_looks_at_the_frame_that_is_meant(comfy_server, opened):
    _, dataset = opened
    _, truth = moving_square()

    def cut(frame, box):
        connection = http.client.HTTPConnection("127.0.0.1", comfy_server.port, timeout=60)
        path = f"/masked_lora/datasets/{dataset}/pictures/0/grabcut?frame={frame}"
        connection.request("POST", path, json.dumps({"box": box}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        return np.asarray(Image.open(io.BytesIO(body))) > 127 if answer.status == 200 else json.loads(body)["error"]

    for frame in (0, 8):
        found, wanted = cut(frame, [4 + 3 * frame, 14, 34, 36]), truth[frame, ..., 0] > 127
        assert (found & wanted).sum() / (found | wanted).sum() > 0.85
    assert "bare.mp4" in cut(COUNT, [4, 14, 34, 36])


def test_frames_of_a_moving_mask_are_drawn_on_copied_undone_and_saved(editor, opened):
    folder, dataset = opened
    mask, before = folder / "walk_mask.mkv", halves(COUNT, SIZE)[..., 0] > 127
    editor.open_clip(dataset, 1, "walk.mp4")
    expect(editor.button("Save")).to_be_disabled()
    editor.go(4)
    editor.press("r")
    editor.drag((4, 4), (20, 20))
    editor.idle()
    editor.canvas().focus()
    editor.press("Alt+ArrowRight")
    editor.at(5).press("i")
    editor.idle()
    # Copied to the frame behind it, which is shown then; that is taken back, wherever one looks.
    editor.press("d")
    editor.at(6).idle()
    editor.go(0)
    editor.press("Control+z")
    editor.at(6).idle()
    editor.tab.get_by_role("spinbutton", name="First frame of the range").fill("7")
    editor.tab.get_by_role("spinbutton", name="Last frame of the range").fill("8")
    editor.tab.get_by_role("combobox", name="What is done to the range").select_option("fill")
    editor.button("Apply to range").click()
    editor.idle()
    expected = before.copy()
    expected[4, 4:20, 4:20] = True
    expected[5], expected[7:] = ~before[5], True
    assert np.array_equal(editor.saved(mask), expected)
    expect(editor.button("Save")).to_be_disabled()
    editor.go(5)
    assert "key frame" in editor.words()
    editor.press("i")
    editor.idle()
    editor.button("Discard changes").click()
    editor.tab.get_by_role("alertdialog").get_by_role("button", name="Discard", exact=True).click()
    editor.says("as they were saved")
    expect(editor.button("Save")).to_be_disabled()
    editor.button("Previous version").click()
    editor.says("The previous version is back")
    assert np.array_equal(editor.saved(mask), before)
    editor.press("Escape")
    editor.tab.wait_for_function("() => window.editorClosed")
    assert editor.page.problems == []


def test_a_clip_without_a_mask_gets_one_that_moves_by_tracking(editor, opened):
    folder, dataset = opened
    _, truth = moving_square()
    editor.open_clip(dataset, 0, "bare.mp4")
    assert editor.tab.get_by_text("one mask that counts for each of its frames").is_visible()
    editor.go(3)
    editor.button("Let it move").click()
    editor.says("Each frame has its own mask now")
    editor.press("r")
    editor.drag((17, 20), (41, 44))
    editor.idle()
    editor.canvas().focus()
    editor.press("t")
    editor.says("Tracked from frame 3 to 8.")
    editor.at(8)
    assert "drift" in editor.words()
    editor.shot("tracked")
    editor.go(3)
    editor.button("Track backwards").click()
    editor.says("Tracked from frame 3 to 0.")
    editor.at(0)
    found = editor.saved(folder / "bare-masklabel.mkv")
    wanted = truth[..., 0] > 127
    share = [(a & b).sum() / (a | b).sum() for a, b in zip(found, wanted, strict=True)]
    assert share[3] == 1 and min(share) > 0.6
    # Corrected by hand, a frame is left as it is when another is tracked over it.
    editor.go(6)
    editor.button("Ignore all").click()
    editor.idle()
    editor.go(3)
    editor.canvas().focus()
    editor.press("t")
    editor.says("Tracked from frame 3 to 5.")
    editor.go(6)
    expect(editor.button("Undo")).to_be_enabled()
    editor.press("Escape")
    editor.tab.get_by_role("alertdialog").get_by_role("button", name="Discard", exact=True).click()
    editor.tab.wait_for_function("() => window.editorClosed")
    assert editor.page.problems == []


def test_keys_stay_in_the_editor_and_what_is_drawn_after_an_undo_is_drawn_on_that(editor, opened):
    folder, dataset = opened
    editor.open_clip(dataset, 0, "bare.mp4")
    where = editor.tab.url
    # A button that goes, or is switched off, with the focus on it would leave the keys to the page behind.
    editor.button("Let it move").focus()
    editor.press("Enter")
    editor.says("Each frame has its own mask now")
    expect(editor.canvas()).to_be_focused()
    editor.press("Alt+ArrowRight")
    editor.at(1).press("Alt+Shift+ArrowRight")
    editor.at(8).press("Alt+ArrowLeft")
    # In a field, too, where a browser would go to the page before.
    editor.at(7).tab.get_by_role("spinbutton", name="First frame of the range").focus()
    editor.press("Alt+ArrowLeft")
    editor.at(6).press("Alt+Shift+ArrowLeft")
    editor.at(0)
    assert editor.tab.url == where
    editor.canvas().focus()
    editor.press("r")
    editor.drag((8, 20), (32, 44))
    editor.idle()
    editor.button("Track forwards").focus()
    editor.press("Enter")
    editor.says("Tracked from frame 0 to 8.")
    editor.at(8)
    expect(editor.canvas()).to_be_focused()
    editor.press("Alt+ArrowLeft")
    editor.at(7).drag((60, 4), (70, 14))
    editor.press("Control+z")
    # While it works, which it says, nothing can be drawn.
    editor.idle()
    editor.drag((72, 4), (92, 14))
    editor.idle()
    found = editor.saved(folder / "bare-masklabel.mkv")
    assert found[7, 5:13, 73:91].all() and not found[7, 5:13, 60:70].any() and found[7, 24:40, 34:44].all()
    assert not found[[6, 8], 5:13, 73:91].any()
    assert editor.page.problems == []


LANE = """([number, count]) => {
    const marks = document.querySelector(".mlt-editor .mlt-timeline-marks")
    const ratio = marks.width / marks.clientWidth
    const x = Math.round((7 + ((marks.clientWidth - 14) * number) / (count - 1)) * ratio)
    return [...marks.getContext("2d").getImageData(x, 2, 1, 1).data.slice(0, 3)]
}"""


def test_what_is_clicked_is_tracked_both_ways_by_sam_3_stopped_and_saved(editor, page, defaults, folders, small_models):
    hidden, tab = range(8, 11), editor.tab
    frames, truth = walk_that_hides(60, hidden=hidden)
    editor.count = len(frames)
    folder = folders.make("clicked clip", count=0)
    write_clip(folder / "walk.mkv", frames, rate=8)
    video(folder / "walk_mask.mkv", frames=halves(len(frames), SIZE), rate=8, codec="ffv1")
    show_clips(page, defaults, folder.name, 1, sam3=SAM3_FILE)
    tab.locator(TILES).click()
    tab.locator(".mlt-dialog").get_by_role("button", name="Edit mask", exact=True).click()
    editor.ready(SIZE).idle()
    assert tab.get_by_role("combobox", name="Method of tracking").input_value() == "sam3"
    editor.go(4)
    editor.press("s")
    tab.locator(EDITOR).get_by_role("combobox", name="Change", exact=True).select_option("replace")
    # Meant is the red one; that the green one is clicked too is corrected.
    for place, key in (((20, 32), None), ((86, 9), "Shift"), ((86, 9), "Alt")):
        if key:
            tab.keyboard.down(key)
        tab.mouse.click(*editor.on_screen(place))
        editor.idle()
        if key:
            tab.keyboard.up(key)
    editor.shot("sam3 clicked")
    editor.canvas().focus()
    editor.press("t")
    # Its masks come together, and until then it is seen how far it has looked.
    tab.wait_for_function(f"() => document.querySelector('{EDITOR} progress:not([hidden])')?.value > 0")
    editor.shot("sam3 tracking")
    editor.button("Stop").click()
    editor.says("Stopped before any frame had its mask.")
    editor.go(14)
    editor.button("Ignore all").click()
    editor.idle()
    editor.go(4)
    editor.canvas().focus()
    editor.press("t")
    editor.says("Tracked from frame 4 to 13. Look at these frames, their masks may be off: 8, 9, 10.")
    editor.at(13)
    editor.go(4)
    editor.button("Track backwards").click()
    editor.says("Tracked from frame 4 to 0.")
    editor.go(9)
    assert "drift 100 %" in editor.words()
    editor.shot("sam3 tracked")
    lane = [page.evaluate(LANE, [number, len(frames)]) for number in (6, 9, 30)]
    assert lane == [[0x22, 0xA5, 0x5A], [0xD3, 0x3A, 0x2C], [0, 0, 0]]
    found, others = editor.saved(folder / "walk_mask.mkv"), halves(len(frames), SIZE)[15:, ..., 0] > 127
    assert not found[[*hidden, 14]].any() and np.array_equal(found[15:], others)
    share = [(a & b).sum() / (a | b).sum() for a, b in zip(found[:14], truth[:14], strict=True) if b.any()]
    assert len(share) == 11 and min(share) > 0.85
    assert page.problems == []
