"""The real ComfyUI page in a headless browser."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

from PIL import Image

from devtools.comfy import PACK_FOLDER, ComfyError, describe_refusal

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Makes a graph of one selected node, whose help the page then shows.
SELECT = """type => {
    const node = window.LiteGraph.createNode(type)
    window.app.graph.clear()
    window.app.graph.add(node)
    window.app.canvas.selectNode(node)
}"""
# The browser's own notifications, noted instead of shown, in a page that lies in the background.
NOTIFIED = """() => {
    window.notified = []
    window.Notification = class {
        static permission = "granted"
        constructor(title, { body }) { window.notified.push([title, body]) }
    }
    Object.defineProperty(document, "hidden", { get: () => true })
}"""
# Milliseconds that a page on a busy machine may take for what is asked of it.
PATIENCE = 90_000
# What the page of ComfyUI 0.30 reports without any pack: an absent user.css, and its own start.
HOSTS_OWN_ERRORS = ("Failed to load resource", "ComfyApp graph accessed before initialization")
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_WINDOWS = ("Google/Chrome/Application/chrome.exe", "Microsoft/Edge/Application/msedge.exe")


def find_browser():
    """The path of an installed Chromium, Chrome or Edge (`MASKLORA_BROWSER` overrides), or None."""
    if chosen := os.environ.get("MASKLORA_BROWSER"):
        return chosen
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    if sys.platform == "win32":
        for variable in ("ProgramFiles", "ProgramFiles(x86)", "LOCALAPPDATA"):
            for place in _WINDOWS:
                candidate = Path(os.environ.get(variable, "")) / place
                if candidate.is_file():
                    return str(candidate)
    return None


# Also whether frames are drawn and requests answered: where either stops, everything waits.
CONDITION = """async () => {
    const start = performance.now()
    const within = (promise, ms) => Promise.race([promise, new Promise(done => setTimeout(done, ms, "none"))])
    const since = () => `${Math.round(performance.now() - start)} ms`
    const frame = await within(new Promise(done => requestAnimationFrame(done)).then(since), 5000)
    const asked = within(window.app.api.fetchApi("/queue").then(answer => answer.text()), 5000)
    const told = document.querySelectorAll(".mlt, .mlt [role=status]")
    const texts = [...told].map(e => `${e.className}${e.role === "status" ? `: ${e.textContent}` : ""}`)
    return {
        frame, queue: String(await asked).slice(0, 400), texts,
        visible: document.visibilityState, client: window.app.api.clientId, socket: window.app.api.socket?.readyState,
        nodes: window.app.graph.nodes.map(node => `${node.id} ${node.type}`).slice(0, 40),
        focus: document.activeElement?.outerHTML.slice(0, 200),
    }
}"""


# After its canvas is there the page still opens a first workflow, which would come between what a test loads; and
# what is queued before the server has given the page a name is told to nobody.
READY = """() => {
    const { app } = window
    return app?.vueAppReady && app.canvas && app.extensionManager?.spinner === false && Boolean(app.api.clientId)
}"""


class ComfyPage:
    """ComfyUI's page, opened and ready; `problems` collects what its console reports as errors."""

    def __init__(self, page, server):
        self.page = page
        self.server = server
        self.problems = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        page.on("console", self._note)

    def _note(self, message):
        if message.type != "error" or any(text in message.text for text in HOSTS_OWN_ERRORS):
            return
        ours = f"/extensions/{PACK_FOLDER}/" in (message.location or {}).get("url", "")
        if "Content Security Policy" in message.text and not ours:
            # ComfyUI's page asks its maker's server about nodes; this server forbids that.
            return
        self.problems.append(message.text)

    def condition(self):
        """How the page is, as lines for a person who looks for a fault."""
        try:
            found = self.page.evaluate(CONDITION)
        except Exception as error:
            found = {"no answer": error}
        return "\n".join([*(f"{name}: {value}" for name, value in found.items()), *self.problems])

    def open(self):
        # A person who has been here before: no tour, no template browser and no map over the graph.
        self.server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
        self.page.goto(self.server.address, wait_until="domcontentloaded")
        self.page.wait_for_function(READY, timeout=120_000)
        self.page.wait_for_selector("canvas", timeout=60_000)
        return self

    def evaluate(self, script, argument=None):
        return self.page.evaluate(script, argument)

    def load_workflow(self, workflow):
        """Loads a UI-format workflow (a path or the parsed JSON) as dropping the file on the page would."""
        if isinstance(workflow, str | Path):
            workflow = json.loads(Path(workflow).read_text(encoding="utf-8"))
        self.page.evaluate("async graph => { await window.app.loadGraphData(graph) }", workflow)
        return self

    def unknown_nodes(self):
        """The types of the nodes on the graph that the page does not know."""
        return self.page.evaluate("() => window.app.graph.nodes.filter(n => !n.constructor.nodeData).map(n => n.type)")

    def api_prompt(self):
        """The graph as the page itself converts it for the server."""
        return self.page.evaluate("async () => (await window.app.graphToPrompt()).output")

    def queue(self, *, timeout=300, check=True):
        """Presses run and waits for the end: the history record. A refused graph raises with the reasons."""
        with self.page.expect_response(
            lambda r: r.url.endswith("/prompt") and r.request.method == "POST", timeout=60_000
        ) as caught:
            self.page.evaluate("async () => { await window.app.queuePrompt(0, 1) }")
        answer = caught.value
        if not answer.ok:
            raise ComfyError(f"ComfyUI refused the graph: {describe_refusal(answer.text())}")
        return self.server.wait(answer.json()["prompt_id"], timeout=timeout, check=check)

    def graph_picture(self, *, width=2600, height=1800, types=None):
        """The graph as the page draws it, cut to its nodes, or to those of the given types: a PIL picture."""
        self.page.set_viewport_size({"width": width, "height": height})
        # A selected node has a frame and a tool bar.
        self.page.evaluate("() => window.app.canvas.deselectAll()")
        self.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(3000)
        shot = Image.open(io.BytesIO(self.page.locator("#graph-canvas").screenshot())).convert("RGB")
        left, top, right, bottom = self.page.evaluate(
            """types => {
                const { scale, offset } = window.app.canvas.ds
                const nodes = window.app.graph.nodes.filter(n => !types || types.includes(n.type))
                const boxes = nodes.map(n => [...n.pos, n.pos[0] + n.size[0], n.pos[1] + n.size[1]])
                const edge = (i, pick) => (pick(...boxes.map(b => b[i])) + offset[i % 2]) * scale
                // A node's title and the name of its pack lie above its place.
                const above = 60 * scale
                const [left, top] = [edge(0, Math.min) - 20, edge(1, Math.min) - above]
                return [left, top, edge(2, Math.max) + 20, edge(3, Math.max) + 20]
            }""",
            types,
        )
        return shot.crop((max(0, left), max(0, top), min(shot.width, right), min(shot.height, bottom)))

    def screenshot(self, path):
        self.page.screenshot(path=str(path))
