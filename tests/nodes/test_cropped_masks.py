"""Inspect Dataset and its browser judge masks in the training picture, and tell what the cache found, once each."""

import dataclasses
import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from masklora.settings import MaskTransform

SIZE = (64, 192)
REPORT = "masked_lora_report"
INVERTED = dataclasses.asdict(MaskTransform(invert=True))


def png(rows):
    levels = np.zeros(SIZE[::-1], np.uint8)
    levels[rows] = 255
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def upright(folders, graph, comfy_client):
    """Runs Inspect Dataset on six upright pictures, of which the crop to a square keeps the middle third."""
    folder = folders.make("upright", count=6, size=SIZE)
    for i in range(1, 6):
        (folder / f"cat {i}_mask.png").write_bytes(png(slice(0, 48)))
    (folder / "cat 6_mask.png").write_bytes(png(slice(64, 80)))

    def run(*, bucketing):
        load = graph.add("MLT_LoadDataset", folder="upright")
        vae = [graph.add("VAELoader", vae_name="pixel_space"), 0]
        size = {"resolution": 64, "bucket_step": 16, "bucketing": bucketing, "infill_variants": 0}
        cache = graph.add("MLT_CacheDataset", dataset=[load, 0], vae=vae, **size)
        node = graph.add("MLT_InspectDataset", dataset=[load, 0], cache=[cache, 0], view="latent grid")
        text = graph.text([node, 1])
        outputs = comfy_client.run(graph.nodes).outputs
        return outputs[cache], outputs[node], outputs[text]["text"][0]

    return run


def warnings_in(output):
    return [line["text"] for line in output[REPORT] if line["level"] == "warning"]


def test_what_the_crop_takes_is_told_on_the_node_once(upright):
    cache, node, text = upright(bucketing=False)
    told = [line for line in warnings_in(node) if "the crop cuts their whole mask away" in line]
    assert len(told) == 1 and told[0].startswith("5 of 6 pictures teach nothing") and "cat 1.png" in told[0]
    assert set(warnings_in(cache)) & set(warnings_in(node)) >= set(told)
    assert max(Counter(line["text"] for line in node[REPORT]).values()) == 1
    assert text == node["text"][0] and text.count("the crop") == 1 and told[0] in text
    assert "cat 1.png: coverage 0.0%, 0 of 64×64 cells" in text
    assert "cat 6.png: coverage 25.0%, 1024 of 64×64 cells" in text


def test_where_buckets_fit_nothing_is_told_of_the_crop(upright):
    _, node, text = upright(bucketing=True)
    assert not [line for line in warnings_in(node) if "crop" in line]
    assert "cat 1.png: coverage 25" in text


def test_the_browser_follows_transforms_and_edits_in_the_crop(upright, routes):
    _, node, _ = upright(bucketing=False)
    path = f"/datasets/{node['masked_lora_dataset'][0]}"

    def columns():
        routes.until(lambda: routes.ask("GET", path)[2]["measured"] == 6)
        return routes.ask("GET", f"{path}/pictures")[2]

    def tried(transform):
        body = json.dumps({"transform": transform, "resolution": 64}).encode()
        assert routes.post(f"{path}/look", body)[0] == 200
        return columns()

    assert columns()["coverage"] == [0] * 5 + [0.25]
    assert columns()["warnings"] == [["cut_away"]] * 5 + [[]]
    assert tried(INVERTED)["coverage"] == [1] * 5 + [0.75]
    assert tried(None)["coverage"] == [0] * 5 + [0.25]
    token = routes.ask("GET", f"{path}/pictures/0/mask")[1]["ETag"]
    headers = {"Content-Type": "image/png", "If-Match": token}
    edited = png(slice(96, 192))
    status, _, told = routes.ask("POST", f"{path}/pictures/0/mask", body=edited, headers=headers)
    assert status == 200, told
    after = columns()
    assert after["coverage"] == [0.5, 0, 0, 0, 0, 0.25] and after["stale"][0] == ["mask"]
    # Of 96 rows the crop keeps 32.
    assert after["warnings"] == [["cut_away"]] * 5 + [[]]
