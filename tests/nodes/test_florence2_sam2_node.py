"""Florence-2 and SAM 2 masks in a real ComfyUI, with small random models whose answer is known."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from harness.clips import write_clip
from harness.grounding_models import boxed, write_florence2, write_sam2

CAT = "cat" + boxed(100, 200, 500, 600)
NODE = "MLT_Florence2Sam2Masks"


@pytest.fixture(scope="module")
def models(comfy_server):
    """Folders that appear in the models tree of a ComfyUI which already runs."""
    root = comfy_server.base / "models"
    write_florence2(root / "florence2" / "small one", answer=CAT)
    write_sam2(root / "sam2" / "tiny Größe", video=True)
    return {"florence2": "small one", "sam2": "tiny Größe"}


def shown(run, node):
    return "\n".join(run.outputs[node]["text"])


def pixels(client, entry):
    return np.asarray(Image.open(io.BytesIO(client.server.picture(entry))).convert("RGB")).astype(int)


def masks_of_images(graph, models, **widgets):
    pictures = graph.add("EmptyImage", width=96, height=64, batch_size=2, color=0x8040C0)
    node = graph.add(NODE, images=[pictures, 0], **models, **widgets)
    return node, graph.text([node, 3]), graph.add("MaskPreview", mask=[node, 1])


def test_the_lists_offer_the_folders_that_are_there_now(comfy_server, models):
    required = comfy_server.object_info()[NODE]["input"]["required"]
    assert models["florence2"] in required["florence2"][1]["options"]
    assert models["sam2"] in required["sam2"][1]["options"]


def test_pictures_of_a_dataset_get_masks(comfy_client, graph, folders, models):
    folders.make("florence set", count=2)
    load = graph.add("MLT_LoadDataset", folder="florence set")
    node = graph.add(NODE, dataset=[load, 0], phrases="cat\nunicorn", **models)
    report = graph.text([node, 3])
    inspected = graph.add("MLT_InspectDataset", dataset=[node, 0])
    run = comfy_client.run(graph.nodes)
    lines = shown(run, report).splitlines()
    assert "2 made" in lines[0]
    assert re.fullmatch(r'cat 1\.png: 1 × cat, no unicorn \(left out: "cat"\); covers [\d.]+%', lines[1])
    assert "2 pictures: 2 with a mask" in shown(run, inspected)


def test_each_frame_of_a_clip_gets_a_mask(comfy_client, graph, folders, models):
    write_clip(
        folders.input / "florence clip" / "walk.mkv", [np.full((64, 96, 3), 60 * n, np.uint8) for n in (1, 2, 3)]
    )
    load = graph.add("MLT_LoadDataset", folder="florence clip")
    node = graph.add(NODE, dataset=[load, 0], phrases="cat", **models)
    report = graph.text([node, 3])
    assert re.search(r"^walk\.mkv: 3 frames; covers [\d.]+%$", shown(comfy_client.run(graph.nodes), report), re.M)


def test_images_get_masks_of_their_size(comfy_client, graph, models):
    _, report, preview = masks_of_images(graph, models, phrases="cat")
    run = comfy_client.run(graph.nodes)
    assert "1 × cat; covers" in shown(run, report)
    masks = [pixels(comfy_client, entry) for entry in run.outputs[preview]["images"]]
    assert [mask.shape for mask in masks] == [(64, 96, 3)] * 2
    assert np.array_equal(masks[0], masks[1])


def test_inverted_masks_are_the_complement(comfy_client, graph, models):
    _, _, plain = masks_of_images(graph, models, phrases="cat")
    _, _, inverted = masks_of_images(graph, models, phrases="cat", invert=True)
    run = comfy_client.run(graph.nodes)
    one, other = (pixels(comfy_client, run.outputs[node]["images"][0]) for node in (plain, inverted))
    assert np.array_equal(one, 255 - other)
    assert 0 < one.mean() < 255


def test_nothing_found_is_an_error_that_names_what_was_answered(comfy_client, graph, models):
    masks_of_images(graph, models, phrases='a "unicorn" 🦄')
    run = comfy_client.run(graph.nodes, check=False)
    assert "nothing was found in 2 of 2 pictures" in run.error
    assert 'no a "unicorn" 🦄 (left out: "cat")' in run.error


def test_nothing_found_can_give_a_black_mask_instead(comfy_client, graph, models):
    _, report, preview = masks_of_images(graph, models, phrases="dog", nothing_found="black")
    run = comfy_client.run(graph.nodes)
    assert "2 black because nothing was found" in shown(run, report)
    assert pixels(comfy_client, run.outputs[preview]["images"][0]).max() == 0


def test_a_model_that_is_not_there_tells_which_files_go_where(comfy_client, graph, models):
    masks_of_images(graph, models | {"florence2": "large"})
    error = comfy_client.run(graph.nodes, check=False).error
    assert "florence2: there is no Florence-2 model 'large'" in error
    assert "small one" in error
    for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"):
        assert name in error
    assert str(comfy_client.server.base / "models" / "florence2") in error


def test_an_incomplete_folder_names_what_is_missing(comfy_client, graph, models):
    folder = comfy_client.server.base / "models" / "sam2" / "half"
    write_sam2(folder)
    (folder / "model.safetensors").rename(folder / "model.pt")
    masks_of_images(graph, models | {"sam2": "half"})
    error = comfy_client.run(graph.nodes, check=False).error
    assert "half lacks model.safetensors" in error


@pytest.mark.parametrize("name", ["../sam2/tiny Größe", "..", ".", "small one/../small one", "/"])
def test_no_name_of_a_workflow_becomes_a_path(comfy_client, graph, models, name):
    masks_of_images(graph, models | {"florence2": name})
    error = comfy_client.run(graph.nodes, check=False).error
    assert "there is no Florence-2 model" in error


def test_phrases_that_florence_2_takes_for_commands_are_refused(comfy_client, graph, models):
    masks_of_images(graph, models, phrases="cat <OD>")
    assert "phrases: 'cat <OD>' holds < or >" in comfy_client.run(graph.nodes, check=False).error


def test_no_phrase_is_an_error_before_any_model_is_loaded(comfy_client, graph, models):
    masks_of_images(graph, models, phrases=" \n ")
    assert "phrases: expected at least one phrase" in comfy_client.run(graph.nodes, check=False).error


def test_cancelling_ends_the_search(comfy_client, graph, folders, models):
    folders.make("many for florence", count=150, captions=False)
    load = graph.add("MLT_LoadDataset", folder="many for florence", preview_images=0)
    node = graph.add(NODE, dataset=[load, 0], phrases="cat", **models)
    prompt = comfy_client.submit(graph.nodes | {"90": shown_report(node)})
    comfy_client.wait_for(
        lambda kind, data: kind == "progress_state" and data["nodes"].get(node, {}).get("value", 0) > 2
    )
    comfy_client.interrupt()
    assert comfy_client.finish(prompt, check=False).ending == "execution_interrupted"


def shown_report(node):
    return {"class_type": "PreviewAny", "inputs": {"source": [node, 3]}}
