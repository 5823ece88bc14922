"""The training panel as a person uses it: on a node of the real page, or in the sidebar."""

import base64
import io

import numpy as np
from PIL import Image

from devtools.page_modules import address

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
# Notes the rows that a chart is given and the steps that it has drawn, from here on.
WATCH = """async address => {
    const { Chart } = await import(address)
    const draw = Chart.prototype.draw
    Chart.prototype.draw = function (runs, ...how) {
        draw.call(this, runs, ...how)
        window.drawn = { rows: runs[0], steps: this.plot.data[0] }
    }
}"""
STEP = """([selector, least]) => {
    const words = document.querySelector(`${selector} .mlt-numbers`)?.textContent ?? ""
    return Number(words.match(/step (\\d+)/)?.[1] ?? 0) >= least
}"""
IN_VIEW = """selector => {
    const panel = document.querySelector(selector)
    if (!panel?.checkVisibility({ checkVisibilityCSS: true })) return false
    const { left, top, right, bottom } = panel.getBoundingClientRect()
    return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight && right > left
}"""
STATE = """([selector, state]) => document.querySelector(`${selector} .mlt-state`)?.dataset.state === state"""


class Panel:
    """The first training panel of the page."""

    def __init__(self, page, selector=PANEL):
        self.page, self.tab, self.selector = page, page.page, selector

    def watch(self):
        """From here on `draws` knows what the page's charts draw; again after each reload."""
        self.page.evaluate(WATCH, address("runs/chart"))
        return self

    def draws(self, rows):
        """Waits until the chart drawn last is that of `rows`, as the server tells them, and of no others."""
        for _ in range(50):
            drawn = self.page.evaluate("() => window.drawn")
            if drawn and drawn["rows"] == rows:
                break
            self.tab.wait_for_timeout(500)
        assert drawn["rows"] == rows
        assert drawn["steps"] == [row["step"] for row in rows]
        assert self.ink() > 0
        return self

    def load(self, prompt):
        self.page.evaluate("async graph => { await window.app.loadApiJson(graph, 'training') }", prompt)
        for _ in range(20):
            # What is out of view is hidden, and a busy page fits the view before it knows its nodes' sizes.
            self.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
            self.tab.wait_for_selector(self.selector, state="attached")
            self.tab.wait_for_timeout(500)
            if self.page.evaluate(IN_VIEW, self.selector):
                return self
        raise TimeoutError("the panel does not come into view")

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
