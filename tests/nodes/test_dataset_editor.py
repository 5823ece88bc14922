"""The mask editor in the real page: what a person paints is on the disk, and nobody's work is lost."""

import time

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from devtools.comfy import ComfyServer
from harness.mask_editor import EDITOR, OPEN, SETTINGS, Editor, pixels
from harness.page import ComfyPage
from harness.segmentation_models import SAM3_FILE

SIZE = (192, 128)


def density(distance, radius, hardness):
    inner, outer = max(0, hardness * radius - 0.5), radius + 0.5
    t = np.clip((distance - inner) / (outer - inner), 0, 1)
    return np.where(distance <= inner, 1, 1 - t * t * (3 - 2 * t))


def stroke(start, end, radius, hardness=1.0):
    """The density of a horizontal stroke at every pixel (H, W)."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    return density(np.hypot(x - np.clip(x, start[0], end[0]), y - start[1]), radius, hardness)


@pytest.fixture
def opened(comfy_client, graph, folders):
    """A folder whose first picture has a mask, its upper half; and the id of its opened data set."""
    folder = folders.make("editor", size=SIZE)
    for path in folder.glob("*_mask.png"):
        path.unlink()
    for path in folder.glob("*-masklabel.png"):
        path.unlink()
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    rgb = np.dstack([x, y * 2, np.full_like(x, 90)]).astype(np.uint8)
    rgb[np.hypot(x - 120, y - 70) < 30] = (240, 200, 40)
    Image.fromarray(rgb).save(folder / "cat 1.png")
    folders.mask(folder / "cat 1_mask.png", size=SIZE)
    load = graph.add("MLT_LoadDataset", folder="editor")
    node = graph.add("MLT_InspectDataset", dataset=[load, 0])
    outputs = comfy_client.run(graph.nodes).outputs[node]
    return folder, outputs["masked_lora_dataset"][0], graph.nodes


def test_a_picture_is_edited_from_the_browser_and_saved(both_canvases, opened):
    folder, _, prompt = opened
    tab = both_canvases.page
    both_canvases.evaluate("async graph => { await window.app.loadApiJson(graph, 'editing') }", prompt)
    both_canvases.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    tab.wait_for_selector(".mlt-browser")
    both_canvases.queue()
    tab.locator(".mlt-browser .mlt-tile:not([hidden])").first.click()
    tab.wait_for_selector(".mlt-dialog")
    tab.locator(".mlt-dialog").get_by_role("button", name="Edit mask").click()
    editor = Editor(both_canvases).ready()
    before = pixels(folder / "cat 1_mask.png")
    editor.press("e")
    editor.set("Size", 20)
    editor.set("Hardness", 100)
    start, end = editor.place((40, 20)), editor.place((140, 20))
    editor.drag((40, 20), (140, 20))
    editor.shot("editor")
    editor.press("Control+z", "Control+Shift+Z", "r")
    editor.drag((100, 90), (150, 120))
    editor.press("i")
    editor.save()
    # Halves are rounded up, as JavaScript does.
    expected = np.floor(0.5 + before * (1 - np.rint(255 * stroke(start, end, 10)) / 255))
    expected[90:120, 100:150] = 255
    assert np.array_equal(pixels(folder / "cat 1_mask.png"), 255 - expected)
    editor.button("Close").click()
    tab.wait_for_selector(EDITOR, state="detached")
    assert tab.locator(".mlt-dialog").is_visible()
    tab.keyboard.press("Escape")
    assert both_canvases.problems == []


@pytest.fixture
def editor(page):
    page.evaluate(f"() => localStorage.removeItem('{SETTINGS}')")
    return Editor(page)


def test_the_later_of_two_tabs_is_told_and_decides(editor, opened, browser_context, comfy_server):
    folder, dataset, _ = opened
    mask = folder / "cat 1_mask.png"
    other = Editor(ComfyPage(browser_context.new_page(), comfy_server).open()).open(dataset)
    editor.open(dataset)
    other.button("Ignore all").click()
    other.save()
    other.button("Learn all").click()
    editor.tab.bring_to_front()
    editor.press("i")
    painted = 255 - np.repeat([255, 0], SIZE[1] // 2)[:, None]
    editor.press("Control+s")
    question = editor.tab.get_by_role("alertdialog")
    question.wait_for()
    assert "changed elsewhere" in question.text_content()
    editor.shot("conflict")
    assert (pixels(mask) == 0).all()
    question.get_by_role("button", name="Save mine over it").click()
    editor.says("Saved.")
    assert (pixels(mask) == painted).all()
    other.tab.bring_to_front()
    other.press("Control+s")
    other.tab.get_by_role("alertdialog").get_by_role("button", name="Load theirs").click()
    other.says("Undo brings yours back")
    expect(other.button("Save")).to_be_disabled()
    other.press("i")
    other.save()
    assert (pixels(mask) == 255 - painted).all()
    other.tab.close()


def test_the_previous_version_comes_back_as_a_step(editor, opened):
    folder, dataset, _ = opened
    mask = folder / "cat 1_mask.png"
    before = pixels(mask)
    editor.open(dataset)
    editor.button("Ignore all").click()
    editor.save()
    assert (pixels(mask) == 0).all()
    editor.button("Previous version").click()
    editor.says("previous version is back")
    editor.press("Control+z")
    expect(editor.button("Save")).to_be_disabled()
    editor.press("Control+y")
    editor.save()
    assert np.array_equal(pixels(mask), before)


def test_escape_asks_when_something_is_unsaved(editor, opened):
    _, dataset, _ = opened
    editor.open(dataset)
    editor.press("i", "Escape")
    question = editor.tab.get_by_role("alertdialog")
    question.get_by_role("button", name="Keep editing").click()
    editor.press("Escape")
    question.get_by_role("button", name="Discard").click()
    editor.tab.wait_for_function("() => window.editorClosed")
    assert editor.tab.locator(EDITOR).count() == 0
    editor.open(dataset).press("Escape")
    editor.tab.wait_for_function("() => window.editorClosed")


def test_a_picture_without_a_mask_gets_one_beside_it(editor, opened):
    folder, dataset, _ = opened
    editor.open(dataset, picture=1, name="cat 2.png")
    editor.says("Everything is learned so far")
    editor.button("Ignore all").click()
    editor.press("l")
    editor.drag((20, 20), (100, 20), (100, 90), (20, 90))
    editor.save()
    written = pixels(folder / "cat 2-masklabel.png")
    assert (written[22:88, 22:98] == 255).all()
    assert written.sum() / 255 == pytest.approx(80 * 70, rel=0.02)


def test_fill_by_colour_and_grabcut_find_the_thing(editor, opened):
    folder, dataset, _ = opened
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    disc = np.hypot(x - 120, y - 70) < 30
    editor.open(dataset)
    editor.button("Ignore all").click()
    editor.press("g")
    editor.tab.mouse.click(*editor.on_screen((120, 70)))
    editor.save()
    filled = pixels(folder / "cat 1_mask.png") > 127
    assert (filled & disc).sum() / (filled | disc).sum() > 0.97
    editor.button("Ignore all").click()
    editor.press("c")
    editor.drag((80, 30), (160, 110))
    editor.idle()
    editor.shot("grabcut")
    editor.save()
    cut = pixels(folder / "cat 1_mask.png") > 127
    assert (cut & disc).sum() / (cut | disc).sum() > 0.95


def test_a_click_selects_a_thing_and_another_adds_to_it(editor, comfy_client, graph, folders, small_models):
    folder = folders.make("editor things", count=1, size=(160, 120))
    first, second = np.zeros((2, 120, 160), bool)
    first[20:60, 20:60], second[70:110, 90:140] = True, True
    Image.fromarray(np.dstack([(first | second).astype(np.uint8) * 255] * 3)).save(folder / "cat 1.png")
    load = graph.add("MLT_LoadDataset", folder="editor things")
    sam3 = graph.add("CheckpointLoaderSimple", ckpt_name=SAM3_FILE)
    node = graph.add("MLT_InspectDataset", dataset=[load, 0], sam3=[sam3, 0])
    dataset = comfy_client.run(graph.nodes).outputs[node]["masked_lora_dataset"][0]
    editor.open(dataset, size=(160, 120), select=True)
    editor.button("Ignore all").click()
    editor.press("s")
    written = folder / "cat 1-masklabel.png"
    for place, modifier, truth in (((40, 40), None, first), ((110, 90), "Shift", first | second)):
        if modifier:
            editor.tab.keyboard.down(modifier)
        editor.tab.mouse.click(*editor.on_screen(place))
        if modifier:
            editor.tab.keyboard.up(modifier)
        editor.idle()
        editor.shot("select")
        editor.save()
        found = pixels(written) > 127
        assert (found & truth).sum() / (found | truth).sum() > 0.9
    editor.press("Control+z")
    expect(editor.button("Undo")).to_be_enabled()


# How long the page stands still at most, until it is asked.
WATCH_FRAMES = """() => {
    let last = performance.now(), longest = 0, frame
    const step = now => {
        longest = Math.max(longest, now - last)
        last = now
        frame = requestAnimationFrame(step)
    }
    frame = requestAnimationFrame(step)
    window.longestFrame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
        cancelAnimationFrame(frame)
        done(longest)
    })))
}"""


def test_a_picture_of_24_megapixels_is_painted_without_waiting(editor, comfy_client, graph, folders):
    size = (6000, 4000)
    folders.make("editor large", count=1, size=size)
    load = graph.add("MLT_LoadDataset", folder="editor large")
    node = graph.add("MLT_InspectDataset", dataset=[load, 0])
    dataset = comfy_client.run(graph.nodes).outputs[node]["masked_lora_dataset"][0]
    editor.open(dataset, size=size)
    editor.set("Size", 200)
    editor.set("Softness", 60)
    times, gaps = {}, {}
    for name, act in (
        ("stroke", lambda: editor.drag((500, 500), (5000, 3000), (5000, 500), steps=40)),
        ("undo", lambda: editor.press("Control+z")),
        ("redo", lambda: editor.press("Control+y")),
        ("invert", lambda: editor.press("i")),
        ("zoom", lambda: editor.tab.mouse.wheel(0, -300)),
        ("grow", lambda: editor.button("Grow").click()),
        ("feather", lambda: editor.button("Feather").click()),
        ("save", editor.save),
    ):
        editor.page.evaluate(WATCH_FRAMES)
        start = time.monotonic()
        act()
        editor.idle()
        gaps[name] = round(editor.page.evaluate("() => window.longestFrame()") / 1000, 2)
        times[name] = round(time.monotonic() - start, 2)
    # A worker computes while the page goes on.
    assert gaps["grow"] < 0.8 * times["grow"] and gaps["feather"] < 0.8 * times["feather"], (times, gaps)
    # Seconds, many times what it takes; what grows with the size of the picture at every move would take longer.
    assert times.pop("stroke") < 12, times
    assert max(times.values()) < 25, times


def test_the_keyboard_alone_paints_a_box_and_a_dot(editor, opened):
    folder, dataset, _ = opened
    editor.open(dataset)
    expect(editor.canvas()).to_have_role("application")
    expect(editor.button("Save")).to_have_attribute("aria-keyshortcuts", "Control+S")
    editor.button("Ignore all").press("Enter")
    editor.canvas().focus()
    editor.press("r", "Enter", "Enter", *["ArrowRight"] * 10, *["ArrowDown"] * 5, "Enter")
    editor.press("b", *["ArrowUp"] * 30)
    editor.set("Size", 12)
    editor.set("Hardness", 100)
    editor.press("Enter")
    editor.shot("keyboard")
    editor.save()
    written = pixels(folder / "cat 1_mask.png")
    middle = (SIZE[0] // 2, SIZE[1] // 2)
    assert written[middle[1] + 3, middle[0] + 5] == 255
    columns = np.flatnonzero(written.any(0))
    rows = np.flatnonzero(written.any(1))
    assert columns[0] >= middle[0] - 1 and rows[0] < middle[1] - 10
    assert written.sum() > 0


def test_a_number_that_is_being_typed_stays_while_the_rest_is_shown_anew(editor, opened):
    _, dataset, _ = opened
    editor.open(dataset)
    size = editor.tab.locator(EDITOR).get_by_role("spinbutton", name="Size")
    size.fill("50")
    size.press("Enter")
    size.fill("20")
    # Saving is told, and what can be done is shown anew, while the number stands there half typed.
    editor.press("Control+s")
    editor.says("Nothing has changed since the last save.")
    editor.tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert size.input_value() == "20"
    size.press("Enter")
    editor.canvas().focus()
    editor.press("]")
    expect(size).to_have_value("23")
    size.fill("9999")
    size.press("Enter")
    expect(size).to_have_value(str(min(SIZE)))
    size.fill("")
    size.press("Enter")
    expect(size).to_have_value("1")
    assert editor.page.problems == []


def test_space_and_the_middle_button_move_the_picture_and_the_wheel_zooms(editor, opened):
    _, dataset, _ = opened
    editor.open(dataset)
    transform = f"() => document.querySelector('{EDITOR} .mlt-editor-marks path').getAttribute('d')"
    editor.tab.mouse.move(*editor.on_screen((96, 64)))
    ring = editor.page.evaluate(transform)
    editor.tab.mouse.wheel(0, -400)
    assert editor.page.evaluate(transform) != ring
    for down, up in (("keyboard", "Space"), ("mouse", "middle")):
        editor.press("0")
        if down == "keyboard":
            editor.tab.keyboard.down(up)
            editor.drag((50, 50), (90, 90))
            editor.tab.keyboard.up(up)
        else:
            editor.tab.mouse.down(button=up)
            editor.tab.mouse.move(300, 300)
            editor.tab.mouse.up(button=up)
    expect(editor.button("Save")).to_be_disabled()
    expect(editor.button("Undo")).to_be_disabled()


PEN = f"""async ([from, to, kind]) => {{
    const canvas = document.querySelector('{EDITOR} .mlt-editor-canvas')
    const send = (name, x, y, id, pressure) => canvas.dispatchEvent(new PointerEvent(name, {{
        pointerId: id, pointerType: kind, clientX: x, clientY: y, pressure, bubbles: true, cancelable: true,
        button: name === "pointermove" ? -1 : 0, buttons: name === "pointerup" ? 0 : 1,
    }}))
    canvas.setPointerCapture = () => {{}}
    if (kind === "pen") {{
        send("pointerdown", ...from, 7, 0.25)
        for (let i = 1; i <= 20; i++) {{
            const t = i / 20
            send("pointermove", from[0] + (to[0] - from[0]) * t, from[1] + (to[1] - from[1]) * t, 7, 0.25 + 0.75 * t)
        }}
        send("pointerup", ...to, 7, 0)
    }} else {{
        send("pointerdown", ...from, 1, 0.5)
        send("pointermove", from[0] + 20, from[1], 1, 0.5)
        send("pointerdown", ...to, 2, 0.5)
        send("pointermove", to[0] + 60, to[1] + 30, 2, 0.5)
        send("pointerup", to[0] + 60, to[1] + 30, 2, 0)
        send("pointerup", from[0] + 20, from[1], 1, 0)
    }}
}}"""


def test_a_pen_s_pressure_sets_the_width(editor, opened):
    folder, dataset, _ = opened
    editor.open(dataset)
    editor.button("Ignore all").click()
    editor.set("Size", 40)
    editor.set("Hardness", 100)
    editor.page.evaluate(PEN, [editor.on_screen((40, 64)), editor.on_screen((150, 64)), "pen"])
    editor.save()
    written = pixels(folder / "cat 1_mask.png")
    width = (written > 127).sum(0)
    assert width[40] == pytest.approx(10, abs=2)
    assert width[95] == pytest.approx(25, abs=3)
    assert width[149] == pytest.approx(40, abs=3)


def test_two_fingers_zoom_and_paint_nothing(editor, opened):
    _, dataset, _ = opened
    editor.open(dataset)
    editor.button("Ignore all").click()
    editor.page.evaluate(PEN, [editor.on_screen((40, 64)), editor.on_screen((150, 64)), "touch"])
    editor.press("Control+z")
    expect(editor.button("Undo")).to_be_disabled()
    expect(editor.button("Save")).to_be_disabled()


def test_comfyui_hears_none_of_the_editor_s_keys(editor, opened, comfy_server):
    _, dataset, prompt = opened
    editor.page.evaluate("async graph => { await window.app.loadApiJson(graph, 'kept') }", prompt)
    nodes = "() => window.app.graph.nodes.length"
    before = editor.page.evaluate(nodes)
    editor.page.evaluate("() => { window.app.canvas.selectItems(window.app.graph.nodes) }")
    editor.open(dataset)
    editor.press("Delete", "Backspace", "q", "w", "n", "m", "Control+z", "Control+b", "Control+a", "Control+s")
    editor.press("Control+Shift+s", "?")
    editor.tab.get_by_role("dialog", name="Short cuts").wait_for()
    editor.shot("shortcuts")
    assert "Ctrl+Z" in editor.tab.get_by_role("dialog", name="Short cuts").text_content()
    editor.press("Delete", "Escape", "Escape")
    editor.tab.wait_for_function("() => window.editorClosed")
    assert editor.page.evaluate(nodes) == before
    assert editor.tab.get_by_role("dialog").count() == 0
    assert editor.page.problems == []


def test_what_cannot_be_edited_says_why(editor, comfy_client, graph, folders):
    folders.make("editor made", size=SIZE)
    load = graph.add("MLT_LoadDataset", folder="editor made")
    made = graph.add("MLT_RandomMasks", dataset=[load, 0], combine="replace")
    node = graph.add("MLT_InspectDataset", dataset=[made, 0])
    dataset = comfy_client.run(graph.nodes).outputs[node]["masked_lora_dataset"][0]
    editor.page.evaluate(OPEN, [dataset, 0, "cat 1.png", list(SIZE)])
    editor.says("Save Masks")
    editor.button("Close").click()
    editor.tab.wait_for_function("() => window.editorClosed")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_words_and_controls_can_be_read_in_both_themes(page, opened, comfy_server, theme):
    _, dataset, _ = opened
    comfy_server.post("/settings", {"Comfy.ColorPalette": theme})
    try:
        page.page.reload(wait_until="domcontentloaded")
        editor = Editor(page.open()).open(dataset)
        editor.drag((40, 40), (150, 90))
        editor.shot(f"theme-{theme}")
        contrast = page.evaluate(CONTRAST, EDITOR)
        assert min(contrast.values()) >= 4.5, contrast
    finally:
        comfy_server.post("/settings", {"Comfy.ColorPalette": "dark"})


CONTRAST = """selector => {
    const parse = text => (text.match(/[\\d.]+/g) ?? []).map(Number)
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
    const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255)
    const behind = element => {
        for (let one = element; one; one = one.parentElement) {
            const colour = parse(getComputedStyle(one).backgroundColor)
            if (colour.length === 3 || colour[3] === 1) return colour
        }
        return [255, 255, 255]
    }
    const found = {}
    const words = "button, label, legend, input[type=number], select, strong, .mlt-note"
    for (const element of document.querySelector(selector).querySelectorAll(words)) {
        if (!element.checkVisibility() || element.disabled) continue
        const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))]
        const name = `${element.tagName} ${element.textContent.slice(0, 20)}`
        found[name] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    }
    return found
}"""


def painted(editor):
    """Paints a stroke and a box over an emptied mask; the levels that it then has (H, W)."""
    editor.button("Ignore all").click()
    editor.set("Size", 20)
    editor.set("Hardness", 100)
    start, end = editor.place((40, 20)), editor.place((140, 20))
    editor.drag((40, 20), (140, 20))
    editor.press("r")
    editor.drag((100, 90), (150, 120))
    levels = np.rint(255 * stroke(start, end, 10))
    levels[90:120, 100:150] = 255
    return levels


def downloaded(editor, act, to):
    """What `act` gives to the browser's downloads: the file's name and its levels."""
    with editor.tab.expect_download() as caught:
        act()
    caught.value.save_as(to)
    return caught.value.suggested_filename, pixels(to)


def test_a_downloaded_mask_is_what_was_painted_and_asks_the_server_nothing(editor, opened, tmp_path):
    folder, dataset, _ = opened
    before = pixels(folder / "cat 1_mask.png")
    editor.open(dataset)
    levels = painted(editor)
    asked = []
    editor.tab.on("request", lambda request: asked.append(request.url))
    for act in (editor.button("Download").click, lambda: editor.press("Control+Shift+s")):
        name, found = downloaded(editor, act, tmp_path / "mask.png")
        assert name == "cat 1_mask.png"
        assert np.array_equal(found, levels)
        editor.says("cat 1_mask.png is among this browser's downloads")
    assert [url for url in asked if not url.startswith("blob:")] == []
    editor.shot("downloaded")
    assert np.array_equal(pixels(folder / "cat 1_mask.png"), before)
    # It is not saved: closing asks.
    expect(editor.button("Save")).to_be_enabled()
    editor.press("Escape")
    editor.tab.get_by_role("alertdialog").get_by_role("button", name="Keep editing").click()
    assert editor.page.problems == []


def test_a_mask_in_work_outlasts_a_restart_of_comfyui(comfy_host, browser_context, graph, tmp_path):
    base = tmp_path / "own server"
    folder = base / "input" / "in work"
    folder.mkdir(parents=True)
    Image.new("RGB", SIZE).save(folder / "cat 1.png")
    Image.new("L", SIZE, 255).save(folder / "cat 1_mask.png")
    load = graph.add("MLT_LoadDataset", folder="in work")
    node = graph.add("MLT_InspectDataset", dataset=[load, 0])

    def queue():
        return server.wait(server.submit(graph.nodes))["outputs"][node]["masked_lora_dataset"][0]

    with ComfyServer(comfy_host, base) as server:
        dataset = queue()
        editor = Editor(ComfyPage(browser_context.new_page(), server).open())
        editor.open(dataset)
        levels = painted(editor)
        server.stop()
        editor.press("Control+s")
        editor.says("Not saved; Download keeps your work as a file.")
        name, found = downloaded(editor, editor.button("Download").click, tmp_path / "mask.png")
        assert name == "cat 1_mask.png" and np.array_equal(found, levels)
        server.start()
        editor.press("Control+s")
        editor.says("This data set is no longer open")
        editor.says("Not saved; Download keeps your work as a file.")
        editor.shot("not saved")
        assert queue() == dataset
        editor.save()
        assert np.array_equal(pixels(folder / "cat 1_mask.png"), levels)
        editor.tab.close()
