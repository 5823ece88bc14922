"""A folder whose pictures show several subjects, through a real ComfyUI up to a trained LoRA."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from devtools.demo import CHECKPOINT


@pytest.fixture
def group(folders):
    """Two pictures of 128×128 of Anna and Ben, a third one of Anna alone."""
    for i in (1, 2, 3):
        pixels = np.random.default_rng(i).integers(0, 256, (128, 128, 3), np.uint8)
        path = folders.input / "group" / f"day {i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        path.with_suffix(".txt").write_text("two people", encoding="utf-8")
        for name, left in (("anna", 0), ("ben", 80)):
            mask = np.zeros((128, 128), np.uint8)
            mask[32:96, left : left + 48] = 255
            folder = folders.input / "group" / "masks"
            folder.mkdir(exist_ok=True)
            if i < 3 or name == "anna":
                Image.fromarray(mask).save(folder / f"day {i}.{name}.png")
    return "group"


def load(graph, folder, **widgets):
    return graph.add("MLT_LoadDataset", folder=folder, mask_source="folder", mask_folder="masks", **widgets)


def test_subjects_are_loaded_inspected_cached_and_trained(comfy_client, demo_server, graph, group):
    node = load(graph, group, together=0.4, subjects="ben: 2: a photo of ben")
    told = graph.text([node, 4])
    seen = graph.add("MLT_InspectDataset", dataset=[node, 0])
    model = graph.add("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    cache = graph.add(
        "MLT_CacheDataset",
        dataset=[node, 0],
        vae=[model, 2],
        clip=[model, 1],
        resolution=128,
        bucket_step=16,
        infill_variants=0,
        storage="memory",
    )
    cached = graph.text([cache, 1])
    trained = graph.add("MLT_TrainLoRA", model=[model, 0], cache=[cache, 0], steps=2, batch_size=2, name="of subjects")
    run = comfy_client.run(graph.nodes)
    text = {node: "\n".join(run.outputs[node]["text"]) for node in (told, seen, cached, trained)}
    assert "subjects in 3 pictures, 2 of them with several: anna (3), ben (2)." in text[told]
    assert "no mask of ben in day 3.png." in text[told]
    assert "day 1.png [ben]: coverage 18.8%" in text[seen] and "day 2.png [together]: coverage 28.1%" in text[seen]
    # Three pictures; their masks are alike in all of them; two captions and the empty one.
    assert "made now: 3 latent, 3 mask, 3 text" in text[cached]
    assert "Trained 2 steps" in text[trained]
    with safe_open(demo_server.base / "output" / "loras" / "of subjects.safetensors", "np") as file:
        (source,) = json.loads(file.metadata()["ss_datasets"])
    assert (source["images"], source["settings"]["together"]) == (3, 0.4)


def test_saved_masks_of_subjects_load_in_the_next_graph(comfy_client, graph, group):
    node = load(graph, group)
    grown = graph.add("MLT_TransformMasks", dataset=[node, 0], grow=16)
    saved = graph.add("MLT_SaveMasks", dataset=[grown, 0], destination="of subjects")
    text = "\n".join(comfy_client.run(graph.nodes).outputs[saved]["text"])
    assert text.startswith("5 masks written") and "day 1.png [together]" in text
    graph.nodes.clear()
    out = comfy_client.server.base / "output" / "of subjects"
    again = graph.add("MLT_LoadDataset", folder=group, mask_source="folder", mask_folder=str(out), subfolders=False)
    seen = graph.add("MLT_InspectDataset", dataset=[again, 0])
    text = "\n".join(comfy_client.run(graph.nodes).outputs[seen]["text"])
    assert "7 pictures: 7 with a mask" in text


def test_an_unknown_subject_is_refused_with_the_names_that_there_are(comfy_client, graph, group):
    graph.add("MLT_InspectDataset", dataset=[load(graph, group, subjects="bne: 2"), 0])
    error = comfy_client.refusal(graph.nodes)
    assert error.startswith("subjects: no mask is named <picture>.bne. There are anna, ben.")
