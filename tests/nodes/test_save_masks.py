"""Saving masks in a real ComfyUI and loading them in the next graph."""

import numpy as np
import pytest
from PIL import Image


def inspected(client, graph, link):
    node = graph.add("MLT_InspectDataset", dataset=link)
    return "\n".join(client.run(graph.nodes).outputs[node]["text"])


@pytest.fixture
def save(graph, comfy_client):
    """Saves a dataset in the graph and gives the report."""

    def run(dataset, **inputs):
        node = graph.add("MLT_SaveMasks", dataset=[dataset, 0], **inputs)
        return "\n".join(comfy_client.run(graph.nodes).outputs[node]["text"])

    return run


@pytest.fixture
def refused(graph, comfy_client):
    """Tries to save and gives the error's text."""

    def run(dataset, **inputs):
        graph.add("MLT_SaveMasks", dataset=[dataset, 0], **inputs)
        return comfy_client.refusal(graph.nodes)

    return run


def grey(path):
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(
    ("layout", "source"),
    [
        ("mask folder", {"mask_source": "folder"}),
        ("alpha png", {"mask_source": "alpha"}),
        ("-masklabel.png", {"mask_source": "sidecar"}),
        ("_mask.png", {"mask_source": "sidecar"}),
    ],
)
def test_saved_masks_load_in_the_next_graph(save, graph, comfy_client, folders, layout, source):
    name, out = f"to save {layout}", comfy_client.server.base / "output" / f"Masken für {layout}"
    folders.make(name, alpha=True)
    load = graph.add("MLT_LoadDataset", folder=name)
    grown = graph.add("MLT_TransformMasks", dataset=[load, 0], grow=16)
    in_folder = layout in ("mask folder", "alpha png")
    report = save(grown, layout=layout, destination=out.name if in_folder else "")
    assert report.startswith("3 ") and "Load Dataset: folder" in report.splitlines()[-1]
    graph.nodes.clear()
    if layout == "mask folder":
        source |= {"mask_folder": str(out)}
    again = graph.add("MLT_LoadDataset", folder=str(out) if layout == "alpha png" else name, **source)
    text = inspected(comfy_client, graph, [again, 0])
    assert "3 pictures: 3 with a mask" in text and "cat 1.png: coverage 75.0%" in text


def test_the_dataset_that_comes_out_has_the_written_masks(graph, comfy_client, folders):
    folders.make("chained", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="chained")
    saved = graph.add("MLT_SaveMasks", dataset=[load, 0], destination="chained masks")
    grown = graph.add("MLT_TransformMasks", dataset=[saved, 0], grow=16)
    assert "cat 3.png: coverage 75.0%" in inspected(comfy_client, graph, [grown, 0])


def test_files_are_replaced_only_with_the_switch(refused, save, graph, folders, comfy_client):
    folders.make("twice", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="twice")
    save(load, destination="twice")
    graph.nodes.clear()
    load = graph.add("MLT_LoadDataset", folder="twice")
    turned = graph.add("MLT_TransformMasks", dataset=[load, 0], invert=True)
    error = refused(turned, destination="twice")
    place = comfy_client.server.base / "output" / "twice"
    assert error.startswith("Nothing was written:") and str(place / "cat 2.png") in error
    assert grey(place / "cat 2.png")[0, 0] == 255
    graph.nodes.popitem()
    assert "3 masks written" in save(turned, destination="twice", overwrite=True)
    assert grey(place / "cat 2.png")[0, 0] == 0


def test_captions_of_another_node_are_written_back(save, graph, folders, comfy_client):
    folder = folders.make("captions", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="captions")
    words = graph.add("RegexReplace", string=[load, 3], regex_pattern="cät", replace="猫 dög")
    report = save(load, layout="_mask.png", captions=[words, 0], overwrite=True)
    assert "3 captions written" in report
    assert (folder / "cat 2.txt").read_text(encoding="utf-8") == "a 猫 dög, number 2\n"


def test_the_corrected_mask_of_one_picture_replaces_that_one_only(save, graph, folders, comfy_client):
    folder = folders.make("corrected")
    for i in (1, 2, 3):
        folders.mask(folder / "masks" / f"cat {i}.png", rows=0.25)
    before = (folder / "masks" / "cat 1.png").read_bytes()
    load = graph.add("MLT_LoadDataset", folder="corrected", mask_source="folder", mask_folder="masks")
    mask = graph.add("SolidMask", width=96, height=64, value=1.0)
    place = {"destination": str(folder / "masks"), "overwrite": True}
    report = save(load, picture="cat 2", masks=[mask, 0], **place)
    assert "1 mask written" in report and "Only this picture was saved" in report
    assert (grey(folder / "masks" / "cat 2.png") == 255).all()
    assert (folder / "masks" / "cat 1.png").read_bytes() == before


