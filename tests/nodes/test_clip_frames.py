"""The frames of a clip in the real ComfyUI: their routes, and a person who scrubs and plays it in the page."""

import http.client
import io
import json

import numpy as np
import pytest
from PIL import Image

from harness.clip_files import frames_of, halves, video
from harness.clip_page import TILES, show_clips

SIZE = (96, 64)
COUNT = 13


@pytest.fixture
def clips(folders):
    """A folder of a picture and a clip of 13 frames with a mask that moves."""
    folder = folders.make("clip frames", count=1, size=SIZE)
    folders.mask(folder / "cat 1_mask.png", size=SIZE)
    video(folder / "walk.mp4", COUNT, SIZE, rate=10)
    video(folder / "walk_mask.mkv", frames=halves(COUNT, SIZE), rate=10)
    return folder


@pytest.fixture
def asked(comfy_server, comfy_client, clips, graph):
    """Asks about the second sample of the opened folder, the clip."""
    loaded = graph.add("MLT_LoadDataset", folder="clip frames")
    shown = graph.add("MLT_InspectDataset", dataset=[loaded, 0], resolution=64)
    one = comfy_client.run(graph.nodes).outputs[shown]["masked_lora_dataset"][0]

    def ask(path, picture=1):
        connection = http.client.HTTPConnection("127.0.0.1", comfy_server.port, timeout=60)
        connection.request("GET", f"/masked_lora/datasets/{one}/pictures/{picture}{path}")
        answer = connection.getresponse()
        body, kind = answer.read(), answer.headers["Content-Type"]
        return answer.status, json.loads(body) if "json" in kind else np.asarray(Image.open(io.BytesIO(body)))

    return ask


def test_each_frame_comes_with_its_mask_its_time_and_its_weights(asked):
    status, told = asked("/frames")
    assert status == 200 and told["rate"] == 10 and told["times"] == [round(n / 10, 4) for n in range(COUNT)]
    assert told["keys"][0] == 0 and told["parts"] == [] and told["moves"] and not told["cached"]
    wanted, masks = frames_of(COUNT, SIZE), halves(COUNT, SIZE)[..., 0]
    for number in (0, 1, 2, 12, 5):
        _, rgb = asked(f"/frame/{number}/image")
        assert np.abs(rgb.astype(int) - wanted[number]).mean() < 12 and rgb.shape == wanted[number].shape
        _, learned = asked(f"/frame/{number}/learned")
        assert np.array_equal(learned > 127, masks[number] > 127)
        _, facts = asked(f"/frame/{number}")
        weights = np.reshape(facts["weights"], facts["grid"])
        assert facts["frames"] == [number] and facts["coverage"] == pytest.approx(0.5, abs=0.05)
        assert weights.mean() == pytest.approx(0.5, abs=0.05)
    assert asked("/frame/3/image?side=64")[1].shape == (43, 64, 3)
    assert asked("/frame/3/learned?side=64")[1].shape == (43, 64)


def test_what_is_no_frame_is_refused_by_name(asked):
    status, told = asked("/frames", picture=0)
    assert status == 404 and "cat 1.png is a picture and has no frames" in told["error"]
    status, told = asked("/frame/13")
    assert status == 404 and "the clip has 13" in told["error"]
    status, told = asked("/frame/13/image")
    assert status == 422 and "walk.mp4" in told["error"]
    assert asked("/frame/1/image?side=3")[0] == 400
    assert asked("/frame/x/image")[0] == 400
    assert asked("/frame/2/image")[0] == 200


@pytest.fixture
def looking(page, defaults, clips):
    """The larger view of the page on the clip."""
    show_clips(page, defaults, "clip frames", count=2)
    tab, tiles = page.page, TILES
    tab.locator(tiles).nth(1).click()
    tab.wait_for_selector(".mlt-dialog .mlt-timeline:visible")
    return page


# Where the middle of what the mask view shows white lies, as a share of the picture's width.
MIDDLE = """() => {
    const canvas = document.querySelector(".mlt-dialog .mlt-canvas")
    const { width, height } = canvas
    const { data } = canvas.getContext("2d").getImageData(0, Math.floor(height / 2), width, 1)
    const seen = [], white = []
    for (let x = 0; x < width; x += 1) {
        if (data[4 * x + 3] < 255) continue
        seen.push(x)
        if (data[4 * x] > 127) white.push(x)
    }
    const middle = of => (of[0] + of[of.length - 1]) / 2
    return seen.length && white.length ? (middle(white) - seen[0]) / (seen[seen.length - 1] - seen[0]) : -1
}"""


def wait_for_mask(tab, number):
    """Until the mask of a frame is drawn: its white half begins with the frame's number."""
    wanted = 0.25 + 0.5 * number / (COUNT - 1)
    tab.wait_for_function(f"wanted => Math.abs(({MIDDLE})() - wanted) < 0.02", arg=wanted)


def test_a_clip_is_scrubbed_stepped_and_played_with_its_masks(looking):
    tab = looking.page
    tab.keyboard.press("2")
    words, slider = tab.locator(".mlt-timeline-words"), tab.get_by_role("slider", name="Frame", exact=True)
    wait_for_mask(tab, 0)
    slider.fill("6")
    wait_for_mask(tab, 6)
    words.get_by_text("Frame 6 of 12 · 0.60 s · coverage 50 %").wait_for()
    tab.keyboard.press("Alt+ArrowRight")
    wait_for_mask(tab, 7)
    tab.keyboard.press("Alt+Shift+ArrowLeft")
    wait_for_mask(tab, 0)
    # The picture before and after are other keys, and none of them goes through the clip.
    assert tab.locator(".mlt-dialog .mlt-facts .mlt-title").text_content() == "walk.mp4"
    tab.evaluate("""() => {
        window.framesSeen = new Set()
        const words = document.querySelector(".mlt-timeline-words")
        new MutationObserver(() => window.framesSeen.add(words.textContent.split(" of ")[0])).observe(
            words, { childList: true, characterData: true, subtree: true })
    }""")
    tab.keyboard.press("Space")
    tab.get_by_role("button", name="Pause (Space)").wait_for()
    tab.wait_for_function(f"() => window.framesSeen.size === {COUNT}", timeout=60_000)
    tab.keyboard.press("Space")
    tab.get_by_role("button", name="Play (Space)").wait_for()
    wait_for_mask(tab, int(slider.input_value()))
    tab.keyboard.press("p")
    tab.wait_for_selector(".mlt-dialog .mlt-timeline", state="hidden")
    assert looking.problems == []
