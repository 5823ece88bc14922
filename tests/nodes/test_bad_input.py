"""What a person reads when something is wrong with their data: the thing, and the remedy."""

import json

import numpy as np
import pytest
from PIL import Image

from devtools.comfy import ComfyError


@pytest.fixture
def failure(graph, comfy_client):
    """Runs a dataset through the inspection and gives the error's text."""

    def run(dataset, **changes):
        graph.add("MLT_InspectDataset", dataset=[dataset, 0], **changes)
        return comfy_client.refusal(graph.nodes)

    return run


def refusal(graph, client):
    graph.add("MLT_InspectDataset", dataset=[str(len(graph.nodes)), 0])
    with pytest.raises(ComfyError) as caught:
        client.run(graph.nodes)
    return str(caught.value)


def test_a_missing_folder(graph, failure):
    text = failure(graph.add("MLT_LoadDataset", folder="no such folder"))
    assert text.startswith("folder: ")
    assert "no such folder does not exist" in text
    assert "put pictures in it" in text


def test_no_folder_at_all(graph, failure):
    text = failure(graph.add("MLT_LoadDataset", folder="  "))
    assert "folder: expected a folder, got nothing" in text


def test_an_empty_folder(graph, failure, folders):
    (folders.input / "empty").mkdir(exist_ok=True)
    text = failure(graph.add("MLT_LoadDataset", folder="empty"))
    assert "empty: no picture in this folder; expected" in text
    assert "Put pictures in it." in text


