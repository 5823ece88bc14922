"""Many pictures in the data set browser: how soon it shows something, how smoothly it scrolls, what the server needs.

`MASKLORA_PICTURES=10000 MASKLORA_RECORD=1 python dev.py test tests/nodes/test_browser_at_scale.py` measures ten
thousand and writes the figures to benchmarks/dataset_browser.json; `MASKLORA_TRACE=scrolling.json` keeps the trace that
Chromium recorded while the list was scrolled, for its own viewer.
"""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.trace import read_trace, recording

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "dataset_browser.json"
COUNT = int(os.environ.get("MASKLORA_PICTURES", "600"))
RECORD, TRACE = os.environ.get("MASKLORA_RECORD"), os.environ.get("MASKLORA_TRACE")
# A shared machine may be slow; the recorded run is held to the figures that users were promised.
SLACK = 1 if RECORD else 3
ALIKE = 50
LIST = ".mlt-dialog .mlt-list"

FIRST_PAINT = """async () => {
    const start = performance.now()
    document.querySelector(".mlt-browser button").click()
    await new Promise(done => {
        const look = () => {
            const tiles = [...document.querySelectorAll(".mlt-dialog .mlt-tile:not([hidden]) img[src]")]
            if (tiles.length >= 4 && tiles.slice(0, 4).every(tile => tile.complete && tile.naturalWidth)) done()
            else requestAnimationFrame(look)
        }
        look()
    })
    return performance.now() - start
}"""
# Wheels through the list as a person does, for `seconds`.
SCROLL = """async ([selector, seconds]) => {
    const list = document.querySelector(selector)
    const end = performance.now() + seconds * 1000
    await new Promise(done => {
        const step = now => {
            list.scrollTop += 53
            if (list.scrollTop + list.clientHeight >= list.scrollHeight - 1) list.scrollTop = 0
            if (now < end) requestAnimationFrame(step)
            else done()
        }
        requestAnimationFrame(step)
    })
}"""

JUMP = """([selector, share]) => {
    const list = document.querySelector(selector)
    list.scrollTop = share * list.scrollHeight
}"""


@pytest.fixture
def many(folders):
    """A folder of `COUNT` pictures of 256×256 with masks beside them."""
    folder = folders.empty("browser at scale")
    random = np.random.default_rng(0)
    for i in range(min(ALIKE, COUNT)):
        small = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{i:05}.jpg", quality=90)
        mask = np.zeros((256, 256), np.uint8)
        mask[40 : 60 + 3 * i, 30 : 220 - i] = 255
        Image.fromarray(mask).save(folder / f"{i:05}-masklabel.png")
    for i in range(ALIKE, COUNT):
        shutil.copyfile(folder / f"{i % ALIKE:05}.jpg", folder / f"{i:05}.jpg")
        shutil.copyfile(folder / f"{i % ALIKE:05}-masklabel.png", folder / f"{i:05}-masklabel.png")
    yield folder.name
    # Ten thousand files are more than a machine for tests should keep.
    shutil.rmtree(folder)


def resident_mebibytes(pid):
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def test_many_pictures_show_at_once_and_scroll_smoothly(browser, page, comfy_server, defaults, many):
    graph = {
        "1": {"class_type": "MLT_LoadDataset", "inputs": defaults("MLT_LoadDataset", folder=many)},
        "2": {"class_type": "MLT_InspectDataset", "inputs": defaults("MLT_InspectDataset", dataset=["1", 0])},
    }
    page.evaluate("async graph => { await window.app.loadApiJson(graph, 'many') }", graph)
    page.queue(timeout=580)
    page.page.wait_for_function(
        "n => document.querySelector('.mlt-browser .mlt-note').textContent.startsWith(`${n} `)",
        arg=COUNT,
        timeout=60_000,
    )
    first = page.evaluate(FIRST_PAINT)
    # Once through, so that what is remembered has its size.
    page.evaluate(SCROLL, [LIST, 4])
    server = comfy_server.process.pid
    before = resident_mebibytes(server)
    with recording(browser, page.page) as recorded:
        page.evaluate(SCROLL, [LIST, 8])
    for share in np.linspace(0, 1, 25):
        page.evaluate(JUMP, [LIST, share])
        page.page.wait_for_timeout(250)
    grown = resident_mebibytes(server) - before
    if TRACE:
        Path(TRACE).write_bytes(recorded.data)
    found = read_trace(recorded.data, scripts="/dataset/")
    own = max((task.own_ms for task in found.tasks), default=0.0)
    # Where another program takes the processor, as on a shared machine, what we did is what counts.
    worked = max((task.own_cpu_ms for task in found.tasks), default=0.0)
    figures = {
        "pictures": COUNT,
        "first_paint_ms": round(first),
        "frames": len(found.frames),
        "frame_ms_median": round(float(np.median(found.frames)), 1),
        "frame_ms_p95": round(float(np.percentile(found.frames, 95)), 1),
        "long_tasks": len(found.tasks),
        "longest_own_part_of_one_ms": round(own, 1),
        "longest_own_work_in_one_ms": round(worked, 1),
        "server_mebibytes": round(before),
        "server_grown_mebibytes": round(grown, 1),
        "elements": page.evaluate(f"() => document.querySelectorAll('{LIST} *').length"),
    }
    if RECORD:
        figures = {"taken": time.strftime("%Y-%m-%d"), **figures}
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    assert figures["elements"] < 400
    assert first < 2000 * SLACK
    assert worked < 50
    assert own < 50 or not RECORD
    assert figures["frame_ms_p95"] <= 33.4 * SLACK
    assert grown < 32 * SLACK
    assert page.problems == []
