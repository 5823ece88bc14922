"""Pictures for a model that describes them, and its texts written as captions, in a real ComfyUI."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def texts(comfy_server):
    """The caption files of a folder by their picture."""

    def read(folder):
        return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}

    return read


@pytest.fixture
def sizes(graph, comfy_client):
    """Runs Pictures to Caption and gives the sizes of its pictures, and its report."""

    def run(load, **widgets):
        node = graph.add("MLT_PicturesToCaption", dataset=[load, 0], **widgets)
        shown = graph.add("PreviewImage", images=[node, 0])
        outputs = comfy_client.run(graph.nodes).outputs
        pictures = [
            np.asarray(Image.open(comfy_client.server.base / "temp" / one["subfolder"] / one["filename"]))
            for one in outputs[shown]["images"]
        ]
        return pictures, "\n".join(outputs[node]["text"])

    return run


def test_every_picture_without_a_caption_is_handed_on_and_no_other(sizes, graph, folders):
    folder = folders.make("to describe", 30)
    for i in range(4, 31):
        (folder / f"cat {i}.txt").unlink()
    load = graph.add("MLT_LoadDataset", folder=folder.name)
    pictures, report = sizes(load)
    # More than the lists of Load Dataset hold.
    assert len(pictures) == 27 and report == "27 pictures to describe, of 30."
    assert {one.shape for one in pictures} == {(64, 96, 3)}


def test_a_run_takes_as_many_as_it_is_told_and_tells_how_many_are_left(sizes, graph, folders):
    folder = folders.make("in parts", 5, captions=False)
    pictures, report = sizes(graph.add("MLT_LoadDataset", folder=folder.name), most=2)
    assert len(pictures) == 2 and "3 more are left: queue again" in report


def test_the_masked_part_is_the_box_of_what_is_learned(sizes, graph, folders):
    folder = folders.make("masked part", 1, captions=False)
    mask = np.zeros((64, 96), np.uint8)
    mask[20:40, 30:70] = 255
    mask[20:30, 30:50] = 0
    Image.fromarray(mask).save(folder / "cat 1_mask.png")
    Image.fromarray(np.full((64, 96, 3), (200, 10, 10), np.uint8)).save(folder / "cat 1.png")
    load = graph.add("MLT_LoadDataset", folder=folder.name)
    (boxed,), _ = sizes(load, part="masked part")
    assert boxed.shape == (24, 44, 3) and (boxed == (200, 10, 10)).all()
    (alone,), _ = sizes(load, part="masked part alone")
    learned = (alone == (200, 10, 10)).all(-1)
    assert learned.sum() == 20 * 40 - 10 * 20 and (alone[~learned] == 128).all()
    (small,), _ = sizes(load, side=64)
    assert small.shape == (43, 64, 3)


def test_when_nothing_is_left_it_says_so(graph, comfy_client, folders):
    load = graph.add("MLT_LoadDataset", folder=folders.make("all described", 2).name)
    node = graph.add("MLT_PicturesToCaption", dataset=[load, 0])
    graph.add("PreviewImage", images=[node, 0])
    assert "each of 2 pictures has a caption: nothing is left to describe" in comfy_client.refusal(graph.nodes)


def test_texts_become_captions_of_one_line_and_captions_that_are_there_stay(graph, comfy_client, folders, texts):
    folder = folders.make("given", 3)
    (folder / "cat 1.txt").unlink()
    (folder / "cat 3.txt").unlink()
    load = graph.add("MLT_LoadDataset", folder=folder.name)
    words = graph.add("RegexReplace", string=[load, 3], regex_pattern="^.*$", replace="a\n  grüner cat ", count=1)
    save = graph.add("MLT_SaveCaptions", dataset=[load, 0], captions=[words, 0], replace=False)
    report = "\n".join(comfy_client.run(graph.nodes).outputs[save]["text"])
    assert texts(folder) == {"cat 1": "a grüner cat\n", "cat 2": "a cät, number 2", "cat 3": "a grüner cat\n"}
    assert "2 captions written." in report and "1 caption was there already, and stays: cat 2.png" in report


def test_captions_are_replaced_when_that_is_asked_and_kept_as_former_ones(graph, comfy_client, folders, texts):
    folder = folders.make("replaced captions", 2)
    load = graph.add("MLT_LoadDataset", folder=folder.name)
    words = graph.add("RegexReplace", string=[load, 3], regex_pattern="cät", replace="dög")
    save = graph.add("MLT_SaveCaptions", dataset=[load, 0], captions=[words, 0], replace=True)
    look = graph.add("MLT_InspectDataset", dataset=[save, 0])
    comfy_client.run(graph.nodes)
    assert texts(folder) == {"cat 1": "a dög, number 1\n", "cat 2": "a dög, number 2\n"}
    former = (comfy_client.server.base / "user" / "masked_lora" / "previous_captions").glob("*/*cat 2.txt")
    assert "a cät, number 2" in [path.read_text(encoding="utf-8") for path in former]
    assert look


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_texts_is_refused_and_nothing_written(graph, comfy_client, folders, texts, count):
    folder = folders.make("counted", 2, captions=False)
    other = folders.make("others", count)
    load = graph.add("MLT_LoadDataset", folder=folder.name)
    words = graph.add("MLT_LoadDataset", folder=other.name)
    graph.add("MLT_SaveCaptions", dataset=[load, 0], captions=[words, 3], replace=False)
    assert f"expected 2 (one per picture of dataset), got {count}" in comfy_client.refusal(graph.nodes)
    assert texts(folder) == {}


def test_what_cannot_be_written_is_named_and_the_others_are_written(graph, comfy_client, folders, texts):
    folder = folders.make("partly", 3)
    (folder / "cat 2.txt").chmod(0o444)
    load = graph.add("MLT_LoadDataset", folder=folder.name)
    words = graph.add("RegexReplace", string=[load, 3], regex_pattern="cät", replace="dög")
    save = graph.add("MLT_SaveCaptions", dataset=[load, 0], captions=[words, 0], replace=True)
    told = comfy_client.run(graph.nodes).outputs[save]["masked_lora_report"]
    warnings = [one["text"] for one in told if one["level"] == "warning"]
    assert len(warnings) == 1 and warnings[0].startswith("cat 2.png") and "read-only" in warnings[0]
    assert texts(folder)["cat 2"] == "a cät, number 2" and texts(folder)["cat 3"] == "a dög, number 3\n"


def test_pictures_of_other_nodes_have_no_place_for_captions(graph, comfy_client):
    images = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x336699)
    made = graph.add("MLT_DatasetFromImages", images=[images, 0], name="blue")
    text = graph.add("PrimitiveString", value="a square")
    graph.add("MLT_SaveCaptions", dataset=[made, 0], captions=[text, 0], replace=False)
    assert "comes from another node and has no file" in comfy_client.refusal(graph.nodes)
