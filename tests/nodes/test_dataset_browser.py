"""The data set browser in the real page: what a person sees of pictures and masks before anything is trained."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from devtools.page_modules import address
from harness.caching import Letters, Pooling
from harness.toy import ToyNet
from masklora.cache.cache import build_cache
from masklora.dataset.loading import load_dataset
from masklora.settings import CacheSettings, DatasetSettings, LossSettings
from masklora.training.batches import Draw
from masklora.training.microbatch import Feed
from masklora.training.objective import Objective

BROWSER = ".mlt-browser"
DIALOG = ".mlt-dialog"
SHOTS = os.environ.get("MASKLORA_SHOTS")


class Looker:
    """The browser on the page's Inspect Dataset node, and its larger view."""

    def __init__(self, page):
        self.page, self.tab = page, page.page

    def run(self, prompt):
        self.page.evaluate("async graph => { await window.app.loadApiJson(graph, 'looking') }", prompt)
        self.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        if SHOTS:
            self.shot("start")
        self.tab.wait_for_selector(BROWSER)
        self.page.queue()
        return self

    def shows(self, count):
        self.tab.wait_for_function(
            f"n => document.querySelectorAll('{BROWSER} .mlt-tile:not([hidden]) img[src]').length >= n", arg=count
        )
        return self

    def open(self, position=0):
        self.tab.locator(f"{BROWSER} .mlt-tile:not([hidden])").nth(position).click()
        self.tab.wait_for_selector(DIALOG)
        self.drawn()
        return self

    def drawn(self):
        self.tab.wait_for_function(
            f"""() => {{
                const canvas = document.querySelector('{DIALOG} canvas')
                return canvas?.width && canvas.getContext('2d').getImageData(
                    canvas.width / 2, canvas.height / 2, 1, 1).data[3] === 255
            }}"""
        )
        return self

    def button(self, name):
        return self.tab.locator(DIALOG).get_by_role("button", name=name, exact=True)

    def select(self, name):
        """Chooses a picture of the larger view's list by its name and waits until it is drawn."""
        self.tab.locator(f"{DIALOG} .mlt-tile", has_text=name).first.click()
        self.tab.wait_for_function(
            "name => document.querySelector('.mlt-dialog canvas').getAttribute('aria-label')?.startsWith(name)",
            arg=name,
        )
        self.drawn()

    def set(self, node_type, widget, value):
        self.page.evaluate(
            """([type, name, value]) => {
                const node = window.app.graph.nodes.find(one => one.type === type)
                node.widgets.find(one => one.name === name).value = value
            }""",
            [node_type, widget, value],
        )

    def under(self):
        return self.tab.locator(f"{DIALOG} .mlt-under").first.text_content()

    def coverage(self, position):
        words = self.tab.locator(f"{BROWSER} .mlt-tile:not([hidden]) .mlt-tile-text").nth(position).text_content()
        return float(words.split(" %")[0])

    def until(self, condition, timeout=60):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if condition():
                return
            self.tab.wait_for_timeout(100)
        raise AssertionError("it did not come to pass")

    def shot(self, name):
        if SHOTS:
            self.tab.wait_for_timeout(700)
            self.page.screenshot(Path(SHOTS) / f"{name}.png")


@pytest.fixture
def looker(both_canvases):
    return Looker(both_canvases)


