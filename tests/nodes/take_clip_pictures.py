"""Pictures of clips for the help pages: on their way through the nodes, and masks that follow them.

`python dev.py pictures tests/nodes/take_clip_pictures.py`; look at them afterwards.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from harness.clips import write_clip
from harness.folders import anywhere, folder_settings
from harness.help_pictures import build, store
from harness.walking import overlap, walking_head
from masklora.dataset.loading import load_dataset
from masklora.dataset.moving import examine_frames
from masklora.generators.apply import GenerateSettings, generate
from masklora.generators.grabcut import GrabCutSettings, grabcut_maker, grabcut_way
from masklora.viewing.views import overlay

COUNT, KEYS = 33, (0,)
# Around the head in the first frame; and the frames that are shown.
BOX = "16, 24, 150, 176"
SHOWN = (0, 4, 8, 12, 16, 20, 26, 32)
KEY, LABEL = "#e0a030", 24
ADVANCED = """() => {
    const node = window.app.graph.nodes.find(n => n.type === "MLT_CacheDataset")
    node.showAdvanced = true
    node.setSize([440, node.computeSize()[1]])
    window.app.canvas.setDirty(true, true)
}"""


def offer_walk(folder):
    """Writes a clip of a head that passes: its pictures, and its true masks."""
    pictures, truth = walking_head(COUNT)
    write_clip(folder / "walk.mkv", pictures, rate=24)
    return pictures, truth


def take_masks_that_follow_a_clip(tmp_path):
    pictures, truth = offer_walk(tmp_path)
    dataset = load_dataset(folder_settings(tmp_path), allowed=anywhere)
    settings = GrabCutSettings(start="box", box=BOX, key_frames=", ".join(map(str, KEYS)))
    way = grabcut_way(settings)
    made, _ = generate(dataset, grabcut_maker(settings), GenerateSettings(), label="GrabCut masks", way=way)
    found = [one.mask for one in examine_frames(made.samples[0], range(COUNT))]
    assert [round(overlap(*pair), 2) for pair in zip(found, truth, strict=True) if overlap(*pair) < 0.95] == []
    store(sheet(pictures, found), "clips-grabcut", side=1200)


def sheet(pictures, masks):
    """Frames with their masks, four a row; the key frames are framed."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(SHOWN) // 4)
    whole = Image.new("RGB", (4 * (width + 8) + 8, rows * (height + LABEL + 8)), "#171718")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(17)
    for i, number in enumerate(SHOWN):
        left, top = 8 + i % 4 * (width + 8), i // 4 * (height + LABEL + 8)
        pen.text((left + 2, top + 2), f"frame {number}" + ", key frame" * (number in KEYS), fill="#dddddd", font=font)
        whole.paste(Image.fromarray(overlay(pictures[number], np.float32(masks[number]))), (left, top + LABEL))
        if number in KEYS:
            corner = left + width + 1, top + LABEL + height + 1
            pen.rectangle((left - 3, top + LABEL - 3, *corner), outline=KEY, width=3)
    return whole


def take_clips_on_their_way_to_the_browser(demo_server, page):
    offer_walk(demo_server.base / "input" / "my clips")
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    nodes = {
        "load": {"type": "MLT_LoadDataset", "at": [40, 60], "folder": "my clips"},
        "cut": {"type": "MLT_GrabCutMasks", "at": [430, 60], "start": "box", "box": BOX},
        "look": {"type": "MLT_InspectDataset", "at": [820, 60], "size": [480, 560], "resolution": 256},
    }
    build(page, nodes, [["load", "dataset", "cut", "dataset"], ["cut", "dataset", "look", "dataset"]])
    page.queue()
    store(page.graph_picture(), "clips-browser")


def take_the_inputs_for_clips_of_the_cache(demo_server, page):
    build(page, {"cache": {"type": "MLT_CacheDataset", "at": [40, 60], "clip_frames": 81}}, [])
    page.evaluate(ADVANCED)
    page.page.wait_for_timeout(800)
    shot = page.graph_picture()
    store(shot.crop((0, shot.height * 3 // 4, shot.width, shot.height)), "clips-cache")
