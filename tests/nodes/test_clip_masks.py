"""Masks of clips through the nodes of a real ComfyUI: made, saved, and loaded in the next graph."""

import numpy as np
import pytest

from harness.clips import write_clip
from harness.folders import anywhere, folder_settings
from harness.walking import overlap, walk
from masklora.dataset.loading import load_dataset
from masklora.dataset.moving import examine_frames

COUNT = 7


def report(client, graph, node):
    return "\n".join(client.run(graph.nodes).outputs[node]["text"])


@pytest.fixture
def clip(folders, graph):
    """A folder with one clip, loaded by a node; the folder and the true masks."""
    pictures, truth = walk(COUNT)
    place = folders.input / "one clip"
    write_clip(place / "walk.mkv", pictures)
    return place, graph.add("MLT_LoadDataset", folder="one clip"), truth


def masks_there(place, destination):
    (sample,) = load_dataset(folder_settings(place, mask_folder=str(destination)), allowed=anywhere).samples
    assert sample.mask_path == destination / "walk.mkv" and sample.mask_moving
    return np.stack([found.mask for found in examine_frames(sample, range(COUNT))])


def test_a_colour_key_of_a_clip_is_saved_and_loaded(clip, graph, comfy_client):
    place, load, truth = clip
    masks = graph.add("MLT_ColorMasks", dataset=[load, 0], colours="#00c800", tolerance=90)
    saved = graph.add("MLT_SaveMasks", dataset=[masks, 0], destination="clip keys")
    run = comfy_client.run(graph.nodes)
    assert any("walk.mkv: 7 frames; covers" in line for line in run.outputs[masks]["text"])
    assert "1 mask moves and is a clip of grey frames, .mkv." in "\n".join(run.outputs[saved]["text"])
    assert np.array_equal(masks_there(place, comfy_client.server.base / "output" / "clip keys"), truth)
    graph.nodes.clear()
    folder = str(comfy_client.server.base / "output" / "clip keys")
    again = graph.add("MLT_LoadDataset", folder="one clip", mask_source="folder", mask_folder=folder)
    checked = graph.add("MLT_InspectDataset", dataset=[again, 0])
    assert "1 clip: 1 with a mask" in report(comfy_client, graph, checked)


def test_grabcut_is_carried_over_a_clip_and_transformed(clip, graph, comfy_client):
    place, load, truth = clip
    masks = graph.add("MLT_GrabCutMasks", dataset=[load, 0], start="box", box="14, 10, 44, 44", key_frames="0")
    turned = graph.add("MLT_TransformMasks", dataset=[masks, 0], invert=True)
    graph.add("MLT_SaveMasks", dataset=[turned, 0], destination="clip cuts")
    run = comfy_client.run(graph.nodes)
    told = "\n".join(run.outputs[masks]["text"])
    assert "walk.mkv: from the box, carried from frame 0 over 7 frames; covers" in told
    found = 1 - masks_there(place, comfy_client.server.base / "output" / "clip cuts")
    assert all(overlap(found[number], truth[number]) > 0.85 for number in range(COUNT))


def test_key_frames_that_the_clip_has_not_are_an_error_that_names_the_widget(clip, graph, comfy_client):
    _, load, _ = clip
    masks = graph.add("MLT_GrabCutMasks", dataset=[load, 0], key_frames="99")
    graph.text([masks, 3])
    assert comfy_client.refusal(graph.nodes).startswith("key_frames: walk.mkv has 7 frames, numbered from 0 to 6")


def test_alpha_pictures_are_not_made_of_clips(clip, graph, comfy_client):
    _, load, _ = clip
    masks = graph.add("MLT_ShapeMasks", dataset=[load, 0])
    graph.add("MLT_SaveMasks", dataset=[masks, 0], layout="alpha png", destination="clip alpha")
    assert "layout: alpha png writes copies of still pictures, and walk.mkv is a clip" in comfy_client.refusal(
        graph.nodes
    )