@pytest.fixture
def looking(defaults, demo_inputs):
    """The graph of a person who looks at pictures, the demo's unless another folder is named, with their cache."""

    def graph(folder="train demo/masks/images", *, loss=None, mask_folder="train demo/masks/masks", **cache):
        cache = {"resolution": 128, "bucket_step": 16} | cache
        nodes = {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": demo_inputs}},
            "2": {
                "class_type": "MLT_LoadDataset",
                "inputs": defaults("MLT_LoadDataset", folder=folder, mask_folder=mask_folder),
            },
            "3": {"class_type": "MLT_TransformMasks", "inputs": defaults("MLT_TransformMasks", dataset=["2", 0])},
            "4": {
                "class_type": "MLT_CacheDataset",
                "inputs": defaults("MLT_CacheDataset", dataset=["3", 0], vae=["1", 2], clip=["1", 1], **cache),
            },
            "5": {
                "class_type": "MLT_InspectDataset",
                "inputs": defaults("MLT_InspectDataset", dataset=["3", 0], cache=["4", 0]),
            },
        }
        if loss is not None:
            nodes["6"] = {"class_type": "MLT_MaskedLoss", "inputs": defaults("MLT_MaskedLoss", **loss)}
            nodes["5"]["inputs"]["loss"] = ["6", 0]
        return nodes

    return graph


class Eighths(ToyNet):
    """A model whose latent cells are of 8 pixels a side, whatever the size of the picture."""

    def grid_of(self, bucket):
        return bucket[1] // 8, bucket[0] // 8

    def collate(self, texts, geometries, shape, *, keys):
        return None


def weights_of_the_loss(folder, loss):
    """The weights (h, w) that training's own objective gives every cell of each picture of a folder."""
    dataset = load_dataset(DatasetSettings(folder=str(folder)), allowed=lambda path: path)
    settings = CacheSettings(resolution=128, bucket_step=16, storage="memory", infill_variants=0)
    cache = build_cache(dataset, settings, encoder=Pooling(), text=Letters())
    model = Eighths()
    feed = Feed(cache, loss, model=model)
    objective, generator = Objective(model, seed=0, feed=feed), torch.Generator().manual_seed(1)
    noised = [
        objective._noise(feed.make([Draw(i, 0, 0)]), loss, generator, progress=0.0) for i in range(len(cache.entries))
    ]
    return [one.w[0, 0].numpy() for one in noised]


CELLS = """async ([viewport, draw, size, grid]) => {
    const { Viewport } = await import(viewport)
    const canvas = document.querySelector(".mlt-dialog canvas")
    const port = new Viewport().fit(size, [canvas.clientWidth, canvas.clientHeight])
    const detail = grid
    const context = canvas.getContext("2d"), found = []
    const { cellTransform } = await import(draw)
    const [a, b, c, d, e, f] = cellTransform(detail.corners, detail.grid, detail.flip)
    for (let row = 0; row < detail.grid[0]; row += 1) {
        for (let column = 0; column < detail.grid[1]; column += 1) {
            const x = column + 0.3, y = row + 0.3
            const at = [(a * x + c * y + e) * port.scale + port.x, (b * x + d * y + f) * port.scale + port.y]
            found.push([...context.getImageData(Math.round(at[0]), Math.round(at[1]), 1, 1).data])
        }
    }
    return found
}"""


def test_every_view_is_shown(looker, looking, request):
    mode = "new" if "2.0" in request.node.name else "classic"
    looker.run(looking()).shows(6)
    looker.shot(f"node-{mode}")
    looker.open(1)
    for view in ("Overlay", "Mask", "Cut-out", "Latent grid", "Infill", "Crop box", "Picture"):
        looker.button(view).click()
        looker.drawn()
        if view == "Infill":
            # The cache makes none, and what is seen is the picture.
            looker.until(lambda: "infill_variants of Cache Dataset is 0" in looker.under())
        looker.shot(f"{view}-{mode}")
    assert looker.under() == ""
    looker.button("Statistics").click()
    looker.shot(f"statistics-{mode}")
    assert looker.page.problems == []


