"""The data nodes in a real ComfyUI, on real files."""

import io
import os
import re

import numpy as np
from PIL import Image


def shown(run, node):
    return "\n".join(run.outputs[node]["text"])


def inspected(graph, client, dataset, **changes):
    node = graph.add("MLT_InspectDataset", dataset=dataset, **changes)
    sheet = graph.add("PreviewImage", images=[node, 0])
    run = client.run(graph.nodes)
    return shown(run, node), run.outputs[sheet]["images"]


def pixels(client, entry):
    return np.asarray(Image.open(io.BytesIO(client.server.picture(entry))).convert("RGB")).astype(int)


def cached_run(graph, client, dataset, **changes):
    """The text of a cache node's report; the VAE is pixel space, so that it costs nothing."""
    vae = graph.add("VAELoader", vae_name="pixel_space")
    size = {"resolution": 64, "bucket_step": 16} | changes
    cache = graph.add("MLT_CacheDataset", dataset=dataset, vae=[vae, 0], **size)
    node = graph.text([cache, 1])
    return shown(client.run(graph.nodes), node)


def test_a_folder_with_alpha_becomes_a_dataset(comfy_client, graph, folders):
    folders.make("alpha set", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="alpha set")
    text, images = inspected(graph, comfy_client, [load, 0])
    assert "3 pictures: 3 with a mask, 0 without." in text
    assert "cat 2.png: coverage 50.0%, 48 of 12×8 cells" in text
    sheet = pixels(comfy_client, images[0])
    assert sheet.shape[1] > 3 * 256


def test_the_sheet_tints_what_is_ignored_and_only_that(comfy_client, graph, folders):
    folders.make("tint", count=1, size=(64, 64), alpha=True)
    load = graph.add("MLT_LoadDataset", folder="tint")
    _, images = inspected(graph, comfy_client, [load, 0])
    sheet = pixels(comfy_client, images[0])
    middle = sheet.shape[1] // 2
    learned, ignored = sheet[60, middle], sheet[200, middle]
    assert learned.max() - learned.min() == 0
    assert ignored[0] - ignored[1] > 80


def test_every_view_of_the_inspection_is_a_picture(comfy_client, graph, folders):
    folders.make("views", count=1, alpha=True)
    load = graph.add("MLT_LoadDataset", folder="views")
    nodes = [
        graph.add("PreviewImage", images=[graph.add("MLT_InspectDataset", dataset=[load, 0], view=view), 0])
        for view in ("overlay", "cut-out", "mask", "latent grid")
    ]
    outputs = comfy_client.run(graph.nodes).outputs
    pictures = [pixels(comfy_client, outputs[node]["images"][0]) for node in nodes]
    for i, one in enumerate(pictures):
        assert all(np.abs(one - other).max() > 50 for other in pictures[i + 1 :])


