"""Pictures of what the pack shows in the page: the browser's views, the mask editor, the trainings in the sidebar.

`python dev.py pictures tests/nodes/take_view_pictures.py`; look at them afterwards.
"""

import shutil

import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

from harness.help_pictures import build, offer_clip, offer_pictures, screenshot, store

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


def take_a_picture_beside_its_reference(demo_server, page):
    """The references are grey: what is learned is to colour them."""
    data = offer_pictures(demo_server.base)
    folder = demo_server.base / "input" / data["folder"]
    (folder / "before").mkdir()
    for path in folder.iterdir():
        if path.suffix in (".png", ".jpg"):
            Image.open(path).convert("L").save(folder / "before" / f"{path.stem}.png")
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    load = {"type": "MLT_LoadDataset", "at": [40, 60], **data, "reference_folders": "before"}
    look = {"type": "MLT_InspectDataset", "at": [430, 60], "size": [560, 580], "resolution": 256}
    build(page, {"load": load, "look": look}, [["load", "dataset", "look", "dataset"]])
    page.queue()
    dialog = open_dialog(page)
    dialog.get_by_role("button", name="Pair", exact=True).click()
    page.page.wait_for_timeout(2000)
    store(screenshot(dialog), "pairs", side=1240)


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


@pytest.fixture
def clips_shown(demo_server, page):
    """The page with clips that have been cached and inspected."""
    folder = offer_clip(demo_server.base)
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    page.page.set_viewport_size({"width": 1400, "height": 900})
    nodes = {
        "load": {"type": "MLT_LoadDataset", "at": [40, 60], "folder": folder},
        "small": {"type": "SmallFamily", "at": [40, 480], "family": "wan"},
        "cache": {"type": "MLT_CacheDataset", "at": [430, 60], "resolution": 256, "clip_frames": 25},
        "look": {"type": "MLT_InspectDataset", "at": [820, 60], "size": [560, 580]},
    }
    links = [
        ["load", "dataset", "cache", "dataset"],
        ["small", "vae", "cache", "vae"],
        ["small", "clip", "cache", "clip"],
        ["small", "model", "cache", "model"],
        ["load", "dataset", "look", "dataset"],
        ["cache", "cache", "look", "cache"],
    ]
    build(page, nodes, links)
    page.queue()
    return page


def open_clip(page, position, number):
    """The larger view on a clip, at one of its frames."""
    dialog = open_dialog(page, position)
    dialog.get_by_role("slider", name="Frame", exact=True).fill(str(number))
    dialog.get_by_text(f"Frame {number} of").wait_for()
    page.page.wait_for_timeout(1500)
    return dialog


def take_the_frames_of_a_clip(clips_shown):
    dialog = open_clip(clips_shown, 1, 13)
    store(screenshot(dialog), "dataset-clip", side=1240)


def take_the_frames_of_a_clip_in_the_mask_editor(clips_shown):
    tab = clips_shown.page
    dialog = open_clip(clips_shown, 1, 13)
    dialog.get_by_role("button", name="Edit mask").click()
    editor = tab.locator(".mlt-editor[open]")
    editor.locator(".mlt-editor-clip").wait_for()
    editor.locator(".mlt-timeline-slider").fill("8")
    tab.wait_for_timeout(800)
    editor.get_by_role("button", name="Fit", exact=True).click()
    # A key frame, from which the others are tracked.
    editor.get_by_role("button", name="Grow", exact=True).click()
    tab.wait_for_timeout(1200)
    editor.get_by_role("button", name="Track forwards").click()
    editor.get_by_text("Tracked from frame 8").wait_for()
    editor.get_by_label("Frames beside it", exact=True).check()
    editor.locator(".mlt-timeline-slider").fill("20")
    tab.wait_for_timeout(1500)
    store(screenshot(editor), "mask-editor-clip", side=1240)


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


def take_the_table_of_pictures(demo_server, page, train_graph):
    """One of ten masks is turned inside out: its picture stands first."""
    folder = demo_server.base / "input" / "zibbles"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(demo_server.base / "input" / "masked-lora-demo" / "alpha", folder)
    wrong = folder / "zibble_04.png"
    cut = Image.open(wrong)
    cut.putalpha(ImageOps.invert(cut.getchannel("A")))
    cut.save(wrong)
    graph = train_graph(name="zibbles", steps=150, batch_size=4, learning_rate=1e-3)
    graph["2"]["inputs"]["folder"] = folder.name
    demo_server.run(graph, timeout=600)
    page.page.set_viewport_size({"width": 1280, "height": 640})
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    page.page.get_by_role("button", name="Masked LoRA: trainings").click()
    page.page.locator(".mlt-sidebar .mlt-run", has_text="zibbles").first.click()
    page.page.locator(".mlt-sidebar").get_by_role("button", name="Pictures, worst first").first.click()
    table = page.page.locator("dialog.mlt-picture-table")
    table.locator("img").nth(9).wait_for()
    page.page.wait_for_timeout(2000)
    store(screenshot(table), "picture-table")
