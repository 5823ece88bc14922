"""Odd pictures and phrases through the generator nodes, in a real ComfyUI and by their own sockets."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from harness.odd_pictures import scene, tells_what_to_do, write_damaged_pictures
from harness.segmentation_models import RANDOM_SAM3_FILE
from masked_lora_pack.nodes.generating import Request
from masked_lora_pack.nodes.mask_generators import GrabCutMasks
from masklora.errors import DataError

RED = {"colours": "#e62828", "tolerance": 20.0}


def shown(run, node):
    return "\n".join(run.outputs[node]["text"])


def sizes(client, run, node):
    found = [Image.open(io.BytesIO(client.server.picture(entry))) for entry in run.outputs[node]["images"]]
    return [image.size for image in found]


def preview(graph, masks):
    return graph.add("PreviewImage", images=[graph.add("MaskToImage", mask=masks), 0])


def load(graph, folders, name, *, height=40, width=48):
    """A LoadImage node of a red disc on dark ground."""
    Image.fromarray(scene(height, width)).save(folders.input / name)
    return graph.add("LoadImage", image=name)


@pytest.mark.parametrize("node_id", ["MLT_RandomMasks", "MLT_GrabCutMasks"])
def test_a_truncated_picture_of_a_dataset_is_named_by_the_failing_node(graph, comfy_client, folders, node_id):
    folder = write_damaged_pictures(folders.input / "Übung, 'damaged' 🐈")
    for name in ("empty.png", "text.png", "truncated jpeg.jpg"):
        (folder / name).unlink()
    Image.fromarray(scene()).save(folder / "sound.png")
    dataset = graph.add("MLT_LoadDataset", folder=folder.name, preview_images=0)
    node = graph.add(node_id, dataset=[dataset, 0])
    graph.text([node, 3])
    run = comfy_client.run(graph.nodes, check=False)
    failed = next(data for kind, data in run.record["status"]["messages"] if kind == "execution_error")
    assert failed["node_id"] == node
    assert run.error.startswith("truncated png.png: expected a complete picture, but it is truncated")
    assert tells_what_to_do(run.error)


def test_a_list_of_unlike_sizes_gets_masks_of_those_sizes(graph, comfy_client, folders):
    extents = [(40, 48), (1, 1), (300, 7)]
    pictures = [
        load(graph, folders, f"unlike {i}.png", height=height, width=width) for i, (height, width) in enumerate(extents)
    ]
    together = graph.add("CreateList", **{f"inputs.input{i}": [node, 0] for i, node in enumerate(pictures)})
    node = graph.add("MLT_ShapeMasks", images=[together, 0])
    seen, report = preview(graph, [node, 1]), graph.text([node, 3])
    run = comfy_client.run(graph.nodes)
    assert sizes(comfy_client, run, seen) == [(48, 40), (1, 1), (7, 300)]
    assert "3 made" in shown(run, report)


def test_a_batch_gets_a_batch_of_masks(graph, comfy_client, folders):
    batch = graph.add("RepeatImageBatch", image=[load(graph, folders, "repeated.png"), 0], amount=3)
    node = graph.add("MLT_ColorMasks", images=[batch, 0], **RED)
    seen, report = preview(graph, [node, 1]), graph.text([node, 3])
    run = comfy_client.run(graph.nodes)
    assert sizes(comfy_client, run, seen) == [(48, 40)] * 3
    assert "picture-0003: covers" in shown(run, report)


def test_the_alpha_of_a_picture_with_four_channels_is_the_mask_that_is_there(graph, comfy_client, folders):
    left = np.zeros((40, 48), np.uint8)
    left[:, 24:] = 255
    Image.fromarray(left).save(folders.input / "transparent half.png")
    mask = graph.add("LoadImageMask", image="transparent half.png", channel="red")
    joined = graph.add("JoinImageWithAlpha", image=[load(graph, folders, "opaque.png"), 0], alpha=[mask, 0])
    node = graph.add("MLT_ColorMasks", images=[joined, 0], combine="intersect", **RED)
    seen = preview(graph, [node, 1])
    run = comfy_client.run(graph.nodes)
    got = np.asarray(Image.open(io.BytesIO(comfy_client.server.picture(run.outputs[seen]["images"][0]))).convert("L"))
    assert (got[:, 24:] == 0).all()
    disc = scene()[..., 0] == 230
    assert ((got[:, :24] > 127) == disc[:, :24]).all()


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("phrase", ['"cat", (wild): 3 🐈‍⬛', "قطة\r\n猫"])
def test_odd_phrases_reach_the_search_as_typed(graph, comfy_client, folders, phrase):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=RANDOM_SAM3_FILE)
    picture = load(graph, folders, "phrases.png")
    settings = {"threshold": 0.0, "refine": 0, "instances": 1, "nothing_found": "white"}
    sockets = {"model": [loader, 0], "clip": [loader, 1], "images": [picture, 0], **settings}
    found = graph.text([graph.add("MLT_TextMasks", phrases=phrase, **sockets), 3])
    text = shown(comfy_client.run(graph.nodes), found)
    assert all(f"1 × {one} (0." in text for one in phrase.splitlines())


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("phrase", ["cat\0", "\ud83d", " \r\n\t", ""], ids=ascii)
def test_phrases_that_are_none_are_refused_by_the_node(graph, comfy_client, folders, phrase):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=RANDOM_SAM3_FILE)
    sockets = {"model": [loader, 0], "clip": [loader, 1], "images": [load(graph, folders, "none.png"), 0]}
    graph.text([graph.add("MLT_TextMasks", phrases=phrase, **sockets), 3])
    error = comfy_client.run(graph.nodes, check=False).error
    assert error.startswith("phrases: ")
    assert tells_what_to_do(error)


# What no node of ComfyUI gives, but those of others may.


def image(value=0.5, *, size=(6, 8), channels=3, batch=1):
    return torch.full((batch, *size, channels), value)


def cut(images, **lists):
    """What the GrabCut node gives for images as they come over the socket; nothing found is white."""
    request = {"images": images, "nothing_found": ["white"], "combine": ["replace"], **lists}
    return GrabCutMasks.execute(**request).result


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("socket", ["images", "mask"])
def test_values_that_are_not_finite_are_an_error_that_counts_the_picture(comfy_host, socket, value):
    wrong = image(batch=2)
    wrong[1, 2, 3] = value
    lists = {"images": [wrong]} if socket == "images" else {"images": [image(batch=2)], "mask": [wrong[..., 0]]}
    with pytest.raises(DataError, match=r"^picture-0002(, mask)?: expected values in 0\.\.1, got NaN or inf") as caught:
        cut(**lists)
    assert tells_what_to_do(str(caught.value))


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_an_image_without_three_or_four_channels_is_an_error(comfy_host, channels):
    with pytest.raises(DataError, match=rf"^picture-0001: expected a picture of shape .* got \(6, 8, {channels}\)"):
        cut([image(channels=channels)])


@pytest.mark.parametrize(
    ("images", "shapes"),
    [
        ([image(3.7)], [(1, 6, 8)]),
        ([image(-1.0)], [(1, 6, 8)]),
        ([image().half()], [(1, 6, 8)]),
        ([image()[0]], [(1, 6, 8)]),
        ([image().transpose(1, 2)], [(1, 8, 6)]),
        ([image(batch=2), image(size=(3, 2))], [(2, 6, 8), (1, 3, 2)]),
        ([image(batch=0), image()], [(0, 6, 8), (1, 6, 8)]),
        ([image().requires_grad_()], [(1, 6, 8)]),
    ],
    ids=["above 1", "below 0", "half precision", "no batch", "strided", "unlike sizes", "empty batch", "a gradient"],
)
def test_unusual_tensors_get_masks_in_their_own_batches(comfy_host, images, shapes):
    _, masks, sheet, report = cut(images)
    assert [tuple(mask.shape) for mask in masks] == shapes
    assert all(mask.dtype == torch.float32 and bool(((mask >= 0) & (mask <= 1)).all()) for mask in masks)
    assert bool(sheet.isfinite().all())
    lines = report.splitlines()[1:]
    assert len(lines) == sum(count for count, *_ in shapes)
    assert all("nothing found (" in line and line.endswith("; white mask") for line in lines)


def test_no_picture_at_all_is_an_error(comfy_host):
    with pytest.raises(DataError, match=r"^images: expected at least one picture, got none\. Connect"):
        Request.read({"images": [image(batch=0)]})