def test_a_truncated_picture_is_named(graph, failure, folders):
    folder = folders.make("truncated", size=(200, 200), alpha=True)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 4), np.uint8)
    Image.fromarray(noise).save(folder / "cat 2.png")
    whole = (folder / "cat 2.png").read_bytes()
    (folder / "cat 2.png").write_bytes(whole[: len(whole) // 2])
    text = failure(graph.add("MLT_LoadDataset", folder="truncated", mask_source="alpha"))
    assert "cat 2.png" in text


def test_a_file_that_is_no_picture_is_named(graph, failure, folders):
    folder = folders.make("no picture")
    (folder / "cat 3.png").write_bytes(b"this is text")
    text = failure(graph.add("MLT_LoadDataset", folder="no picture"))
    assert "cat 3.png" in text


def test_a_picture_of_a_hundred_megapixels(graph, failure, folders):
    folder = folders.make("huge", count=1)
    Image.new("1", (10_000, 10_000)).save(folder / "cat 9.png")
    text = failure(graph.add("MLT_LoadDataset", folder="huge"))
    assert "cat 9.png" in text
    assert "100 Mpx" in text


def test_a_mask_of_another_aspect(graph, failure, folders):
    folder = folders.make("aspect", size=(96, 64))
    folders.mask(folder / "cat 2_mask.png", size=(64, 64))
    text = failure(graph.add("MLT_LoadDataset", folder="aspect"))
    assert "cat 2.png" in text
    assert "the mask is 64×64 but the image is 96×64" in text
    assert "Save the mask at the image's size." in text


def test_a_mask_folder_that_fits_no_picture(graph, failure, folders):
    folder = folders.make("foreign masks")
    folders.mask(folder / "masks" / "dog.png")
    source = {"mask_source": "folder", "mask_folder": "masks"}
    text = failure(graph.add("MLT_LoadDataset", folder="foreign masks", **source))
    assert "no mask fits any picture" in text
    assert "dog.png" in text


def test_a_mask_for_no_picture_is_reported_and_the_rest_is_used(graph, comfy_client, folders):
    folder = folders.make("orphan")
    for name in ("cat 1", "cat 2", "dog"):
        folders.mask(folder / "masks" / f"{name}.png")
    source = {"mask_source": "folder", "mask_folder": "masks"}
    load = graph.add("MLT_LoadDataset", folder="orphan", **source)
    shown = graph.add("MLT_InspectDataset", dataset=[load, 0])
    text = comfy_client.run(graph.nodes).outputs[shown]["text"][0]
    assert "3 pictures: 2 with a mask, 1 without." in text
    assert "1 mask file that fits no picture" in text
    assert "dog.png" in text


def test_no_captions_anywhere_is_reported(graph, comfy_client, folders):
    folders.make("silent", captions=False)
    load = graph.add("MLT_LoadDataset", folder="silent")
    shown = graph.add("MLT_InspectDataset", dataset=[load, 0])
    text = comfy_client.run(graph.nodes).outputs[shown]["text"][0]
    assert "No picture has a caption" in text
    assert "set a trigger word" in text


def test_a_caption_that_is_not_utf_8(graph, failure, folders):
    folder = folders.make("latin")
    (folder / "cat 1.txt").write_bytes("Kätzchen".encode("latin-1"))
    text = failure(graph.add("MLT_LoadDataset", folder="latin"))
    assert "cat 1.txt: expected UTF-8" in text
    assert "Save the caption as UTF-8." in text


def test_only_black_masks_are_refused_before_training(graph, comfy_client, folders):
    folder = folders.make("all black")
    for i in (1, 2, 3):
        folders.mask(folder / f"cat {i}_mask.png", rows=0)
    load = graph.add("MLT_LoadDataset", folder="all black")
    vae = graph.add("VAELoader", vae_name="pixel_space")
    cache = graph.add("MLT_CacheDataset", dataset=[load, 0], vae=[vae, 0], resolution=64, bucket_step=16)
    graph.text([cache, 1])
    run = comfy_client.run(graph.nodes, check=False)
    assert "All 3 masks are black at the training size, beginning with cat 1.png" in run.error
    assert "mask_channel in Load Dataset" in run.error and "invert" not in run.error


def test_a_path_outside_the_allowed_folders(graph, failure, tmp_path):
    outside = tmp_path / "secret"
    outside.mkdir()
    text = failure(graph.add("MLT_LoadDataset", folder=str(outside)))
    assert text.startswith(f"folder: {outside} lies outside the folders that may be read")
    assert "allowed_folders.json" in text
    assert '{"folders": ["D:/pictures"]}' in text


@pytest.mark.parametrize("folder", ["../..", "..", "sub/../../custom_nodes"])
def test_a_relative_path_cannot_climb_out(graph, failure, folder):
    assert "lies outside the folders that may be read" in failure(graph.add("MLT_LoadDataset", folder=folder))


def test_a_mask_folder_outside_is_refused_too(graph, failure, folders, tmp_path):
    folders.make("inside")
    source = {"mask_source": "folder", "mask_folder": str(tmp_path)}
    text = failure(graph.add("MLT_LoadDataset", folder="inside", **source))
    assert text.startswith("mask_folder: ")
    assert "lies outside" in text


def test_an_administrator_can_allow_a_folder(graph, comfy_client, folders, tmp_path, comfy_server):
    config = comfy_server.base / "user" / "masked_lora" / "allowed_folders.json"
    folders.picture(tmp_path / "more" / "dog.png")
    config.parent.mkdir(exist_ok=True)
    config.write_text(json.dumps({"folders": [str(tmp_path / "more")]}), encoding="utf-8")
    try:
        load = graph.add("MLT_LoadDataset", folder=str(tmp_path / "more"))
        shown = graph.add("MLT_InspectDataset", dataset=[load, 0])
        assert "dog.png" in comfy_client.run(graph.nodes).outputs[shown]["text"][0]
    finally:
        config.unlink()


@pytest.mark.parametrize(
    ("widget", "value"),
    [("repeats", 0), ("loss_multiplier", -1.0), ("fill", "paint"), ("caption_dropout", 1.5)],
)
def test_a_widget_out_of_range_is_refused_by_name(graph, comfy_client, folders, widget, value):
    folders.make("range")
    graph.add("MLT_LoadDataset", folder="range", **{widget: value})
    assert widget in refusal(graph, comfy_client)


def test_a_bucket_step_that_does_not_divide_is_refused_by_name(graph, comfy_client, folders):
    folders.make("steps")
    load = graph.add("MLT_LoadDataset", folder="steps")
    vae = graph.add("VAELoader", vae_name="pixel_space")
    cache = graph.add("MLT_CacheDataset", dataset=[load, 0], vae=[vae, 0], resolution=16, bucket_step=64)
    graph.text([cache, 1])
    error = comfy_client.run(graph.nodes, check=False).error
    assert error.startswith("bucket step: expected at most the resolution 16, got 64")


def test_pictures_smaller_than_a_bucket_are_named(graph, comfy_client, folders):
    folders.make("tiny", size=(32, 32))
    load = graph.add("MLT_LoadDataset", folder="tiny")
    vae = graph.add("VAELoader", vae_name="pixel_space")
    cache = graph.add("MLT_CacheDataset", dataset=[load, 0], vae=[vae, 0], resolution=64, bucket_step=64)
    graph.text([cache, 1])
    error = comfy_client.run(graph.nodes, check=False).error
    assert "cat 1.png (32×32)" in error
    assert "allow upscaling" in error


def test_counts_of_masks_that_do_not_match_the_pictures(graph, comfy_client):
    pictures = graph.add("EmptyImage", width=64, height=64, batch_size=3)
    mask = graph.add("SolidMask", width=64, height=64)
    two = graph.add("RepeatImageBatch", image=[graph.add("MaskToImage", mask=[mask, 0]), 0], amount=2)
    masks = graph.add("ImageToMask", image=[two, 0])
    dataset = graph.add("MLT_DatasetFromImages", images=[pictures, 0], masks=[masks, 0])
    graph.add("MLT_InspectDataset", dataset=[dataset, 0])
    error = comfy_client.run(graph.nodes, check=False).error
    assert error == "masks: expected none, one, or 3 (one per picture), got 2."


def test_a_contradicting_loss_setting_is_refused_by_name(graph, comfy_client):
    loss = graph.add("MLT_MaskedLoss", floor=0.5, ceiling=0.2)
    graph.text([loss, 1])
    error = comfy_client.run(graph.nodes, check=False).error
    assert error == "floor: 0.5 lies above the ceiling 0.2. Lower it."
