"""The mask editor as a person uses it: open over the real page, on a picture of an opened data set."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from devtools.page_modules import address

EDITOR = ".mlt-editor"
SETTINGS = "masked_lora.editor"
SHOTS = os.environ.get("MASKLORA_SHOTS")
OPEN = f"""([dataset, index, name, size, canSelect]) => {{
    window.editorClosed = false
    import("/scripts/api.js").then(async ({{ api }}) => {{
        const {{ openEditor }} = await import("{address("mask_editor/editor")}")
        const onSaved = answer => (window.saves ??= []).push(answer)
        await openEditor({{ api, dataset, picture: {{ index, name, size }}, canSelect, onSaved }})
        window.editorClosed = true
    }})
}}"""


class Editor:
    """The editor, open on a picture of an opened data set."""

    def __init__(self, page):
        self.page, self.tab = page, page.page

    def open(self, dataset, picture=0, name="cat 1.png", size=(192, 128), *, select=False):
        self.page.evaluate(OPEN, [dataset, picture, name, list(size), select])
        return self.ready(size)

    def ready(self, size=(192, 128)):
        self.size = size
        self.tab.wait_for_selector(f"{EDITOR} .mlt-editor-canvas")
        self.tab.wait_for_function(f"() => document.querySelector('{EDITOR} canvas').width > 300")
        self.tab.wait_for_timeout(200)
        return self

    def button(self, name):
        return self.tab.locator(EDITOR).last.get_by_role("button", name=name, exact=True)

    def spin(self, label):
        """The field of a number."""
        return self.tab.locator(EDITOR).get_by_role("spinbutton", name=label)

    def tint(self):
        return self.tab.locator(f"{EDITOR} input[type=color]")

    def set(self, label, value):
        field = self.spin(label)
        field.fill(str(value))
        field.press("Enter")
        self.canvas().focus()

    def canvas(self):
        return self.tab.locator(f"{EDITOR} .mlt-editor-canvas")

    def on_screen(self, point):
        """The whole pixel of the page nearest to a place of the picture, which is fitted into its frame."""
        left, top, scale = self.fitted()
        return round(left + point[0] * scale), round(top + point[1] * scale)

    def place(self, point):
        """Where in the picture that pixel lies exactly."""
        left, top, scale = self.fitted()
        x, y = self.on_screen(point)
        return (x - left) / scale, (y - top) / scale

    def fitted(self):
        """Left and top of the picture on the page, and its scale."""
        box = self.canvas().bounding_box()
        frame = self.canvas().evaluate("({ parentElement: one }) => [one.clientWidth, one.clientHeight]")
        scale = min(inner / side for inner, side in zip(frame, self.size, strict=True))
        scale = max(1, int(scale)) if scale > 1 else scale
        left, top = ((inner - side * scale) / 2 for inner, side in zip(frame, self.size, strict=True))
        return box["x"] + left, box["y"] + top, scale

    def drag(self, *points, steps=12):
        self.tab.mouse.move(*self.on_screen(points[0]))
        self.tab.mouse.down()
        for point in points[1:]:
            self.tab.mouse.move(*self.on_screen(point), steps=steps)
        self.tab.mouse.up()

    def press(self, *keys):
        for key in keys:
            self.tab.keyboard.press(key)

    def says(self, words):
        self.tab.wait_for_function(
            f"words => document.querySelector('{EDITOR} .mlt-editor-message')?.textContent.includes(words)", arg=words
        )

    def save(self):
        self.press("Control+s")
        self.says("Saved.")

    def idle(self):
        self.tab.wait_for_function(f"() => document.querySelector('{EDITOR}').getAttribute('aria-busy') === 'false'")

    def shot(self, name):
        if SHOTS:
            self.tab.wait_for_timeout(400)
            self.page.screenshot(Path(SHOTS) / f"{name}.png")


def pixels(path):
    image = Image.open(path)
    assert image.mode == "L"
    return np.asarray(image)
