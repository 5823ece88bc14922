"""A mask painted in ComfyUI's own mask editor, in the real page, comes back as the mask of a picture."""

import numpy as np
import pytest
from PIL import Image

SIZE = (384, 256)
# The editor's brush as it is set at first, in pixels of the picture: a disc of this radius with a soft edge.
RADIUS = 10
# Closer than this to the middle of a stroke the soft brush covers fully.
CORE = 4

BUILD = """([loaded, saved]) => {
    const graph = window.app.graph
    graph.clear()
    const add = (type, x) => {
        const node = window.LiteGraph.createNode(type)
        node.pos = [x, 50]
        graph.add(node)
        return node
    }
    const set = (node, values) => {
        for (const [name, value] of Object.entries(values)) node.widgets.find(w => w.name === name).value = value
    }
    const image = add("LoadImage", 50), load = add("MLT_LoadDataset", 400), save = add("MLT_SaveMasks", 800)
    set(load, loaded)
    set(save, saved)
    load.connect(0, save, 0)
    image.connect(1, save, save.inputs.findIndex(slot => slot.name === "masks"))
    window.app.canvas.selectNode(image)
}"""
UPLOAD = "() => { window.app.graph.nodes[0].widgets.find(w => w.name === 'upload').callback() }"
SHOWN = """name => {
    const node = window.app.graph.nodes[0]
    return node.widgets.find(w => w.name === "image").value.startsWith(name) && node.imgs?.[0]?.complete
}"""
OPEN = "() => { window.app.extensionManager.command.execute('Comfy.MaskEditor.OpenMaskEditor') }"


class Editor:
    """The mask editor, opened on a picture that was chosen from the disk as a person does."""

    def __init__(self, page):
        self.page = page
        self.tab = page.page

    def open(self, picture):
        with self.tab.expect_file_chooser() as chooser:
            self.page.evaluate(UPLOAD)
        chooser.value.set_files(str(picture))
        self.tab.wait_for_function(SHOWN, arg=picture.stem)
        self.page.evaluate(OPEN)
        self.canvas = self.tab.locator("#maskEditorCanvasContainer canvas").last
        # The canvas has the picture's size once the picture is in it.
        self.tab.wait_for_function(
            "w => [...document.querySelectorAll('#maskEditorCanvasContainer canvas')].at(-1)?.width === w", arg=SIZE[0]
        )
        self.tab.wait_for_timeout(500)
        return self

    def paint(self, start, end):
        """One stroke between two points of the picture."""
        self.tab.mouse.move(*self._on_screen(start))
        self.tab.mouse.down()
        self.tab.mouse.move(*self._on_screen(end), steps=20)
        self.tab.mouse.up()

    def save(self):
        self.tab.get_by_role("dialog").get_by_role("button", name="Save").click()
        self.tab.wait_for_function(SHOWN, arg="clipspace-painted-masked")

    def _on_screen(self, point):
        box = self.canvas.bounding_box()
        return tuple(
            box[corner] + (value + 0.5) * box[side] / full
            for corner, side, value, full in zip(("x", "y"), ("width", "height"), point, SIZE, strict=True)
        )


@pytest.fixture
def editor(page):
    return Editor(page)


def distance_to_stroke(start, end):
    """Of every pixel (H, W), in pixels; the stroke is horizontal."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    return np.hypot(x - np.clip(x, start[0], end[0]), y - start[1])


def alpha_of_the_editor(server):
    """The alpha of the file that the editor uploaded last."""
    files = (server.base / "input").glob("clipspace-painted-masked-*.png")
    return np.asarray(Image.open(max(files, key=lambda path: path.stat().st_mtime_ns)))[..., 3]


def test_what_was_painted_is_what_is_learned(page, editor, folders, comfy_server):
    folder = folders.make("painted", size=SIZE)
    page.evaluate(BUILD, [{"folder": "painted"}, {"destination": "painted", "picture": "cat 2.png"}])
    start, end = (100, 64), (280, 64)
    editor.open(folder / "cat 2.png")
    editor.paint(start, end)
    editor.save()
    report = "\n".join(page.queue()["outputs"]["3"]["text"])
    assert "1 mask written" in report and "Only this picture was saved" in report
    place = comfy_server.base / "output" / "painted"
    assert [path.name for path in place.iterdir()] == ["cat 2.png"]
    written, distance = np.asarray(Image.open(place / "cat 2.png")), distance_to_stroke(start, end)
    assert (written[distance <= CORE] == 255).all()
    assert (written[distance >= RADIUS + 2] == 0).all()
    assert np.array_equal(written, 255 - alpha_of_the_editor(comfy_server))
    assert page.problems == []


def test_painting_over_a_picture_with_alpha_takes_away_what_is_learned(page, editor, folders, comfy_server):
    folder = folders.make("painted alpha", size=SIZE, alpha=True)
    for i in (1, 2, 3):
        folders.mask(folder / "masks" / f"cat {i}.png", size=SIZE, rows=1)
    before = (folder / "masks" / "cat 1.png").read_bytes()
    loaded = {"folder": "painted alpha", "mask_folder": "masks"}
    saved = {"destination": str(folder / "masks"), "picture": "cat 3", "invert_masks": True, "overwrite": True}
    page.evaluate(BUILD, [loaded, saved])
    start, end = (60, 50), (200, 50)
    editor.open(folder / "cat 3.png")
    editor.paint(start, end)
    editor.save()
    page.queue()
    written, distance = np.asarray(Image.open(folder / "masks" / "cat 3.png")), distance_to_stroke(start, end)
    opaque = np.arange(SIZE[1])[:, None] < SIZE[1] // 2
    assert (written[opaque & (distance >= RADIUS + 2)] == 255).all()
    assert (written[~opaque | (distance <= CORE)] == 0).all()
    assert np.array_equal(written, alpha_of_the_editor(comfy_server))
    assert (folder / "masks" / "cat 1.png").read_bytes() == before
    assert page.problems == []
