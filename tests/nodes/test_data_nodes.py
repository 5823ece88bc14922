"""The data nodes in a real ComfyUI, on real files."""

import io

from PIL import Image


def shown(run, node):
    return "\n".join(run.outputs[node]["text"])


def inspected(graph, client, dataset, **changes):
    node = graph.add("MLT_InspectDataset", dataset=dataset, **changes)
    run = client.run(graph.nodes)
    return shown(run, node), run.outputs[node]["images"]


def test_a_folder_with_alpha_becomes_a_dataset(comfy_client, graph, folders):
    folders.make("alpha set", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="alpha set")
    text, images = inspected(graph, comfy_client, [load, 0])
    assert "3 pictures: 3 with a mask, 0 without." in text
    assert "cat 2.png: coverage 50.0%, 48 of 12×8 cells" in text
    sheet = Image.open(io.BytesIO(comfy_client.server.picture(images[0])))
    assert sheet.width > 3 * 256


def test_masks_of_a_folder_inside_the_picture_folder_are_found(comfy_client, graph, folders):
    folder = folders.make("with masks")
    for i in (1, 2, 3):
        folders.mask(folder / "masks" / f"cat {i}.jpg", rows=0.25)
    load = graph.add("MLT_LoadDataset", folder="with masks", mask_source="folder", mask_folder="masks")
    text, _ = inspected(graph, comfy_client, [load, 0])
    assert "3 with a mask" in text
    assert "coverage 25" in text
