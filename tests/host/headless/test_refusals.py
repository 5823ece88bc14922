"""What ComfyUI's own check of a graph finds, in our sentences."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import execution
import pytest

import nodes
from masklora.host.headless.refusals import problems_of
from masklora.host.headless.running import inputs_of

UPSCALED = {"upscale_method": "bilinear", "width": 64, "height": 64, "crop": "disabled"}


def latent(**changes):
    inputs = {"width": 64, "height": 64, "batch_size": 1} | changes
    return {"class_type": "EmptyLatentImage", "inputs": inputs, "_meta": {"title": "Size"}}


def graph(**nodes):
    """A latent that is saved, and other nodes in place of these or beside them."""
    save = {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0], "filename_prefix": "a"}}
    return {"1": latent(), "2": save} | {name.removeprefix("n"): node for name, node in nodes.items()}


def problems(made):
    # In a thread of its own: a browser that an earlier test opened keeps a loop running in this one.
    with ThreadPoolExecutor(1) as apart:
        _, error, _, by_node = apart.submit(asyncio.run, execution.validate_prompt("test", made, None)).result()
    return problems_of(made, error, by_node, schema=inputs_of, known=nodes.NODE_CLASS_MAPPINGS)


def test_a_graph_that_comfyui_accepts_has_none():
    assert problems(graph()) == []


def without(name):
    node = latent()
    del node["inputs"][name]
    return node


def test_what_is_wrong_is_told_in_the_graph_s_order():
    wrong = {"class_type": "SaveLatent", "inputs": {"filename_prefix": "a"}}
    order = [str(name) for name in (5, 11, 3, 2, 8, 13, 4, 9)]
    assert [one.node for one in problems(dict.fromkeys(order, wrong))] == order


@pytest.mark.parametrize(
    ("node", "widget", "words"),
    [
        (latent(width=3), "width", "Size (node 1): width is 3, outside of 16 to"),
        (latent(width="wide"), "width", "Size (node 1): width is 'wide', which is no INT"),
        (without("height"), "height", "Size (node 1): height is missing. Give it by --set 1.height=VALUE"),
        (
            {"class_type": "LatentUpscale", "inputs": UPSCALED},
            "samples",
            "LatentUpscale (node 1): samples is missing. Connect it in the page",
        ),
    ],
    ids=["range", "type", "missing widget", "missing socket"],
)
def test_a_node_is_named_by_title_and_id_with_the_widget_and_what_to_do(node, widget, words):
    found = [one for one in problems(graph(n1=node)) if one.widget == widget]
    assert len(found) == 1 and words in found[0].text and found[0].node == "1"


def test_a_choice_that_is_not_there_tells_the_nearest():
    upscaled = {"class_type": "LatentUpscale", "inputs": UPSCALED | {"samples": ["1", 0], "upscale_method": "bilinaer"}}
    save = {"class_type": "SaveLatent", "inputs": {"samples": ["3", 0], "filename_prefix": "a"}}
    (one,) = problems(graph(n3=upscaled, n2=save))
    assert "upscale_method is 'bilinaer', which is not there. Nearest: bilinear" in one.text
    assert "--set 3.upscale_method=VALUE" in one.text


def test_one_branch_that_cannot_be_executed_refuses_the_whole_graph():
    save = {"class_type": "SaveLatent", "inputs": {"samples": ["3", 0], "filename_prefix": "b"}}
    (one,) = problems(graph(n3=latent(width=3), n4=save))
    assert one.node == "3"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (graph(n3={"class_type": "Nobody's", "inputs": {}}), "Nobody's (node 3): no pack in custom_nodes has a node"),
        ({"1": latent()}, "no node that makes anything"),
    ],
    ids=["class", "output"],
)
def test_a_graph_of_unknown_nodes_or_without_an_end_is_told(made, words):
    (one,) = problems(made)
    assert words in one.text


def test_every_node_that_no_pack_has_is_told_at_once():
    made = graph(n3={"class_type": "Nobody's", "inputs": {}}, n4={"class_type": "Nor his", "inputs": {}})
    assert [one.node for one in problems(made)] == ["3", "4"]


def test_a_circle_and_a_link_of_another_type_are_told_with_comfyui_s_own_words():
    wrong = {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["1", 0]}}
    shown = {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}}
    (one,) = problems(graph(n3=wrong, n4=shown))
    assert one.text.startswith("VAEDecode (node 3): Return type mismatch") and one.text.endswith("headless again.")