def test_the_alpha_of_load_image_is_a_mask_once_it_is_inverted(save, graph, folders, comfy_client):
    folders.make("from alpha", count=1)
    picture = folders.picture(folders.input / "from alpha.png", alpha=True)
    image = graph.add("LoadImage", image=picture.name)
    load = graph.add("MLT_LoadDataset", folder="from alpha")
    save(load, destination="from alpha", masks=[image, 1], invert_masks=True)
    written = grey(comfy_client.server.base / "output" / "from alpha" / "cat 1.png")
    assert (written[:32] == 255).all() and (written[32:] == 0).all()


def test_pictures_of_other_nodes_are_saved_with_alpha(save, graph, comfy_client):
    images = graph.add("EmptyImage", width=64, height=64, batch_size=2, color=0x336699)
    mask = graph.add("SolidMask", width=64, height=64, value=0.0)
    dataset = graph.add("MLT_DatasetFromImages", images=[images, 0], masks=[mask, 0], name="blue")
    save(dataset, layout="alpha png", destination="in memory")
    written = grey(comfy_client.server.base / "output" / "in memory" / "blue-0002.png")
    assert written[5, 5].tolist() == [0x33, 0x66, 0x99, 0]


def test_an_unknown_picture_gets_suggestions(refused, graph, folders):
    folders.make("suggest", alpha=True)
    error = refused(graph.add("MLT_LoadDataset", folder="suggest"), destination="x", picture="cta 2.png")
    assert error.startswith("picture: the dataset has no picture 'cta 2.png'") and "cat 2.png" in error


def test_a_mask_of_another_aspect_is_refused_with_both_sizes(refused, graph, folders):
    folders.make("other aspect", alpha=True)
    mask = graph.add("SolidMask", width=64, height=64, value=1.0)
    load = graph.add("MLT_LoadDataset", folder="other aspect")
    error = refused(load, destination="x", picture="cat 1.png", masks=[mask, 0])
    assert "cat 1.png (input masks): the mask is 64×64 but the image is 96×64" in error


def test_the_empty_mask_of_load_image_is_not_taken_for_a_correction(refused, graph, folders):
    folders.make("unpainted", alpha=True)
    folders.picture(folders.input / "opaque.png")
    image = graph.add("LoadImage", image="opaque.png")
    load = graph.add("MLT_LoadDataset", folder="unpainted")
    assert "Paint a mask in the mask editor" in refused(load, destination="x", picture="cat 1", masks=[image, 1])


def test_one_mask_for_many_pictures_asks_for_the_name(refused, graph, folders):
    folders.make("one for many", alpha=True)
    mask = graph.add("SolidMask", width=96, height=64, value=1.0)
    error = refused(graph.add("MLT_LoadDataset", folder="one for many"), destination="x", masks=[mask, 0])
    assert error == (
        "masks: expected 3 (one per picture), got 1. To replace the mask of one picture, write its name into picture."
    )


@pytest.mark.parametrize("destination", ["", "../outside", "user", "elsewhere"])
def test_a_destination_outside_is_refused(refused, graph, folders, comfy_client, tmp_path, destination):
    folders.make("outside", alpha=True)
    places = {"user": str(comfy_client.server.base / "user" / "masked_lora"), "elsewhere": str(tmp_path / "x")}
    load = graph.add("MLT_LoadDataset", folder="outside")
    error = refused(load, destination=places.get(destination, destination))
    assert error.startswith("destination: ")
    assert not (tmp_path / "x").exists()


def test_widgets_that_have_no_effect_are_told(save, graph, folders):
    folders.make("no effect", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="no effect")
    report = save(load, layout="_mask.png", destination="somewhere", invert_masks=True)
    assert "destination is not used" in report and "invert_masks has no effect" in report


def test_cancelling_leaves_whole_files_only(graph, folders, comfy_client):
    folders.make("many to save", count=150, size=(512, 512), alpha=True, captions=False)
    load = graph.add("MLT_LoadDataset", folder="many to save", preview_images=0)
    node = graph.add("MLT_SaveMasks", dataset=[load, 0], destination="many saved", layout="alpha png")
    prompt = comfy_client.submit(graph.nodes)
    place = comfy_client.server.base / "output" / "many saved"
    comfy_client.wait_for(lambda *_: any(place.glob("*.png")) if place.is_dir() else False)
    comfy_client.interrupt()
    assert comfy_client.finish(prompt, check=False).ending == "execution_interrupted"
    written = sorted(path.name for path in place.iterdir())
    assert 0 < len(written) < 150 and all(name.endswith(".png") for name in written)
    for name in written:
        Image.open(place / name).load()
    text = "\n".join(comfy_client.run(graph.nodes).outputs[node]["text"])
    assert f"{len(written)} files held the same already" in text
