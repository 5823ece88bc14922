"""What the data nodes find stands on the nodes and in the history, and no name or text stops ComfyUI's queue."""

import os
import shutil

import pytest
from PIL import Image

REPORT = "masked_lora_report"


def told(run, node, level="warning"):
    return [line["text"] for line in run.outputs[node][REPORT] if line["level"] == level]


def inspected(graph, dataset):
    return graph.add("MLT_InspectDataset", dataset=[dataset, 0])


def test_what_was_passed_over_stands_on_the_node_without_its_report_wired(comfy_client, graph, folders):
    folder = folders.make("passed over", alpha=True)
    folders.picture(folder / "whole.png")
    (folder / "IMG_1.HEIC").write_bytes(b"x")
    folders.picture(folder / "@eaDir" / "cat 1.png")
    load = graph.add("MLT_LoadDataset", folder="passed over")
    inspected(graph, load)
    run = comfy_client.run(graph.nodes)
    warnings = told(run, load)
    assert any("IMG_1.HEIC" in line and "pillow-heif" in line for line in warnings)
    assert any("whole.png" in line and "have no mask" in line for line in warnings)
    assert any("whole.png" in line and "without a caption" in line for line in warnings)
    assert told(run, load, "note")[0] == "4 pictures: 3 with a mask, 1 without."
    assert any("@eaDir" in line for line in told(run, load, "note"))
    assert "IMG_1.HEIC" in run.outputs[load]["text"][0]


def test_merged_sets_repeat_what_theirs_found(comfy_client, graph, folders):
    loads = []
    for name in ("one set", "other set"):
        folder = folders.make(name, count=1)
        (folder / f"{name}.jxl").write_bytes(b"x")
        loads.append(graph.add("MLT_LoadDataset", folder=name))
    merged = graph.add("MLT_MergeDatasets", dataset_1=[loads[0], 0], dataset_2=[loads[1], 0])
    inspected(graph, merged)
    run = comfy_client.run(graph.nodes)
    assert any("one set.jxl, other set.jxl" in line for line in told(run, merged))


def test_pictures_of_other_nodes_are_told_too(comfy_client, graph):
    image = graph.add("EmptyImage", width=64, height=64, batch_size=2, color=255)
    dataset = graph.add("MLT_DatasetFromImages", images=[image, 0])
    inspected(graph, dataset)
    run = comfy_client.run(graph.nodes)
    assert told(run, dataset, "note") == ["2 pictures: 0 with a mask, 2 without."]
    assert any("No picture has a caption" in line for line in told(run, dataset))


def test_folders_in_the_way_of_other_trainers_are_read_and_the_switch_is_a_widget(comfy_client, graph, folders):
    folder = folders.empty("kohya")
    folders.picture(folder / "10_zib dog" / "a.png")
    (folder / "10_zib dog" / "b.txt").write_text("a photo of a dog\na dog in a park", encoding="utf-8")
    folders.picture(folder / "10_zib dog" / "b.png")
    for changes in ({}, {"folder_repeats": False, "lines": "text"}):
        load = graph.add("MLT_LoadDataset", folder="kohya", **changes)
        inspected(graph, load)
        run = comfy_client.run(graph.nodes)
        assert any("10_zib dog (2 pictures, each 10 times" in line for line in told(run, load)) == (not changes)
        assert any("captions of which each step draws one" in line for line in told(run, load)) == (not changes)


@pytest.mark.skipif(os.name == "nt", reason="names are never bytes there")
def test_names_that_are_no_utf8_neither_stop_the_set_nor_the_queue(comfy_client, graph, folders):
    folder = folders.empty("odd names")
    path = folder / os.fsdecode(b"caf\xe9.png")
    try:
        Image.new("RGB", (32, 32)).save(path)
    except OSError:
        pytest.skip("this file system takes no such names")
    load = graph.add("MLT_LoadDataset", folder="odd names")
    inspected(graph, load)
    assert "caf\\xe9.png: no mask" in comfy_client.run(graph.nodes).outputs["2"]["text"][0]
    path.write_bytes(path.read_bytes()[:40])
    assert "caf\\xe9.png" in comfy_client.refusal(graph.nodes)
    path.unlink()
    folders.picture(folder / "good.png")
    assert comfy_client.run(graph.nodes).outputs["2"]
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("node", "widget"),
    [
        ("MLT_LoadDataset", "folder"),
        ("MLT_LoadDataset", "mask_folder"),
        ("MLT_LoadDataset", "trigger_word"),
        ("MLT_LoadDataset", "caption_prefix"),
        ("MLT_LoadDataset", "subjects"),
        ("MLT_LoadDataset", "caption_extension"),
        ("MLT_DatasetFromImages", "name"),
        ("MLT_DatasetFromImages", "captions"),
        ("MLT_DatasetFromImages", "caption_suffix"),
    ],
)
def test_half_a_character_in_a_widget_is_an_error_that_names_it_and_the_queue_goes_on(
    comfy_client, graph, folders, node, widget
):
    folders.make("half", count=1)
    changes = {"folder": "half"}
    if node == "MLT_DatasetFromImages":
        changes = {"images": [graph.add("EmptyImage", width=64, height=64, batch_size=1, color=255), 0]}
    dataset = graph.add(node, **changes | {widget: "\udcff"})
    inspected(graph, dataset)
    message = comfy_client.refusal(graph.nodes)
    assert message.startswith((f"{widget}: ", f"{widget.replace('_', ' ')}: ")), message
    usual = {"folder": "half", "caption_extension": ".txt", "captions": "a cat"}
    graph.nodes[dataset]["inputs"][widget] = usual.get(widget, "")
    assert comfy_client.run(graph.nodes).outputs


@pytest.mark.parametrize("pasted", ['"{}"', " {} ", "'{}'"])
def test_a_pasted_path_is_understood_and_its_files_are_watched(comfy_client, graph, folders, pasted):
    folder = folders.make("pasted set", count=1)
    load = graph.add("MLT_LoadDataset", folder=pasted.format(folder))
    inspected(graph, load)
    assert told(comfy_client.run(graph.nodes), load, "note")[0].startswith("1 picture: ")
    folders.picture(folder / "another.png")
    assert told(comfy_client.run(graph.nodes), load, "note")[0].startswith("2 pictures")
