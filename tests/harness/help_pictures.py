"""What taking the pictures of the help pages needs: pictures to look at, graphs laid out on the page, small files."""

import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .clips import write_clip

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "web" / "docs"
PHOTOGRAPHS = ROOT / "tests" / "pictures" / "photographs"

# Of WebP: text stays sharp, and photographs take a third of what they would without loss.
QUALITY = 82

CLIP_FRAMES = 33
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


def offer_clip(base):
    """A clip of a head that walks over a photograph, with its mask clip, below ComfyUI's input: the folder's name."""
    folder = base / "input" / "a walk"
    shutil.rmtree(folder, ignore_errors=True)
    ground = Image.open(outline(SUBJECTS["coffee"][0])[0]).convert("RGB")
    path, shape = outline(SUBJECTS["astronaut"][0])
    box = shape.getbbox()
    head, shape = Image.open(path).convert("RGB").crop(box), shape.crop(box)
    frames, masks = [], []
    for number in range(CLIP_FRAMES):
        share = number / (CLIP_FRAMES - 1)
        side = round(190 + 60 * share)
        size = (side * head.width // head.height, side)
        at = round(20 + 340 * share), round(60 + 18 * math.sin(9 * share))
        frame = ground.resize((640, 427)).crop((0, 30, 640, 414))
        mask = Image.new("L", frame.size)
        mask.paste(shape.resize(size), at)
        frame.paste(head.resize(size), at, shape.resize(size))
        frames.append(np.asarray(frame))
        masks.append(np.asarray(mask)[..., None].repeat(3, 2))
    options = {"crf": "20", "g": "12"}
    write_clip(folder / "walk.mp4", frames, "libx264", "yuv420p", options, rate=16)
    write_clip(folder / "walk_mask.mkv", masks, "ffv1", "yuv420p", rate=16)
    write_clip(folder / "bare.mp4", frames, "libx264", "yuv420p", options, rate=16)
    for name in ("walk", "bare"):
        (folder / f"{name}.txt").write_text("a head walks over a table", encoding="utf-8")
    return folder.name


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