def test_the_infill_view_shows_each_picture_with_its_own_and_with_other_backgrounds(comfy_client, graph, folders):
    folders.make("infill view", count=2, size=(64, 64), alpha=True)
    load = graph.add("MLT_LoadDataset", folder="infill view")
    _, images = inspected(graph, comfy_client, [load, 0], view="infill", infill="flat colour", infill_variants=2)
    sheet = pixels(comfy_client, images[0])
    cell = sheet.shape[1] // 3
    upper = [sheet[60, cell // 2 + i * cell] for i in range(3)]
    lower = [sheet[220, cell // 2 + i * cell] for i in range(3)]
    assert np.abs(upper[0] - upper[1]).max() <= 2
    assert np.abs(upper[0] - upper[2]).max() <= 2
    assert all(np.abs(one - lower[0]).max() > 20 for one in lower[1:])


def test_replaced_backgrounds_are_encoded_beside_the_pictures(comfy_client, graph, folders):
    folders.make("infills", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="infills")
    text = cached_run(graph, comfy_client, [load, 0], storage="memory", infill="flat colour", infill_variants=2)
    assert "6 replaced backgrounds" in text
    assert "made now: 9 latent, 3 mask" in text


def test_masks_of_a_folder_inside_the_picture_folder_are_found(comfy_client, graph, folders):
    folder = folders.make("with masks")
    for i in (1, 2, 3):
        folders.mask(folder / "masks" / f"cat {i}.png", rows=0.25)
    load = graph.add("MLT_LoadDataset", folder="with masks", mask_source="folder", mask_folder="masks")
    text, _ = inspected(graph, comfy_client, [load, 0])
    assert "3 with a mask" in text
    assert "coverage 25.0%" in text


def test_an_edited_file_is_noticed_without_touching_the_graph(comfy_client, graph, folders):
    folder = folders.make("edited alpha", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="edited alpha")
    text, _ = inspected(graph, comfy_client, [load, 0])
    assert "cat 1.png: coverage 50.0%" in text
    opaque = np.full((64, 96, 4), 99, np.uint8)
    opaque[:16, :, 3] = 255
    opaque[16:, :, 3] = 0
    Image.fromarray(opaque).save(folder / "cat 1.png")
    os.utime(folder / "cat 1.png", (1_900_000_000, 1_900_000_000))
    again = comfy_client.run(graph.nodes)
    assert "cat 1.png: coverage 25.0%" in shown(again, "2")


def test_lists_hold_pictures_masks_and_captions_side_by_side(comfy_client, graph, folders):
    folders.make("lists", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="lists", preview_images=2)
    pictures = graph.add("PreviewImage", images=[load, 1])
    masks = graph.add("MaskPreview", mask=[load, 2])
    captions, report = graph.text([load, 3]), graph.text([load, 4])
    run = comfy_client.run(graph.nodes)
    assert len(run.outputs[pictures]["images"]) == 2
    mask = pixels(comfy_client, run.outputs[masks]["images"][0])
    assert mask[10, 10, 0] == 255
    assert mask[50, 10, 0] == 0
    assert "a cät, number 1" in shown(run, captions)
    assert "the lists hold the first 2 of 3 pictures" in shown(run, report)


def test_lists_stay_below_their_memory_limit(comfy_client, graph, folders):
    folders.make("lists of little memory", count=3, size=(500, 500))
    load = graph.add("MLT_LoadDataset", folder="lists of little memory", preview_gigabytes=0.009)
    pictures, report = graph.add("PreviewImage", images=[load, 1]), graph.text([load, 4])
    run = comfy_client.run(graph.nodes)
    assert len(run.outputs[pictures]["images"]) == 2
    assert "the lists hold the first 2 of 3 pictures" in shown(run, report)


def test_core_s_load_image_masks_are_turned_round_by_the_switch(comfy_client, graph, folders):
    folders.picture(folders.input / "cut out.png", alpha=True)
    image = graph.add("LoadImage", image="cut out.png")
    dataset = graph.add("MLT_DatasetFromImages", images=[image, 0], masks=[image, 1], invert_masks=True)
    text, _ = inspected(graph, comfy_client, [dataset, 0], view="mask")
    assert "picture-0001: coverage 50.0%" in text
    _, images = inspected(graph, comfy_client, [dataset, 0], view="mask")
    sheet = pixels(comfy_client, images[0])
    middle = sheet.shape[1] // 2
    assert sheet[80, middle, 0] == 255
    assert sheet[200, middle, 0] == 0


def test_one_mask_and_one_caption_serve_a_batch_of_pictures(comfy_client, graph):
    pictures = graph.add("EmptyImage", width=64, height=64, batch_size=3)
    mask = graph.add("SolidMask", width=64, height=64, value=0.5)
    caption = graph.add("PrimitiveString", value="a square")
    dataset = graph.add("MLT_DatasetFromImages", images=[pictures, 0], masks=[mask, 0], captions=[caption, 0])
    text, _ = inspected(graph, comfy_client, [dataset, 0])
    assert "3 pictures: 3 with a mask" in text
    assert "picture-0003: coverage 50.0%" in text
    assert "without a caption" not in text


def test_datasets_merge_and_unplugged_ones_are_left_out(comfy_client, graph, folders):
    folders.make("one", count=2)
    folders.make("two", count=3)
    sets = [graph.add("MLT_LoadDataset", folder=name) for name in ("one", "two")]
    merged = graph.add("MLT_MergeDatasets", dataset_1=[sets[0], 0], dataset_2=[sets[1], 0], weight_2=0.5)
    text, _ = inspected(graph, comfy_client, [merged, 0])
    assert text.startswith("5 pictures")


def test_transforms_act_on_the_masks_of_a_dataset(comfy_client, graph, folders):
    folders.make("transformed", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="transformed")
    grown = graph.add("MLT_TransformMasks", dataset=[load, 0], grow=16)
    text, _ = inspected(graph, comfy_client, [grown, 0])
    assert "cat 1.png: coverage 75.0%" in text


def test_a_refined_mask_is_the_transformed_mask(comfy_client, graph):
    mask = graph.add("SolidMask", width=64, height=32, value=0.25)
    refined = graph.add("MLT_RefineMask", mask=[mask, 0], invert=True)
    preview = graph.add("MaskPreview", mask=[refined, 0])
    outputs = comfy_client.run(graph.nodes).outputs
    assert set(np.unique(pixels(comfy_client, outputs[preview]["images"][0]))) == {191}


def test_a_second_run_finds_everything_in_the_cache(comfy_client, graph, folders):
    folders.make("cached twice", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="cached twice", trigger_word="first")
    text = cached_run(graph, comfy_client, [load, 0], infill_variants=3)
    assert "3 pictures in 1 bucket:" in text
    assert "12 latent, 3 mask" in text
    assert "No CLIP is connected" in text
    graph.nodes[load]["inputs"]["repeats"] = 2
    again = comfy_client.run(graph.nodes)
    assert "0 latent, 0 mask" in shown(again, str(len(graph.nodes)))


def test_the_cache_lies_in_the_user_folder_and_not_where_datasets_do(comfy_client, graph, folders):
    folders.make("placed", count=1)
    load = graph.add("MLT_LoadDataset", folder="placed")
    cached_run(graph, comfy_client, [load, 0])
    base = comfy_client.server.base
    assert any((base / "user" / "masked_lora" / "cache").rglob("*.safetensors"))
    assert not (base / "datasets").exists() or not any((base / "datasets").rglob("*.safetensors"))


def test_progress_reaches_the_browser_with_the_name_of_the_work(comfy_client, graph, folders):
    folders.make("progress", count=4)
    load = graph.add("MLT_LoadDataset", folder="progress")
    cached_run(graph, comfy_client, [load, 0], resolution=48)
    last = [
        state
        for data in comfy_client.events
        if data[0] == "progress_state"
        for node, state in data[1]["nodes"].items()
        if node == "3"
    ]
    assert last[-1]["value"] == last[-1]["max"]
    assert any(kind == "binary" for kind, _ in comfy_client.events)


def test_a_preset_tells_what_it_overrules(comfy_client, graph):
    loss = graph.add("MLT_MaskedLoss", preset="kohya", normalize="batch")
    report = graph.text([loss, 1])
    text = shown(comfy_client.run(graph.nodes), report)
    assert "Overruled by the preset: normalize" in text
    assert "reads the red" in text


def test_a_prior_that_the_preset_lacks_or_that_is_off_is_told(comfy_client, graph):
    lacks = graph.add("MLT_MaskedLoss", preset="SimpleTuner mask", prior_weight=1.0)
    has = graph.add("MLT_MaskedLoss", preset="ai-toolkit inverted mask prior", prior_weight=1.0)
    off = graph.add("MLT_MaskedLoss", preset="custom", prior_weight=0.0, prior_pivot=0.5)
    reports = [graph.text([one, 1]) for one in (lacks, has, off)]
    result = comfy_client.run(graph.nodes)
    told, silent, idle = (shown(result, report) for report in reports)
    assert "Overruled by the preset: prior_weight." in told
    assert "Overruled" not in silent
    assert "no prior while" not in told + silent
    assert "no prior while prior_weight is 0" in idle
    assert "prior_reduction bicubic (ai-toolkit)" in silent


def test_cancelling_the_cache_loses_nothing_that_is_done(comfy_client, graph, folders):
    folders.make("many", count=400, size=(256, 256), captions=False)
    load = graph.add("MLT_LoadDataset", folder="many", preview_images=0)
    vae = graph.add("VAELoader", vae_name="pixel_space")
    size = {"resolution": 256, "bucket_step": 64, "batch_size": 1}
    cache = graph.add("MLT_CacheDataset", dataset=[load, 0], vae=[vae, 0], **size)
    report = graph.text([cache, 1])
    prompt = comfy_client.submit(graph.nodes)
    comfy_client.wait_for(
        lambda kind, data: kind == "progress_state" and data["nodes"].get(cache, {}).get("value", 0) > 5
    )
    comfy_client.interrupt()
    assert comfy_client.finish(prompt, check=False).ending == "execution_interrupted"
    text = shown(comfy_client.run(graph.nodes), report)
    made = int(re.search(r"made now: (\d+) latent", text).group(1))
    assert 0 < made < 400


def test_a_masked_crop_tells_in_the_cache_s_report_what_it_saves(comfy_client, graph, folders):
    folders.make("masked crop", count=2, size=(256, 256))
    folders.mask(folders.input / "masked crop" / "cat 1_mask.png", size=(256, 256), rows=0.25)
    load = graph.add("MLT_LoadDataset", folder="masked crop")
    text = cached_run(graph, comfy_client, [load, 0], resolution=256, crop="masked crop", crop_margin=0.0)
    assert "  256×64: 1" in text and "  256×256: 1" in text
    assert "masked crop: trains on 62% of the pixels (38% saved per step against whole pictures)" in text
