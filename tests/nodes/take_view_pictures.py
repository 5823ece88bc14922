"""Pictures of what the pack shows in the page: the browser's views, the mask editor, the trainings in the sidebar.

`python dev.py pictures tests/nodes/take_view_pictures.py`; look at them afterwards.
"""

import pytest
from PIL import Image, ImageDraw, ImageFont

from harness.help_pictures import build, offer_pictures, screenshot, store

DIALOG = ".mlt-dialog"
VIEWS = ("Overlay", "Mask", "Cut-out", "Latent grid", "Infill", "Crop box")
TILE, LABEL = 360, 26
DRAWN = """selector => {
    const canvas = document.querySelector(`${selector} canvas`)
    const middle = [canvas?.width / 2, canvas?.height / 2, 1, 1]
    return canvas?.width && canvas.getContext("2d").getImageData(...middle).data[3] === 255
}"""


@pytest.fixture
def shown(demo_server, page):
    """The page with a data set that has been cached and inspected."""
    data = offer_pictures(demo_server.base)
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    page.page.set_viewport_size({"width": 1400, "height": 900})
    nodes = {
        "load": {"type": "MLT_LoadDataset", "at": [40, 60], **data},
        "model": {"type": "CheckpointLoaderSimple", "at": [40, 480]},
        "change": {"type": "MLT_TransformMasks", "at": [430, 60], "grow": 4, "feather": 3.0},
        "cache": {"type": "MLT_CacheDataset", "at": [430, 380], "crop": "around mask"},
        "look": {"type": "MLT_InspectDataset", "at": [820, 60], "size": [560, 580]},
    }
    nodes["cache"] |= {"resolution": 128, "bucket_step": 16}
    links = [
        ["load", "dataset", "change", "dataset"],
        ["change", "dataset", "cache", "dataset"],
        ["model", "VAE", "cache", "vae"],
        ["model", "CLIP", "cache", "clip"],
        ["model", "MODEL", "cache", "model"],
        ["change", "dataset", "look", "dataset"],
        ["cache", "cache", "look", "cache"],
    ]
    build(page, nodes, links)
    page.queue()
    return page


def open_dialog(page, position=0):
    page.page.set_viewport_size({"width": 1280, "height": 860})
    page.page.get_by_role("button", name="Open larger").click()
    page.page.wait_for_selector(DIALOG)
    page.page.locator(f"{DIALOG} .mlt-tile:not([hidden])").nth(position).click()
    page.page.wait_for_function(DRAWN, arg=DIALOG)
    page.page.wait_for_timeout(1500)
    return page.page.locator(DIALOG)


def sheet(tiles):
    """Labelled pictures, three a row."""
    rows = -(-len(tiles) // 3)
    whole = Image.new("RGB", (3 * TILE, rows * (TILE + LABEL)), "#171718")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(16)
    for i, (label, tile) in enumerate(tiles):
        left, top = i % 3 * TILE, i // 3 * (TILE + LABEL)
        pen.text((left + 6, top + 4), label, fill="#dddddd", font=font)
        tile.thumbnail((TILE - 6, TILE - 6), Image.Resampling.LANCZOS)
        whole.paste(tile, (left, top + LABEL))
    return whole


def take_the_browser_on_its_node(shown):
    store(
        shown.graph_picture(types=["MLT_TransformMasks", "MLT_InspectDataset", "MLT_CacheDataset"]),
        "MLT_InspectDataset",
    )


def take_a_change_to_many_captions(shown):
    dialog = open_dialog(shown)
    shown.page.keyboard.press("t")
    panel = dialog.locator(".mlt-captions")
    panel.get_by_label("What to do").select_option("replace text")
    panel.get_by_label("Text to add or to look for").fill("zibble")
    panel.get_by_label("New text").fill("zibbel")
    panel.get_by_role("button", name="Preview").click()
    panel.locator("ins").first.wait_for()
    shown.page.wait_for_timeout(500)
    store(screenshot(dialog), "dataset-captions")


def take_the_larger_view_and_each_of_its_views(shown):
    dialog = open_dialog(shown)
    dialog.get_by_role("button", name="Statistics").click()
    shown.page.wait_for_timeout(500)
    store(screenshot(dialog), "dataset-browser", side=1240)
    dialog.get_by_role("button", name="Statistics").click()
    tiles = []
    for view in VIEWS:
        dialog.get_by_role("button", name=view, exact=True).click()
        shown.page.wait_for_timeout(1500)
        canvas = screenshot(dialog.locator("canvas"))
        side = min(canvas.size)
        left, top = (canvas.width - side) // 2, (canvas.height - side) // 2
        tiles.append((view, canvas.crop((left, top, left + side, top + side))))
    store(sheet(tiles), "dataset-views")


def take_the_choice_of_a_folder(demo_server, page):
    offer_pictures(demo_server.base)
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    page.page.set_viewport_size({"width": 900, "height": 560})
    build(page, {"load": {"type": "MLT_LoadDataset", "at": [40, 60], "folder": "people and things"}}, [])
    page.evaluate("() => window.app.graph.nodes[0].widgets.find(one => one.type === 'button').callback()")
    page.page.wait_for_selector(".mlt-folders .mlt-folder-list li")
    store(screenshot(page.page.locator(".mlt-folders")), "choose-folder")


def take_the_mask_editor(shown):
    dialog = open_dialog(shown)
    dialog.get_by_role("button", name="Edit mask").click()
    shown.page.wait_for_selector(".mlt-editor[open]")
    shown.page.wait_for_timeout(2500)
    store(screenshot(shown.page.locator(".mlt-editor")), "mask-editor", side=1240)


def take_the_trainings_in_the_sidebar(demo_server, page, train_graph):
    runs = [("first try", 4), ("higher rate", 5), ("more steps", 6)]
    for name, seed in runs:
        demo_server.run(train_graph(name=name, steps=60, seed=seed, learning_rate=seed * 2e-4), timeout=300)
    page.page.set_viewport_size({"width": 1280, "height": 1000})
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    page.page.get_by_role("button", name="Masked LoRA: trainings").click()
    page.page.wait_for_selector(".mlt-sidebar .mlt-run")
    page.page.locator(".mlt-sidebar .mlt-run").first.click()
    page.page.wait_for_timeout(800)
    compare = page.page.locator(".mlt-sidebar").get_by_label("Compare with")
    compare.select_option(index=1)
    page.page.wait_for_timeout(1500)
    store(screenshot(page.page.locator(".mlt-sidebar")), "trainings")
