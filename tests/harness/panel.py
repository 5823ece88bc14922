"""The training panel as a person uses it: on a node of the real page, or in the sidebar."""

import base64
import io

import numpy as np
from PIL import Image

PANEL = ".mlt-panel"
# The drawn pixels of the chart: those that are not transparent.
INK = """selector => {
    const canvas = document.querySelector(`${selector} canvas`)
    if (!canvas?.width) return 0
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
    let ink = 0
    for (let i = 3; i < data.length; i += 4) ink += data[i] > 0
    return ink
}"""
STEP = """([selector, least]) => {
    const words = document.querySelector(`${selector} .mlt-numbers`)?.textContent ?? ""
    return Number(words.match(/step (\\d+)/)?.[1] ?? 0) >= least
}"""
STATE = """([selector, state]) => document.querySelector(`${selector} .mlt-state`)?.dataset.state === state"""


class Panel:
    """The first training panel of the page."""

    def __init__(self, page, selector=PANEL):
        self.page, self.tab, self.selector = page, page.page, selector

    def load(self, prompt):
        self.page.evaluate("async graph => { await window.app.loadApiJson(graph, 'training') }", prompt)
        self.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.tab.wait_for_selector(self.selector, timeout=20_000)
        return self

    def start(self):
        with self.tab.expect_response(lambda r: r.url.endswith("/prompt") and r.request.method == "POST") as caught:
            self.page.evaluate("async () => { await window.app.queuePrompt(0, 1) }")
        assert caught.value.ok, caught.value.text()
        return caught.value.json()["prompt_id"]

    def at_step(self, least):
        self.tab.wait_for_function(STEP, arg=[self.selector, least], timeout=25_000)
        return self

    def in_state(self, state):
        self.tab.wait_for_function(STATE, arg=[self.selector, state], timeout=25_000)
        return self

    def button(self, name):
        return self.tab.locator(self.selector).first.get_by_role("button", name=name, exact=True)

    def ink(self):
        return self.page.evaluate(INK, self.selector)

    def pixels(self):
        """The chart's canvas as numpy (H, W, 4)."""
        address = self.page.evaluate("s => document.querySelector(`${s} canvas`).toDataURL()", self.selector)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA"))

    def choose(self, selector):
        return self.tab.locator(f"{self.selector} {selector}").first
