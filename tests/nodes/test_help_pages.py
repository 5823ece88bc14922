"""What the pack gives the page: one extension, and a help page for every node."""

import json
import re
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from masklora.loss.losses import outside_share
from masklora.loss.masks import feather_mask, latent_weights, reduce_mask
from masklora.settings import LossSettings

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "web" / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
GUIDE = DOCS / "masks-that-work.md"


@pytest.mark.parametrize("path", PAGES, ids=[path.relative_to(DOCS).as_posix() for path in PAGES])
def test_comfyui_serves_the_help_page_where_the_frontend_asks_for_it(comfy_server, path):
    asked = urllib.parse.quote(path.relative_to(DOCS).as_posix())
    with urllib.request.urlopen(f"{comfy_server.address}/extensions/masked-lora/docs/{asked}") as answer:
        assert answer.read().decode("utf-8") == path.read_text(encoding="utf-8")


def test_every_help_page_of_a_node_explains_all_its_inputs_and_outputs():
    """Some in a table of their own, so all tables count."""
    schemas = json.loads((ROOT / "tests" / "snapshots" / "schema.json").read_text(encoding="utf-8"))
    unexplained = {}
    for node, schema in schemas.items():
        page = (ROOT / "web" / "docs" / f"{node}.md").read_text(encoding="utf-8")
        told = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
        unexplained[node] = {name for kind in ("inputs", "outputs") for name, _ in schema[kind]} - told
    assert {node: names for node, names in unexplained.items() if names} == {}


def test_the_page_registers_the_pack_s_extension_once(page):
    names = page.evaluate("() => window.app.extensions.map(one => one.name)")
    assert names.count("masked_lora") == 1
    assert page.problems == []


def test_a_new_node_hides_its_advanced_widgets(page):
    hidden = page.evaluate(
        """() => {
            const node = window.LiteGraph.createNode("MLT_LoadDataset")
            return node.widgets.filter(one => one.options?.advanced && one.advanced).map(one => one.name)
        }"""
    )
    assert {"subfolders", "caption_dropout", "preview_images"} <= set(hidden)
    assert not {"folder", "mask_source", "trigger_word"} & set(hidden)


def test_the_masked_loss_shows_little_until_all_is_asked_for(page):
    first, everything, heights = page.evaluate(
        """() => {
            const node = window.LiteGraph.createNode("MLT_MaskedLoss")
            const shown = () => node.widgets.filter(one => node.isWidgetVisible(one)).map(one => one.name)
            window.app.graph.add(node)
            const before = [shown(), node.size[1]]
            node.toggleAdvanced()
            return [before[0], shown(), [before[1], node.size[1]]]
        }"""
    )
    assert first[0] == "preset" and len(first) <= 8
    # Of the rest what has an effect as they stand.
    assert {"prior_weight", "routes", "normalize"} <= set(everything) and len(everything) > 30
    assert heights[0] < 300 < heights[1]


def test_the_pages_name_each_other_by_the_address_that_comfyui_serves():
    for path in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
            # In the help panel a page's own address is ComfyUI's: only pictures may be told from the page.
            # A translated guide is in no panel.
            pictures = "images/" if path.parent == DOCS or path.parent.name.startswith("MLT_") else "../images/"
            known = "://" in link or link.startswith(("/extensions/masked-lora/docs/", pictures))
            assert known, f"{path.relative_to(DOCS)}: {link}"


def table_below(heading):
    """The rows of the first table of the guide below a line: lists of cells, without the head."""
    lines = GUIDE.read_text(encoding="utf-8").split(heading)[1].split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_guide_s_table_of_feathers_is_what_our_functions_give():
    mask = np.zeros((64, 512), np.float32)
    mask[:, 260:] = 1
    rows = table_below("Grey cells across a straight edge")
    assert len(rows) == 6
    for sigma, grey, span in rows:
        soft = feather_mask(mask, sigma=float(sigma)) if float(sigma) else mask
        cells = reduce_mask(torch.from_numpy(soft)[None, None], grid=(8, 64))[0, 0, 4]
        count = int(((cells > 0.02) & (cells < 0.98)).sum())
        assert (int(grey), span) == (count, f"{8 * count} px"), sigma


def test_the_guide_s_table_of_floors_is_what_our_functions_give():
    rows = table_below("## `floor` is not a share")
    assert len(rows) == 4
    for row in rows:
        coverage, *told = (float(cell.removesuffix(" %")) / 100 for cell in row)
        mask = torch.zeros(1, 1, 100, 100)
        mask.view(-1)[: round(10000 * coverage)] = 1
        weights = [latent_weights(mask, LossSettings(floor=floor)) for floor in (0.05, 0.1)]
        weights.append(outside_share(mask, share=0.1))
        shares = [((w * (1 - mask)).sum() / w.sum()).item() for w in weights]
        assert told == pytest.approx(shares, abs=0.005), row