def test_a_reference_stands_before_its_picture(looker, looking, folders):
    folder = folders.make("looked pairs", size=(96, 64))
    (folder / "before").mkdir()
    Image.new("RGB", (192, 128), (200, 60, 40)).save(folder / "before" / "cat 1.png")
    graph = looking("looked pairs", mask_folder="")
    graph["2"]["inputs"] |= {"reference_folders": "before", "missing_reference": "train without"}
    looker.run(graph).shows(3).open(0)
    looker.button("Pair").click()
    at = "x => [...document.querySelector('.mlt-dialog canvas').getContext('2d')"
    at += ".getImageData(x * document.querySelector('.mlt-dialog canvas').width, "
    at += "document.querySelector('.mlt-dialog canvas').height / 2, 1, 1).data]"

    def shown(x):
        return np.abs(np.array(looker.page.evaluate(at, x)[:3]) - (200, 60, 40)).max() <= 12

    looker.until(lambda: shown(0.25) and not shown(0.75))
    looker.shot("pair")
    looker.select("cat 2.png")
    looker.until(lambda: not shown(0.25))
    assert looker.page.problems == []


@pytest.mark.parametrize(
    ("settings", "widgets"),
    [
        (LossSettings(), {}),
        (LossSettings(gamma=2.0, floor=0.1), {"gamma": 2.0, "floor": 0.1}),
        (LossSettings(reduction="any", ceiling=0.75), {"reduction": "any", "ceiling": 0.75}),
    ],
    ids=["as it is", "gamma and floor", "any and ceiling"],
)
def test_the_latent_grid_is_what_the_loss_weighs_cell_for_cell(page, folders, looking, settings, widgets):
    folder = folders.input / "white"
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(4)
    for name, size in (("wide", (240, 136)), ("tall", (144, 200))):
        Image.fromarray(np.full((size[1], size[0], 3), 255, np.uint8)).save(folder / f"{name}.png")
        small = random.integers(0, 256, (7, 9), dtype=np.uint8)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / f"{name}-masklabel.png")
    looker = Looker(page)
    looker.run(looking("white", mask_folder="", loss=widgets)).shows(2)
    looker.open(0)
    looker.button("Latent grid").click()
    page.page.get_by_role("slider", name="Opacity").fill("100")
    wanted = weights_of_the_loss(folder, settings)
    dataset = page.evaluate("() => window.app.graph.getNodeById(5).properties.masked_lora_dataset")
    for index, weights in enumerate(wanted):
        path = f"/masked_lora/datasets/{dataset}/pictures/{index}"
        detail = page.evaluate("async path => (await window.app.api.fetchApi(path)).json()", path)
        assert tuple(detail["grid"]) == weights.shape
        assert np.abs(np.reshape(detail["weights"], weights.shape) - weights).max() < 1e-6
        looker.select(detail["name"])
        shown = np.array(
            page.evaluate(CELLS, [address("page/viewport"), address("dataset/draw"), detail["size"], detail])
        )
        assert (shown[:, 3] == 255).all()
        assert np.abs(shown[:, 0] - 255 * weights.ravel()).max() <= 1
        assert len(np.unique(shown[:, 0])) > 20
    assert page.problems == []


def test_the_browser_follows_the_transform_widgets_without_a_new_run(looker, looking):
    # Another mask replaces another background.
    looker.run(looking(infill_variants=3)).shows(6)
    before = looker.coverage(0)
    looker.set("MLT_TransformMasks", "invert", True)
    looker.until(lambda: abs(looker.coverage(0) + before - 100) < 0.2)
    looker.until(lambda: "as they are set now" in looker.tab.locator(f"{BROWSER} .mlt-note").first.text_content())
    looker.open(0)
    assert "latent, mask" in looker.tab.locator(f"{DIALOG} .mlt-lines").text_content()
    looker.tab.keyboard.press("Escape")
    looker.set("MLT_TransformMasks", "invert", False)
    looker.until(lambda: abs(looker.coverage(0) - before) < 0.2)
    looker.until(lambda: "10 pictures" in looker.tab.locator(f"{BROWSER} .mlt-note").first.text_content())
    assert looker.page.problems == []


