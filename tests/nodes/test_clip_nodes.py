"""Clips among pictures in the real ComfyUI: the report, the browser's rows and views, the editor, and who refuses."""

import io
import json
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from harness.clip_files import halves, sequence, video
from harness.clip_page import TILES, show_clips

SIZE = (96, 64)


@pytest.fixture
def opened(comfy_server, comfy_client, folders, graph):
    """Asks about an opened folder of two pictures, a clip with a mask that moves, and a folder of frames without."""
    folder = folders.make("clips among pictures", count=2, size=SIZE)
    folders.mask(folder / "cat 1_mask.png", size=SIZE)
    video(folder / "walk.mp4", 9, SIZE, rate=16)
    video(folder / "walk_mask.mp4", frames=halves(9, SIZE), rate=16)
    (folder / "walk.txt").write_text("a walk", encoding="utf-8")
    sequence(folder / "run.frames", 4, SIZE)
    loaded = graph.add("MLT_LoadDataset", folder="clips among pictures")
    shown = graph.add("MLT_InspectDataset", dataset=[loaded, 0], resolution=64)
    report, images = graph.text([loaded, 4]), graph.add("PreviewImage", images=[loaded, 1])
    run = comfy_client.run(graph.nodes)
    one = run.outputs[shown]["masked_lora_dataset"][0]

    def ask(path, body=None, **headers):
        url = f"http://127.0.0.1:{comfy_server.port}/masked_lora/datasets/{one}/pictures{path}"
        request = urllib.request.Request(url, data=body, headers=headers, method="GET" if body is None else "POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                content = answer.read()
                return json.loads(content) if "json" in answer.headers["Content-Type"] else content, answer.headers
        except urllib.error.HTTPError as error:
            return json.loads(error.read()), error.code

    ask.folder, ask.loaded = folder, loaded
    ask.report, ask.images = run.outputs[report]["text"][0], run.outputs[images]["images"]
    return ask


def test_pictures_and_clips_are_one_data_set(opened):
    assert opened.report.startswith("2 clips, 2 pictures: 2 with a mask, 2 without.")
    assert "2 pictures and clips have no mask, while others have one: cat 2.png, run.frames." in opened.report
    assert "1 clip without a caption: run.frames." in opened.report
    assert len(opened.images) == 4
    columns, _ = opened("")
    assert columns["name"] == ["cat 1.png", "cat 2.png", "run.frames", "walk.mp4"]
    assert columns["clip"] == [
        None,
        None,
        {"frames": 4, "rate": 0, "mask_moving": False},
        {"frames": 9, "rate": 16, "mask_moving": True},
    ]
    assert columns["size"] == [list(SIZE)] * 4 and columns["has_mask"] == [True, False, False, True]
    assert columns["coverage"][3] == pytest.approx(0.5, abs=0.03) and columns["caption"][3] == "a walk"
    details, _ = opened("/3")
    assert details["clip"] == columns["clip"][3] and details["has_mask"]


def test_a_clip_is_shown_by_its_first_frame_with_that_frame_s_mask(opened):
    learned = np.asarray(Image.open(io.BytesIO(opened("/3/learned")[0])))
    assert learned[:, :40].min() > 250 and learned[:, 56:].max() < 5
    small = ("/3/thumbnail?view=cut-out&side=96", "/2/thumbnail?view=latent%20grid&side=96")
    for path in ("/2/image", "/3/image", *small):
        picture = Image.open(io.BytesIO(opened(path)[0]))
        assert picture.size[0] == SIZE[0] and np.asarray(picture).std() > 10


def test_a_still_mask_is_edited_for_a_whole_clip_and_one_that_moves_is_not(opened):
    told, status = opened("/3/mask")
    assert status in (400, 422) and "walk.mp4 is a clip, and its mask walk_mask.mp4 is one too" in told["error"]
    _, headers = opened("/2/mask")
    file = io.BytesIO()
    Image.fromarray(halves(4, SIZE)[0, ..., 0]).save(file, "PNG")
    answer, _ = opened("/2/mask", file.getvalue(), **{"Content-Type": "image/png", "If-Match": headers["ETag"]})
    assert answer["changed"] == [2]
    assert (opened.folder / "run-masklabel.png").is_file()
    columns, _ = opened("")
    assert columns["clip"][2] == {"frames": 4, "rate": 0, "mask_moving": False} and columns["has_mask"][2]


def test_a_frame_that_is_exchanged_is_noticed(opened, graph, comfy_client):
    graph.nodes[opened.loaded]["inputs"]["subfolders"] = False
    shown = next(name for name, node in graph.nodes.items() if node["class_type"] == "PreviewImage")

    def files():
        return comfy_client.run(graph.nodes).outputs[shown]["images"]

    before = files()
    assert files() == before
    Image.new("RGB", SIZE, (255, 0, 0)).save(opened.folder / "run.frames" / "0000.png")
    assert files() != before


def test_the_browser_marks_clips_and_tells_their_frames_and_the_editor_says_what_a_mask_counts_for(
    page, defaults, folders
):
    folder = folders.make("clips shown", count=1, size=SIZE)
    video(folder / "run.mp4", 9, SIZE, rate=16)
    show_clips(page, defaults, "clips shown", count=2)
    tab, tiles = page.page, TILES
    assert [text.startswith("▶ ") for text in tab.locator(f"{tiles} .mlt-tile-text").all_text_contents()] == [
        False,
        True,
    ]
    tab.locator(tiles).nth(1).click()
    facts = tab.locator(".mlt-dialog .mlt-lines")
    facts.get_by_text("9 frames, 16/s").wait_for()
    assert facts.get_by_text("the first frame").is_visible()
    tab.locator(".mlt-dialog").get_by_role("button", name="Edit mask", exact=True).click()
    told = tab.locator(".mlt-editor .mlt-editor-clip")
    told.get_by_text("one mask that counts for each of its frames").wait_for()
