"""What a person meets in the first minute with the mask editor: the first stroke, the next picture, what stands out."""

import re
import time

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from harness.mask_editor import EDITOR, SETTINGS, Editor, pixels

SIZE = (192, 128)
DIALOG = ".mlt-dialog"
RED, GREEN, YELLOW, BLUE = (220, 30, 60), (20, 160, 60), (240, 200, 40), (40, 60, 170)


def picture(path, ground, *, size=SIZE, disc=YELLOW):
    """A disc on a ground of one colour, with a little noise, as photographs have it."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    rgb = np.empty((height, width, 3), np.float32)
    rgb[:] = ground
    rgb[np.hypot(x - 0.6 * width, y - 0.55 * height) < 0.25 * height] = disc
    rgb += np.random.default_rng(0).normal(0, 3, rgb.shape)
    Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(path)


def inspected(server, folder):
    """The graph that shows a folder in the browser, in API form."""
    info = server.object_info()

    def node(kind, **given):
        inputs = {}
        for name, (type_, *options) in info[kind]["input"].get("required", {}).items():
            settings = options[0] if options else {}
            inputs[name] = settings.get("default", settings.get("options", [None])[0] if type_ == "COMBO" else None)
        known = {name: value for name, value in inputs.items() if value is not None}
        return {"class_type": kind, "inputs": known | given}

    return {"1": node("MLT_LoadDataset", folder=folder), "2": node("MLT_InspectDataset", dataset=["1", 0])}


class Browser(Editor):
    """The editor, and the larger view of the data set that it is opened from."""

    def look_at(self, folder):
        self.page.evaluate(f"() => localStorage.removeItem('{SETTINGS}')")
        prompt = inspected(self.page.server, folder)
        self.page.evaluate("async graph => { await window.app.loadApiJson(graph, 'first minute') }", prompt)
        self.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.tab.wait_for_selector(".mlt-browser")
        self.page.queue()
        self.tab.locator(".mlt-browser .mlt-tile:not([hidden])").first.click()
        self.tab.wait_for_selector(DIALOG)
        self.shows(DIALOG, "cat 1.png")
        return self

    def shows(self, selector, name):
        """Waits until a picture is drawn in the larger view, or in the editor, and can be painted on there."""
        self.tab.wait_for_function(
            """([selector, name]) => {
                const canvas = document.querySelector(`${selector} canvas`)
                const middle = [canvas?.width / 2, canvas?.height / 2, 1, 1]
                return canvas?.getAttribute("aria-label")?.includes(name) && canvas.width > 300
                    && canvas.closest("dialog").getAttribute("aria-busy") !== "true"
                    && canvas.getContext("2d").getImageData(...middle).data[3] === 255
            }""",
            arg=[selector, name],
        )

    def edits(self, name, size=SIZE):
        self.shows(EDITOR, name)
        self.size = size

    def slow(self, path, seconds=1.5):
        """Makes what is asked of the server at a path take long."""

        def later(route):
            time.sleep(seconds)
            route.continue_()

        self.tab.route(re.compile(rf"/masked_lora/datasets/\w+{path}$"), later)

    def colour_at(self, selector, point):
        """What a canvas shows at a place of the picture, which is fitted into it: red, green, blue."""
        return np.array(
            self.tab.locator(f"{selector} canvas").first.evaluate(
                """(canvas, [[x, y], [width, height]]) => {
                    const fit = Math.min(canvas.width / width, canvas.height / height)
                    const scale = fit > 1 ? Math.floor(fit) : fit
                    const at = (value, side, full) => Math.round((full - side * scale) / 2 + value * scale)
                    const place = [at(x, width, canvas.width), at(y, height, canvas.height)]
                    return [...canvas.getContext("2d").getImageData(...place, 1, 1).data].slice(0, 3)
                }""",
                [list(point), list(self.size)],
            )
        )


@pytest.fixture
def editor(page):
    page.evaluate(f"() => localStorage.removeItem('{SETTINGS}')")
    return Editor(page)


@pytest.fixture
def bare(comfy_client, graph, folders):
    """A folder of pictures without masks, and the id of its opened data set."""
    folder = folders.empty("first minute")
    for number in range(1, 7):
        picture(folder / f"cat {number}.png", BLUE)
    load = graph.add("MLT_LoadDataset", folder=folder.name)
    node = graph.add("MLT_InspectDataset", dataset=[load, 0])
    return folder, comfy_client.run(graph.nodes).outputs[node]["masked_lora_dataset"][0]


def by_drag(key):
    def use(editor):
        editor.press(key)
        editor.drag((80, 32), (152, 32), (152, 112), (80, 112)) if key == "l" else editor.drag((80, 32), (152, 112))

    return use


def by_fill(editor):
    editor.press("g")
    editor.tab.mouse.click(*editor.on_screen((115, 70)))


def test_what_is_painted_or_chosen_first_is_learned_alone(editor, bare):
    folder, dataset = bare
    uses = {"Brush": by_drag("b"), "Box": by_drag("r"), "Lasso": by_drag("l"), "GrabCut": by_drag("c"), "Fill": by_fill}
    for index, (tool, use) in enumerate(uses.items()):
        name = f"cat {index + 1}"
        editor.open(dataset, picture=index, name=f"{name}.png")
        editor.says("Everything is learned so far")
        use(editor)
        editor.says("Only this is learned now; undo brings the rest back.")
        editor.shot(f"only-{tool}")
        editor.press("Control+z")
        expect(editor.button("Undo")).to_be_disabled()
        expect(editor.button("Save")).to_be_disabled()
        editor.press("Control+y")
        editor.save()
        written = pixels(folder / f"{name}-masklabel.png")
        assert written[70, 115] == 255, tool
        assert (written[:20] == 0).all() and (written[:, :60] == 0).all() and (written[120:] == 0).all(), tool
        editor.press("Escape")
        editor.tab.wait_for_function("() => window.editorClosed")
    # What is taken away first leaves the rest.
    editor.open(dataset, picture=5, name="cat 6.png")
    editor.press("e")
    editor.drag((80, 32), (152, 112))
    editor.save()
    written = pixels(folder / "cat 6-masklabel.png")
    assert written[70, 115] == 0 and (written[:20] == 255).all() and (written[:, :60] == 255).all()
    assert editor.page.problems == []


def test_a_tool_that_changes_nothing_says_so(editor, bare):
    _, dataset = bare
    editor.open(dataset)
    beside, corner = (-20, 60), (-5, 80)

    def press(*keys):
        return lambda: editor.press(*keys)

    steps = [
        (press("Control+z"), "Undo: nothing changed. There is no step to take back."),
        (editor.button("Learn all").click, "Learn all: nothing changed. All of this is learned already."),
        (editor.button("Grow").click, "Grow: nothing changed. The mask is the same everywhere and has no edge."),
        (lambda: editor.drag(beside, corner), "Brush: nothing changed. That was beside the picture."),
        (press("r", "Enter", "Enter", "Enter"), "Box: nothing changed. Drag from one corner of a box to the other."),
        (lambda: (editor.press("c"), editor.drag(beside, corner)), "GrabCut: nothing changed. That was beside the"),
        (lambda: (editor.press("l"), editor.drag(beside, corner)), "Lasso: nothing changed. Draw a line around"),
    ]
    for act, words in steps:
        act()
        editor.says(words)
        expect(editor.button("Undo")).to_be_disabled()
    editor.press("i", "e")
    editor.drag((80, 32), (152, 112))
    editor.says("Eraser: nothing changed. None of this is learned anyway.")
    editor.press("i", "b")
    editor.drag((80, 32), (152, 112))
    editor.says("Brush: nothing changed. All of this is learned already.")
    editor.shot("nothing-changed")
    editor.press("r")
    editor.drag((80, 32), (152, 112))
    editor.says("Box: nothing changed. All of this is learned already.")
    editor.press("Control+z", "Control+z")
    expect(editor.button("Undo")).to_be_disabled()
    assert editor.page.problems == []


@pytest.fixture
def looking(page):
    """The larger view."""
    return Browser(page)


def test_a_person_goes_from_picture_to_picture_and_loses_nothing(looking):
    folder = looking.page.server.base / "input" / "from picture to picture"
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {1: SIZE, 2: (384, 256), 3: SIZE, 4: SIZE}
    for number, size in sizes.items():
        picture(folder / f"cat {number}.png", BLUE, size=size)
    looking.look_at(folder.name)
    # In the larger view: what is known of the second picture comes late, and the editor is opened nevertheless.
    looking.slow("/pictures/1")
    looking.press("n", "e")
    looking.edits("cat 2.png", sizes[2])
    expect(looking.tab.locator(f"{EDITOR} strong")).to_have_text("cat 2.png · 384 × 256 · 2 of 4")
    expect(looking.spin("Size")).to_have_value(str(round(0.08 * 256)))
    looking.set("Size", 64)
    looking.drag((300, 150), (300, 160))
    # To the third one, which comes late: what is pressed meanwhile is meant for it.
    looking.slow("/pictures/2/image")
    looking.press("n", "r")
    looking.edits("cat 3.png")
    second = pixels(folder / "cat 2-masklabel.png")
    assert second[155, 300] == 255 and second[155, 200] == 0
    expect(looking.button("Box")).to_have_attribute("aria-pressed", "true")
    # A quarter of the shorter side, as in the second; a key goes on from there.
    looking.press("b")
    expect(looking.spin("Size")).to_have_value("32")
    looking.press("]")
    expect(looking.spin("Size")).to_have_value("36")
    # What cannot be saved stays open.
    blocked = folder / "cat 3-masklabel.png"
    blocked.mkdir()
    looking.press("r")
    looking.drag((20, 20), (60, 60))
    looking.says("Only this is learned now")
    looking.press("n", "i")
    looking.says("Not saved; Download keeps your work as a file.")
    expect(looking.tab.locator(f"{EDITOR} strong")).to_contain_text("cat 3.png")
    looking.shot("not-turned")
    blocked.rmdir()
    # Another program is faster: the person decides, and is led on.
    Image.new("L", SIZE, 9).save(blocked)
    looking.press("n")
    looking.tab.get_by_role("alertdialog").get_by_role("button", name="Save mine over it").click()
    looking.edits("cat 4.png")
    looking.says("cat 3.png is saved.")
    third = pixels(blocked)
    assert (third[20:60, 20:60] == 255).all() and third.sum() == 255 * 40 * 40
    # Twice in quick succession, past the end of the list, and one back; nothing has changed, nothing is written.
    looking.press("n", "n", "p")
    looking.edits("cat 1.png")
    assert sorted(path.name for path in folder.glob("*-masklabel.png")) == ["cat 2-masklabel.png", blocked.name]
    looking.button("Next picture").click()
    looking.edits("cat 2.png", sizes[2])
    looking.press("Escape")
    looking.tab.wait_for_selector(EDITOR, state="detached")
    looking.shows(DIALOG, "cat 2.png")
    assert looking.page.problems == []


# Of each thumbnail a pixel near the left border, in its upper and in its lower half.
THUMBNAILS = """async selector => {
    const pictures = [...document.querySelectorAll(selector)]
    await Promise.all(pictures.map(one => one.decode()))
    return pictures.map(one => {
        const canvas = document.createElement("canvas")
        const { naturalWidth: width, naturalHeight: height } = one
        Object.assign(canvas, { width, height })
        const context = canvas.getContext("2d")
        context.drawImage(one, 0, 0)
        return [0.3, 0.8].map(part => [...context.getImageData(width * 0.15, height * part, 1, 1).data.slice(0, 3)])
    })
}"""


def test_the_tint_stands_out_from_each_picture(looking):
    folder = looking.page.server.base / "input" / "tints"
    folder.mkdir(parents=True, exist_ok=True)
    grounds = {1: RED, 2: GREEN, 3: BLUE}
    for number, ground in grounds.items():
        picture(folder / f"cat {number}.png", ground, disc=(128, 128, 128))
        upper = np.zeros(SIZE[::-1], np.uint8)
        upper[:64] = 255
        Image.fromarray(upper).save(folder / f"cat {number}_mask.png")
    looking.look_at(folder.name)
    looking.size = SIZE
    learned, ignored = (20, 40), (20, 100)

    def tinted(selector):
        return np.abs(looking.colour_at(selector, learned) - looking.colour_at(selector, ignored)).max()

    assert tinted(DIALOG) > 60
    thumbnails = looking.tab.evaluate(THUMBNAILS, f"{DIALOG} .mlt-tile:not([hidden]) img")
    assert len(thumbnails) == len(grounds)
    for above, below in thumbnails:
        assert np.abs(np.subtract(above, below)).max() > 60, "a thumbnail's mask cannot be seen"
    looking.press("e")
    found = []
    for number in grounds:
        looking.edits(f"cat {number}.png")
        looking.shot(f"tint-{number}")
        assert tinted(EDITOR) > 60, number
        found.append(looking.tint().input_value())
        looking.press("n")
    assert len(set(found)) > 1
    # One's own is kept, also where it does not stand out, until the page is to choose again.
    looking.edits("cat 1.png")
    looking.tint().fill("#dc1e3c")
    looking.canvas().focus()
    looking.press("n")
    looking.edits("cat 2.png")
    expect(looking.tint()).to_have_value("#dc1e3c")
    looking.press("p")
    looking.edits("cat 1.png")
    assert tinted(EDITOR) < 30
    looking.button("Automatic").click()
    expect(looking.tint()).to_have_value(found[0])
    assert looking.page.problems == []


# Of every button and field that can be used: its words on its ground, its ground and its edge on the panel's ground;
# and of the buttons that cannot be used now, how much of them is left.
CONTROLS = """selector => {
    const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true })
    const channels = colour => {
        pixel.clearRect(0, 0, 1, 1)
        pixel.fillStyle = colour
        pixel.fillRect(0, 0, 1, 1)
        return [...pixel.getImageData(0, 0, 1, 1).data]
    }
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
    const light = colour => channels(colour).slice(0, 3).map(v => linear(v / 255))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
    const ratio = (one, other) => {
        const [low, high] = [light(one), light(other)].sort((a, b) => a - b)
        return (high + 0.05) / (low + 0.05)
    }
    const dialog = document.querySelector(selector)
    const panel = getComputedStyle(dialog).backgroundColor
    const all = [...dialog.querySelectorAll(".mlt-button, .mlt-field")].filter(one => one.checkVisibility())
    const plain = all.filter(one => !one.disabled && one.getAttribute("aria-pressed") !== "true")
    const of = one => getComputedStyle(one)
    return {
        count: plain.length,
        words: Math.min(...all.filter(one => !one.disabled).map(one => ratio(of(one).color, of(one).backgroundColor))),
        ground: Math.max(...plain.map(one => ratio(of(one).backgroundColor, panel))),
        edge: Math.min(...plain.map(one => ratio(of(one).borderTopColor, panel))),
        disabled: all.filter(one => one.disabled).map(one => Number(of(one).opacity)),
        icons: [...dialog.querySelectorAll("svg.mlt-icon")].filter(one => one.checkVisibility())
            .map(one => ratio(of(one).stroke, of(one.parentElement).backgroundColor)),
    }
}"""


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_buttons_and_fields_look_as_if_they_could_be_used(looking, theme):
    server, tab = looking.page.server, looking.tab
    folder = server.base / "input" / "in both themes"
    folder.mkdir(parents=True, exist_ok=True)
    picture(folder / "cat 1.png", BLUE)
    server.post("/settings", {"Comfy.ColorPalette": theme})
    try:
        tab.reload(wait_until="domcontentloaded")
        looking.page.open()
        looking.look_at(folder.name)
        looking.shot(f"viewer-{theme}")
        viewer = looking.page.evaluate(CONTROLS, DIALOG)
        looking.press("e")
        looking.edits("cat 1.png")
        looking.drag((80, 32), (152, 112))
        looking.says("Only this")
        looking.shot(f"editor-{theme}")
        found = looking.page.evaluate(CONTROLS, EDITOR)
    finally:
        server.post("/settings", {"Comfy.ColorPalette": "dark"})
    assert viewer["count"] > 8 and found["count"] > 25
    for one in (viewer, found):
        assert one["words"] >= 7, one
        # As light as the panel that they stand on: a grey ground is what switched off looks like there.
        assert theme == "dark" or (one["ground"] <= 1.1 and one["edge"] >= 4.5), one
    assert found["disabled"] and max(found["disabled"]) <= 0.5
    assert len(found["icons"]) >= 6 and min(found["icons"]) >= 4.5, found
    for name in ("Brush", "Eraser", "Fill", "Box", "Lasso", "GrabCut"):
        assert looking.button(name).locator("svg[aria-hidden=true] path").count() == 1, name
    drawn = tab.locator(f"{EDITOR} .mlt-editor-tools path").evaluate_all("all => all.map(one => one.getAttribute('d'))")
    assert len(set(drawn)) == len(drawn)
