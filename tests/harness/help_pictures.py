"""What taking the pictures of the help pages needs: pictures to look at, graphs laid out on the page, small files."""

import io
import json
import shutil
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "web" / "docs"
PHOTOGRAPHS = ROOT / "tests" / "pictures" / "photographs"

# Of WebP: text stays sharp, and photographs take a third of what they would without loss.
QUALITY = 82

# What the photographs of `offer_pictures` show; the cat has no mask, the last figure no caption.
CAPTIONS = {"astronaut": "photo of an astronaut in an orange suit", "coffee": "a cup of coffee on a table"}
SUBJECTS = {"astronaut": ["astronaut's head and neck"], "coffee": ["coffee cup, saucer and spoon"]}

BUILD = """async ([nodes, links]) => {
    const empty = { last_node_id: 0, last_link_id: 0, nodes: [], links: [], groups: [], version: 0.4 }
    await window.app.loadGraphData(empty)
    const made = {}
    for (const [key, { type, at, size, title, ...widgets }] of Object.entries(nodes)) {
        const node = made[key] = window.LiteGraph.createNode(type)
        window.app.graph.add(node)
        if (title) node.title = title
        for (const [name, value] of Object.entries(widgets)) node.widgets.find(w => w.name === name).value = value
    }
    for (const [from, output, to, input] of links) {
        const slot = (slots, name) => slots.findIndex(one => one.name === name)
        made[from].connect(slot(made[from].outputs, output), made[to], slot(made[to].inputs, input))
    }
    // A new node is given its height a moment after it was made.
    await new Promise(done => setTimeout(done, 400))
    for (const [key, { at, size }] of Object.entries(nodes)) {
        const node = made[key]
        node.pos = at
        node.setSize([size?.[0] ?? 340, Math.max(size?.[1] ?? 0, node.computeSize()[1])])
    }
    window.app.canvas.deselectAll?.()
    window.app.canvas.setDirty(true, true)
}"""


def store(picture, name, *, side=1100):
    """Writes a picture of a help page, at most `side` pixels long."""
    picture = picture.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    picture.save(DOCS / "images" / f"{name}.webp", quality=QUALITY, method=6)


def build(page, nodes, links):
    """Puts nodes {key: {type, at, size, widgets…}} and links [from, output, to, input] on the page."""
    page.evaluate(BUILD, [nodes, links])


def screenshot(locator):
    """An element of the page as a PIL picture."""
    return Image.open(io.BytesIO(locator.screenshot())).convert("RGB")


def outline(name):
    """The file of a photograph, and the outline in it that was drawn by hand, white on black."""
    shape = json.loads((PHOTOGRAPHS / "outlines.json").read_text(encoding="utf-8"))[name]
    path = PHOTOGRAPHS / shape["file"]
    mask = Image.new("L", Image.open(path).size)
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in shape["polygon"]], fill=255)
    return path, mask


def offer_pictures(base):
    """Photographs of a person and things, and drawn figures, below ComfyUI's input: folders of pictures and masks."""
    pictures, masks = base / "input" / "people and things", base / "input" / "people and things, masks"
    for folder in (pictures, masks):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for name, (subject,) in SUBJECTS.items():
        path, mask = outline(subject)
        shutil.copy2(path, pictures)
        mask.save(masks / f"{name}.png")
        (pictures / f"{name}.txt").write_text(CAPTIONS[name], encoding="utf-8")
    path, mask = outline(SUBJECTS["astronaut"][0])
    cut = Image.open(path).convert("RGB")
    cut.putalpha(mask)
    cut.save(base / "input" / "astronaut.png")
    demo = ROOT / "demo" / "pictures"
    shutil.copy2(demo / "plain" / "chelsea.jpg", pictures)
    shutil.copy2(demo / "plain" / "chelsea.txt", pictures)
    for number in (1, 4, 7):
        name = f"zibble_{number:02}"
        shutil.copy2(demo / "masks" / "images" / f"{name}.png", pictures)
        shutil.copy2(demo / "masks" / "masks" / f"{name}.png", masks)
        if number != 7:
            shutil.copy2(demo / "masks" / "images" / f"{name}.txt", pictures)
    return {"folder": pictures.name, "mask_folder": masks.name, "mask_source": "folder"}
