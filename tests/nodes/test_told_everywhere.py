"""What a report finds stands on the node, in the log, on every node further on and in the run's list."""

import json

import numpy as np
import pytest
from PIL import Image


def lines(run, node, level="warning"):
    return [line["text"] for line in run.outputs[node]["masked_lora_report"] if line["level"] == level]


@pytest.fixture
def faulty(folders):
    """Four pictures, of which one has no mask; the masks keep the surroundings; no captions; a file of another kind."""
    folder = folders.empty("told")
    rng = np.random.default_rng(2)
    y, x = np.indices((128, 128))
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(folder / f"p{i}.png")
        if i:
            outside = np.hypot(y - 60 - i, x - 64) > 30 + i
            Image.fromarray(outside.astype(np.uint8) * 255).save(folder / f"p{i}_mask.png")
    (folder / "forgotten.psd").write_bytes(b"8BPS")
    return folder


def test_what_is_wrong_with_a_set_is_told_by_the_smallest_graph(
    comfy_client, comfy_server, train_graph, defaults, faulty, routes
):
    graph = train_graph(name="told everywhere", steps=1)
    graph["2"]["inputs"] = defaults("MLT_LoadDataset", folder="told")
    run = comfy_client.run(graph)
    loaded, cached, trained = (lines(run, node) for node in ("2", "3", "4"))
    for words in ("p0.png", "caption", "forgotten.psd"):
        assert any(words in text for text in loaded), words
    # Each node repeats the warnings of those before it, and adds its own.
    assert set(loaded) <= set(cached) <= set(trained)
    (inverted,) = [text for text in cached if "look inverted" in text]
    assert inverted not in loaded and "p" in inverted
    log = comfy_server.log.read_text(encoding="utf-8", errors="replace")
    assert all(text in log for text in trained)
    assert all(trained.count(text) == 1 for text in trained)
    (listed,) = [one for one in routes.get("/runs")["runs"] if one["name"] in ("told everywhere", "told_everywhere")]
    noted = [note["text"] for note in listed["notes"] if note["level"] == "warning"]
    assert set(cached) <= set(noted)
    assert json.dumps(listed, allow_nan=False)


def test_a_good_set_is_told_nothing_in_red(comfy_client, train_graph, defaults, folders):
    folder = folders.empty("all is well")
    rng = np.random.default_rng(4)
    y, x = np.indices((128, 128))
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(folder / f"p{i}.png")
        inside = np.hypot(y - 60 - i, x - 64) < 30 + i
        Image.fromarray(inside.astype(np.uint8) * 255).save(folder / f"p{i}_mask.png")
        (folder / f"p{i}.txt").write_text(f"a ball, number {i}", encoding="utf-8")
    graph = train_graph(name="all is well", steps=1)
    graph["2"]["inputs"] = defaults("MLT_LoadDataset", folder="all is well")
    run = comfy_client.run(graph)
    assert [lines(run, node) for node in ("2", "3", "4")] == [[], [], []]


def test_masks_as_load_image_gives_them_are_told_to_keep_the_surroundings(comfy_client, graph, demo_inputs, folders):
    y, x = np.indices((128, 128))
    pixels = np.random.default_rng(7).integers(0, 256, (128, 128, 4), dtype=np.uint8)
    pixels[..., 3] = 255 * (np.hypot(y - 60, x - 66) < 34)
    Image.fromarray(pixels).save(folders.input / "opaque middle.png")
    image = graph.add("LoadImage", image="opaque middle.png")
    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name=demo_inputs)
    found = []
    for inverted in (False, True):
        switch = {"invert_masks": inverted, "captions": "a ball"}
        dataset = graph.add("MLT_DatasetFromImages", images=[image, 0], masks=[image, 1], **switch)
        size = {"resolution": 128, "bucket_step": 16, "infill_variants": 0}
        cache = graph.add("MLT_CacheDataset", dataset=[dataset, 0], vae=[checkpoint, 2], **size)
        graph.text([cache, 1])
        found.append(lines(comfy_client.run(graph.nodes), cache))
    told, mended = ([text for text in texts if "inverted" in text] for texts in found)
    assert len(told) == 1 and "invert_masks" in told[0] and "Load Image" in told[0], found
    assert mended == []