def test_everything_in_the_browser_can_be_reached_by_keys(looker, looking):
    looker.run(looking()).shows(6)
    tab = looker.tab
    tab.locator(f"{BROWSER} .mlt-list").focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("End")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(DIALOG)
    assert "zibble_10" in tab.locator(f"{DIALOG} .mlt-facts strong").text_content()
    tab.keyboard.press("n")
    looker.until(lambda: "zibble_01" in tab.locator(f"{DIALOG} .mlt-facts strong").text_content())
    tab.keyboard.press("4")
    assert looker.button("Latent grid").get_attribute("aria-pressed") == "true"
    tab.keyboard.press("s")
    assert tab.locator(f"{DIALOG} .mlt-statistics").is_visible()
    tab.keyboard.press("/")
    tab.keyboard.type("zibble_03")
    looker.until(lambda: tab.locator(f"{DIALOG} .mlt-tile:not([hidden])").count() == 1)
    assert len(looker.page.evaluate("() => window.app.graph.nodes.map(node => node.id)")) == 5
    # The first one empties the search.
    tab.keyboard.press("Escape")
    tab.keyboard.press("Escape")
    tab.wait_for_selector(DIALOG, state="detached")
    assert looker.page.problems == []


def test_a_page_that_is_opened_again_still_shows_the_pictures(looker, looking):
    looker.run(looking()).shows(6)
    saved = looker.page.evaluate("() => window.app.graph.serialize()")
    looker.tab.reload(wait_until="domcontentloaded")
    looker.page.open()
    looker.page.load_workflow(saved)
    looker.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    looker.shows(6)
    looker.open(2)
    assert looker.page.problems == []


def test_the_large_view_goes_on_over_a_new_run(looker, looking, folders):
    folder = folders.make("run again", size=(128, 96))
    folders.mask(folder / "cat 1_mask.png", size=(128, 96), rows=0.25)
    looker.run(looking("run again", mask_folder="")).shows(3)
    looker.open(0)
    assert "25 %" in looker.tab.locator(f"{DIALOG} .mlt-lines").text_content()
    folders.mask(folder / "cat 1_mask.png", size=(128, 96), rows=0.75)
    looker.page.queue()
    looker.until(lambda: "75 %" in looker.tab.locator(f"{DIALOG} .mlt-lines").text_content())
    assert looker.page.problems == []


def test_a_data_set_that_is_no_longer_open_says_what_to_do(page, looking):
    looker = Looker(page)
    page.evaluate("async graph => { await window.app.loadApiJson(graph, 'looking') }", looking())
    page.evaluate(
        """() => {
            const node = window.app.graph.getNodeById(5)
            node.properties.masked_lora_dataset = "0123456789abcdef0123"
            node.onConfigure({})
        }"""
    )
    looker.until(lambda: "Queue the graph" in page.page.locator(f"{BROWSER} .mlt-note").first.text_content())


def test_undoing_in_the_large_view_leaves_the_graph_alone(page, looking):
    looker = Looker(page)
    looker.run(looking()).shows(6)
    looker.page.evaluate(
        """() => {
            const tracker = window.app.extensionManager.workflow.activeWorkflow.changeTracker
            tracker.captureCanvasState()
            window.app.graph.add(window.LiteGraph.createNode("MLT_Adapter"))
            tracker.captureCanvasState()
        }"""
    )
    looker.open(0)
    looker.tab.keyboard.press("Control+z")
    looker.tab.wait_for_timeout(700)
    assert looker.page.evaluate("() => window.app.graph.nodes.length") == 6
    looker.tab.keyboard.press("Escape")
    looker.tab.wait_for_selector(DIALOG, state="detached")
    looker.tab.keyboard.press("Control+z")
    looker.tab.wait_for_function("() => window.app.graph.nodes.length === 5")


def test_a_copied_node_asks_for_nothing(looker, looking):
    looker.run(looking()).shows(6)
    looker.set("MLT_TransformMasks", "invert", True)
    looker.until(lambda: "as they are set now" in looker.tab.locator(f"{BROWSER} .mlt-note").first.text_content())
    looker.page.evaluate("() => { window.copied = window.app.graph.getNodeById(5).clone() }")
    looker.tab.wait_for_timeout(1500)
    assert "as they are set now" in looker.tab.locator(f"{BROWSER} .mlt-note").first.text_content()


