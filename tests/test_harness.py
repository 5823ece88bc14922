"""The harness itself, proved with ComfyUI's own nodes."""

import io
import json

import pytest
from PIL import Image

from devtools.frontend import VERSION
from harness.frontends import NEWEST, SHOWN

EMPTY_IMAGE = {"width": 32, "height": 16, "batch_size": 1, "color": 0xFF8000}


def graph_with(**changes):
    return {
        "1": {"class_type": "EmptyImage", "inputs": {**EMPTY_IMAGE, **changes}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "harness"}},
    }


def ui_graph():
    """The same graph as the page saves it."""
    return {
        "last_node_id": 2,
        "last_link_id": 1,
        "nodes": [
            {
                "id": 1,
                "type": "EmptyImage",
                "pos": [50, 50],
                "size": [300, 130],
                "flags": {},
                "order": 0,
                "mode": 0,
                "inputs": [],
                "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
                "properties": {},
                "widgets_values": [40, 24, 1, 0x00FF00],
            },
            {
                "id": 2,
                "type": "SaveImage",
                "pos": [400, 50],
                "size": [300, 270],
                "flags": {},
                "order": 1,
                "mode": 0,
                "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
                "outputs": [],
                "properties": {},
                "widgets_values": ["from the page"],
            },
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]],
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def saved_picture(server, outputs, node="2"):
    return Image.open(io.BytesIO(server.picture(outputs[node]["images"][0]))).convert("RGB")


def test_modules_have_one_identity_under_both_names():
    import masked_lora_pack.masklora.errors as real
    import masklora.errors as alias

    assert alias is real
    assert real.__spec__.name == "masked_lora_pack.masklora.errors"


def test_comfyui_s_own_nodes_module_is_not_hidden(comfy_host):
    import nodes

    assert nodes.__file__ == str(comfy_host.comfyui / "nodes.py")


def test_a_graph_runs_in_a_real_comfyui(comfy_client):
    run = comfy_client.run(graph_with())
    picture = saved_picture(comfy_client.server, run.outputs)
    assert picture.size == (32, 16)
    assert picture.getpixel((0, 0)) == (0xFF, 0x80, 0x00)
    assert run.ending == "execution_success"
    assert run.of_kind("executed")


def test_a_refused_graph_names_the_node_and_the_input(comfy_client):
    from devtools.comfy import ComfyError

    with pytest.raises(ComfyError, match=r"EmptyImage.*width"):
        comfy_client.run(graph_with(width=-1))


def test_a_failing_node_s_own_message_is_reported(comfy_client):
    graph = graph_with()
    graph["2"]["inputs"]["filename_prefix"] = "../../outside"
    run = comfy_client.run(graph, check=False)
    assert run.ending == "execution_error"
    assert "output" in run.error


def test_the_page_loads_a_workflow_and_runs_it(page):
    page.load_workflow(ui_graph())
    assert page.unknown_nodes() == []
    assert page.api_prompt()["1"]["inputs"]["width"] == 40
    record = page.queue()
    picture = saved_picture(page.server, record["outputs"])
    assert picture.size == (40, 24)
    assert picture.getpixel((0, 0)) == (0, 255, 0)
    assert page.problems == []


def test_the_page_is_of_the_frontend_that_this_session_shows(page):
    assert (page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__") == VERSION) == (SHOWN == NEWEST)


def test_the_page_reports_a_node_that_it_does_not_know(page):
    graph = json.loads(json.dumps(ui_graph()))
    graph["nodes"][0]["type"] = "NoSuchNode"
    page.load_workflow(graph)
    assert page.unknown_nodes() == ["NoSuchNode"]
