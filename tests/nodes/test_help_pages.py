"""What the pack gives the page: one extension, and a help page for every node."""

import urllib.parse
import urllib.request
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).resolve().parents[2] / "web" / "docs").glob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=[path.stem for path in PAGES])
def test_comfyui_serves_the_help_page_where_the_frontend_asks_for_it(comfy_server, path):
    address = f"{comfy_server.address}/extensions/masked-lora/docs/{urllib.parse.quote(path.name)}"
    with urllib.request.urlopen(address) as answer:
        assert answer.read().decode("utf-8") == path.read_text(encoding="utf-8")


def test_the_page_registers_the_pack_s_extension_once(page):
    names = page.evaluate("() => window.app.extensions.map(one => one.name)")
    assert names.count("masked_lora") == 1
    assert page.problems == []


def test_a_new_node_hides_its_advanced_widgets(page):
    hidden = page.evaluate(
        """() => {
            const node = window.LiteGraph.createNode("MLT_LoadDataset")
            return node.widgets.filter(one => one.options?.advanced || one.advanced).map(one => one.name)
        }"""
    )
    assert {"subfolders", "caption_dropout", "preview_images"} <= set(hidden)
    assert not {"folder", "mask_source", "trigger_word"} & set(hidden)