# What the list says that is chosen: the tile of that id, if the page has it once and it is shown.
CHOSEN = """selector => {
    const list = document.querySelector(`${selector} .mlt-list`)
    if (!list.hasAttribute("aria-activedescendant")) return null
    const found = document.querySelectorAll(`[id="${list.getAttribute("aria-activedescendant")}"]`)
    if (found.length !== 1 || found[0].hidden || !list.contains(found[0])) return "no element"
    const told = name => found[0].getAttribute(`aria-${name}`)
    return `${told("posinset")} of ${told("setsize")}, ${told("selected")}: ${told("label")}`
}"""


def test_a_screen_reader_is_told_what_is_chosen_of_how_many(page, looking):
    looker = Looker(page)
    looker.run(looking()).shows(6)
    tab = looker.tab
    # One row and the next one in view, of three.
    page.evaluate("() => { document.querySelector('.mlt-browser .mlt-list').style.flex = '0 0 60px' }")

    def chosen():
        return page.evaluate(CHOSEN, BROWSER)

    looker.until(lambda: tab.locator(f"{BROWSER} .mlt-tile:not([hidden])").count() < 10)
    assert chosen() is None
    tab.locator(f"{BROWSER} .mlt-list").focus()
    tab.keyboard.press("Home")
    assert chosen().startswith("1 of 10, true: zibble_01")
    tab.keyboard.press("End")
    assert chosen().startswith("10 of 10, true: zibble_10")
    # Scrolled out of view it is no element any more.
    page.evaluate("() => { document.querySelector('.mlt-browser .mlt-list').scrollTop = 0 }")
    looker.until(lambda: chosen() is None)
    tab.keyboard.press("ArrowLeft")
    assert chosen().startswith("9 of 10, true: zibble_09")
    search = tab.locator(f"{BROWSER} input[type=search]")
    search.fill("zibble_0")
    looker.until(lambda: chosen() and chosen().startswith("9 of 9, true: zibble_09"))
    search.fill("zibble_03")
    looker.until(lambda: chosen() is None)
    looker.until(lambda: tab.locator(f"{BROWSER} .mlt-tile:not([hidden])").count() == 1)
    looker.open(0)
    viewer = tab.locator(DIALOG).get_by_role("application")
    assert "zibble_03" in viewer.get_attribute("aria-label")
    assert page.problems == []


FIELD = f"{DIALOG} textarea.mlt-caption"


def test_a_caption_is_written_in_the_large_view_and_saved_beside_its_picture(looker, looking, folders, page):
    place = folders.make("captioned here", 3, size=(128, 128), alpha=True, captions=False)
    (place / "cat 2.txt").write_text("a cät, number 2\n", encoding="utf-8")
    looker.run(looking("captioned here", mask_folder="")).shows(3).open()
    tab, field = looker.tab, looker.tab.locator(FIELD)
    looker.until(lambda: field.get_attribute("readonly") is None)
    assert field.input_value() == "" and looker.button("Save caption").is_disabled()
    tab.keyboard.press("c")
    tab.keyboard.type("a red cat, n")
    tab.keyboard.press("Control+Enter")
    looker.until((place / "cat 1.txt").is_file)
    assert (place / "cat 1.txt").read_text(encoding="utf-8") == "a red cat, n\n"
    # The cache holds what was there before.
    tab.wait_for_function(f"() => document.querySelector('{DIALOG} .mlt-facts').textContent.includes('caption')")
    # Going on saves, and what others have written is not lost.
    tab.keyboard.type("ow asleep")
    looker.select("cat 2.png")
    looker.until(lambda: field.input_value() == "a cät, number 2\n")
    assert (place / "cat 1.txt").read_text(encoding="utf-8") == "a red cat, now asleep\n"
    (place / "cat 2.txt").write_text("theirs\n", encoding="utf-8")
    field.fill("mine")
    looker.button("Save caption").click()
    looker.button("Load theirs").wait_for()
    assert (place / "cat 2.txt").read_text(encoding="utf-8") == "theirs\n"
    tab.locator(f"{DIALOG} .mlt-tile", has_text="cat 3.png").first.click()
    tab.wait_for_timeout(300)
    assert field.input_value() == "mine"
    looker.button("Save mine").click()
    looker.until(lambda: (place / "cat 2.txt").read_text(encoding="utf-8") == "mine\n")
    looker.button("As it was").click()
    assert field.input_value() == "a cät, number 2\n"
    tab.keyboard.press("Escape")
    assert tab.locator(DIALOG).is_visible()
    looker.shot("caption")
    looker.button("Close").click()
    tab.wait_for_selector(DIALOG, state="detached")
    assert (place / "cat 2.txt").read_text(encoding="utf-8") == "a cät, number 2\n"
    # Without a file of captions changed by hand the graph has nothing to do; with it, the cache takes it in.
    assert looker.page.queue()["status"]["status_str"] == "success"
    assert looker.page.problems == []


