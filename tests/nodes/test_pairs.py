"""Pictures with references in a real ComfyUI: loaded, cached, told, and shown beside each other."""

import io

import numpy as np
import pytest
from PIL import Image

from harness.routes import Routes

COLOUR = (200, 60, 40)


class Shown(Routes):
    """The routes of one opened data set."""

    def __init__(self, server, dataset):
        super().__init__(server)
        self.base = f"/datasets/{dataset}/pictures"

    def drawn(self, path):
        status, _, content = self.ask("GET", self.base + path)
        assert status == 200, content
        return np.asarray(Image.open(io.BytesIO(content))).astype(int)


def told(run):
    return "\n".join(line for output in run.outputs.values() for line in output.get("text", []))


def cache(graph, dataset, **changes):
    vae = graph.add("VAELoader", vae_name="pixel_space")
    size = {"resolution": 64, "bucket_step": 16, "infill_variants": 0} | changes
    node = graph.add("MLT_CacheDataset", dataset=[dataset, 0], vae=[vae, 0], **size)
    graph.text([node, 1])


@pytest.fixture
def pairs(folders):
    """A folder of three pictures with masks; the first two have a reference of one colour each in `before`."""
    folder = folders.make("pairs", size=(96, 64))
    for number in (1, 2, 3):
        folders.mask(folder / f"cat {number}_mask.png", rows=0.5)
    (folder / "before").mkdir()
    for number, colour in ((1, COLOUR), (2, "green")):
        Image.new("RGB", (192, 128), colour).save(folder / "before" / f"cat {number}.jpg", quality=95)
    return folder


def load(graph, **changes):
    options = {"folder": "pairs", "reference_folders": "before", "missing_reference": "train without"} | changes
    return graph.add("MLT_LoadDataset", **options)


def test_pairs_are_cached_and_made_anew_when_a_reference_changes(comfy_client, graph, pairs):
    cache(graph, load(graph))
    text = told(comfy_client.run(graph.nodes))
    assert "references made now: 2" in text
    assert "reference_size: as the target, because no MODEL is connected" in text
    Image.new("RGB", (192, 128), "blue").save(pairs / "before" / "cat 2.jpg")
    text = told(comfy_client.run(graph.nodes))
    assert "references made now: 1" in text and "made now: 0 latent" in text


def test_the_browser_has_references_beside_their_picture(comfy_client, comfy_server, graph, pairs):
    look = graph.add("MLT_InspectDataset", dataset=[load(graph), 0], resolution=64)
    run = comfy_client.run(graph.nodes)
    assert "2 pictures with every reference, 1 without." in told(run)
    routes = Shown(comfy_server, run.outputs[look]["masked_lora_dataset"][0])
    columns = routes.get(routes.base)
    assert columns["references"] == [1, 1, 0]
    assert [("no_reference" in found) for found in columns["warnings"]] == [False, False, True]
    assert routes.get(f"{routes.base}/0")["references"] == [{"name": "before/cat 1.jpg", "size": [192, 128]}]
    pair = routes.drawn("/0/pair")
    assert pair.shape == (64, 96 + 1 + 96, 3)
    assert np.abs(pair[32, 40] - COLOUR).max() <= 12
    assert max(routes.drawn("/0/thumbnail?view=pair&side=128").shape) == 128
    assert routes.drawn("/2/pair").shape == (64, 96, 3)
    outside = pairs.parent.parent / "outside.jpg"
    (pairs / "before" / "cat 1.jpg").rename(outside)
    try:
        (pairs / "before" / "cat 1.jpg").symlink_to(outside)
    except OSError:
        pytest.skip("links need rights on this system")
    assert routes.ask("GET", f"{routes.base}/0/pair")[0] == 403


def test_a_pair_that_cannot_be_is_refused_before_anything_is_encoded(comfy_client, graph, pairs):
    Image.new("RGB", (64, 192), COLOUR).save(pairs / "before" / "cat 2.jpg")
    loaded = load(graph)
    graph.text([loaded, 4])
    assert "1 reference lies where its picture stands" in told(comfy_client.run(graph.nodes))
    cache(graph, loaded)
    error = comfy_client.run(graph.nodes, check=False).error
    assert "cat 2.png: the reference before/cat 2.jpg is 64×192 but the picture is 96×64" in error


def test_a_reference_folder_outside_is_refused(comfy_client, graph, pairs, tmp_path):
    graph.text([load(graph, reference_folders=str(tmp_path)), 4])
    error = comfy_client.run(graph.nodes, check=False).error
    assert "reference_folders: " in error and "lies outside the folders that may be read" in error


def test_the_model_says_how_large_references_are_and_its_caches_are_made_so(comfy_client, graph, pairs):
    small = graph.add("SmallFamily", family="flux2")
    node = graph.add(
        "MLT_CacheDataset",
        dataset=[load(graph), 0],
        model=[small, 0],
        clip=[small, 1],
        vae=[small, 2],
        resolution=64,
        bucket_step=16,
        infill_variants=3,
    )
    graph.text([node, 1])
    text = told(comfy_client.run(graph.nodes))
    assert "reference_size: own size, as the model's family knows references." in text
    assert "References are whole and at their own size: infill_variants changes the target only." in text
    assert "references made now: 2" in text