def test_captions_are_found_by_tags_changed_and_undone_in_the_page(looker, looking, folders):
    tagged = folders.make("tagged", 4, size=(128, 128), alpha=True, captions=False)
    before = {"cat 1": "red cat, sofa", "cat 2": "red cat, grass", "cat 3": "dog, sofa"}
    for name, text in before.items():
        (tagged / f"{name}.txt").write_text(text, encoding="utf-8")

    def texts():
        return {path.stem: path.read_text(encoding="utf-8") for path in sorted(tagged.glob("*.txt"))}

    looker.run(looking("tagged", mask_folder="")).shows(4).open()
    tab, panel = looker.tab, looker.tab.locator(f"{DIALOG} .mlt-captions")
    tab.keyboard.press("t")
    tag = panel.locator(".mlt-word", has_text="red cat")
    tag.wait_for()
    looker.shot("captions panel")
    assert panel.locator(".mlt-word .mlt-note").all_text_contents() == ["2", "2", "1", "1"]
    names = f"{DIALOG} .mlt-tile:not([hidden]) .mlt-tile-text"

    def shown():
        return [one.split()[-1] for one in tab.locator(names).all_text_contents()]

    tag.click()
    looker.until(lambda: shown() == ["1.png", "2.png"])
    tag.click()
    looker.until(lambda: shown() == ["3.png", "4.png"])
    tag.click()
    tag.click()
    looker.until(lambda: shown() == ["1.png", "2.png"])
    # What is changed are the pictures shown, and the clicked tag is the one meant.
    panel.get_by_label("What to do").select_option("replace tag")
    panel.get_by_label("Of which pictures").select_option("shown")
    tag.click()
    tag.click()
    tag.click()
    assert panel.get_by_label("Text to add or to look for").input_value() == "red cat"
    panel.get_by_label("New text").fill("blue cat")
    panel.get_by_role("button", name="Preview").click()
    panel.get_by_role("button", name="Change 2 captions").wait_for()
    assert panel.locator("del").all_text_contents() == ["red", "red"]
    assert panel.locator("ins").all_text_contents() == ["blue", "blue"]
    assert texts() == before
    looker.shot("many captions preview")
    panel.get_by_role("button", name="Change 2 captions").click()
    undo = panel.get_by_role("button", name="Undo (2 captions)")
    undo.wait_for()
    assert texts() == before | {"cat 1": "blue cat, sofa\n", "cat 2": "blue cat, grass\n"}
    field = tab.locator(f"{DIALOG} textarea.mlt-caption")
    looker.until(lambda: field.input_value() == "blue cat, sofa\n")
    panel.locator(".mlt-word", has_text="blue cat").wait_for()
    tab.wait_for_function(f"() => document.querySelector('{DIALOG} .mlt-facts').textContent.includes('caption')")
    looker.until(lambda: len(shown()) == 4)
    looker.shot("many captions changed")
    # A caption that was changed since stays, and is told.
    (tagged / "cat 2.txt").write_text("mine", encoding="utf-8")
    undo.click()
    panel.locator(".mlt-warnings", has_text="cat 2.png: its caption was changed since").wait_for()
    assert texts() == before | {"cat 2": "mine"}
    looker.shot("many captions undone")
    tab.keyboard.press("Escape")
    assert looker.page.problems == []


def test_several_captions_of_a_picture_have_a_field_each(looker, looking, folders):
    place = folders.make("several captions", 3, size=(128, 128), alpha=True)
    (place / "cat 1.txt").write_text("A cat sits here.\n\n  A cat on a sofa. \n", encoding="utf-8")
    (place / "cat 2.txt").write_text("red\ncat\n", encoding="utf-8")
    looker.run(looking("several captions", mask_folder="")).shows(3).open()
    tab, fields = looker.tab, looker.tab.locator(FIELD)
    looker.until(lambda: fields.count() == 2)
    assert [one.input_value() for one in fields.all()] == ["A cat sits here.", "A cat on a sofa."]
    assert looker.button("Save caption").is_disabled()
    tab.get_by_text("Several captions, a line for each").wait_for()
    looker.button("Add another caption").click()
    tab.keyboard.type("A third one\nin two lines.")
    looker.shot("several captions")
    looker.button("Remove caption 1").click()
    tab.keyboard.press("Control+Enter")
    looker.until(
        lambda: (place / "cat 1.txt").read_text(encoding="utf-8") == "A cat on a sofa.\nA third one in two lines.\n"
    )
    looker.until(lambda: looker.button("Save caption").is_disabled())
    # Tags of a line each stay what they are, and so does a caption alone until another is added.
    looker.select("cat 2.png")
    looker.until(lambda: fields.count() == 1 and fields.input_value() == "red\ncat\n")
    tab.get_by_text("Its lines are tags").wait_for()
    assert looker.button("Add another caption").is_hidden()
    looker.select("cat 3.png")
    looker.until(lambda: fields.count() == 1 and fields.input_value() == "a cät, number 3")
    looker.button("Add another caption").click()
    tab.keyboard.type("a dog, number 4")
    looker.select("cat 1.png")
    looker.until(lambda: (place / "cat 3.txt").read_text(encoding="utf-8") == "a cät, number 3\na dog, number 4\n")
    assert (place / "cat 2.txt").read_text(encoding="utf-8") == "red\ncat\n"
    assert looker.page.problems == []


def test_pictures_without_a_mask_among_others_are_a_question(looker, looking, folders):
    place = folders.make("some masked", 4, size=(128, 128))
    for number in (1, 2):
        folders.mask(place / f"cat {number}_mask.png", size=(128, 128))
    looker.run(looking("some masked", mask_folder="")).shows(4)
    tab, question = looker.tab, looker.tab.locator(f"{BROWSER} .mlt-question")
    question.wait_for()
    assert question.text_content().startswith("2 pictures have no mask, and would be learned whole")
    looker.shot("question")
    question.get_by_role("button", name="Paint masks").press("Enter")
    editor = tab.locator(".mlt-editor")
    editor.wait_for()
    looker.until(lambda: "cat 3.png" in editor.text_content())
    tab.keyboard.press("Escape")
    editor.wait_for(state="detached")
    looker.button("Close").click()
    question.get_by_role("button", name="Learn them whole").press("Enter")
    question.wait_for(state="hidden")
    looker.page.evaluate(
        "() => delete window.app.graph.nodes.find(n => n.type === 'MLT_InspectDataset').properties.masked_lora_maskless"
    )
    looker.page.queue()
    question.wait_for()
    question.get_by_role("button", name="Leave them out").press("Enter")
    question.wait_for(state="hidden")
    looker.page.queue()
    looker.until(lambda: tab.locator(f"{BROWSER} .mlt-tile:not([hidden])").count() == 2)
    assert question.is_hidden()
    assert looker.page.problems == []
