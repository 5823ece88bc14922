"""Masks from ComfyUI's own models, loaded by its own nodes, in a real ComfyUI."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from harness.clips import write_clip
from harness.folders import anywhere, folder_settings
from harness.segmentation_models import (
    BIREFNET_FILE,
    FACE_FILE,
    RANDOM_BIREFNET_FILE,
    RANDOM_SAM3_FILE,
    SAM3_FILE,
)
from masklora.dataset.loading import load_dataset
from masklora.dataset.moving import examine_frames

pytestmark = pytest.mark.usefixtures("small_models")


def shown(run, node):
    return "\n".join(run.outputs[node]["text"])


def pixels(client, entry):
    return np.asarray(Image.open(io.BytesIO(client.server.picture(entry))).convert("RGB")).astype(int)


def draw(folder, name, *, red=(), green=(), white=(), size=(120, 80)):
    """A black picture with coloured boxes, each (left, top, right, bottom), and a caption."""
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    for boxes, colour in ((red, (255, 0, 0)), (green, (0, 255, 0)), (white, (255, 255, 255))):
        for left, top, right, bottom in boxes:
            canvas[top:bottom, left:right] = colour
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas).save(folder / name)
    (folder / name).with_suffix(".txt").write_text("boxes", encoding="utf-8")


def text_masks(graph, *, file=SAM3_FILE, **changes):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=file)
    return graph.add("MLT_TextMasks", model=[loader, 0], clip=[loader, 1], **changes)


def subject_masks(graph, *, file=BIREFNET_FILE, **changes):
    loader = graph.add("LoadBackgroundRemovalModel", bg_removal_name=file)
    return graph.add("MLT_SubjectMasks", model=[loader, 0], **changes)


def inspect(graph, dataset):
    return graph.add("MLT_InspectDataset", dataset=dataset)


def preview(graph, masks):
    """A node whose images show a list of masks, one picture each."""
    return graph.add("PreviewImage", images=[graph.add("MaskToImage", mask=masks), 0])


def test_phrases_make_the_masks_of_a_dataset(comfy_client, graph, folders):
    folder = folders.input / "red and green"
    draw(folder, "one.png", red=[(0, 0, 60, 40)])
    draw(folder, "two.png", red=[(0, 0, 30, 40), (60, 0, 90, 40)], green=[(0, 60, 120, 80)])
    load = graph.add("MLT_LoadDataset", folder="red and green")
    made = text_masks(graph, dataset=[load, 0], phrases="red", exclude="green")
    found, checked = graph.text([made, 3]), inspect(graph, [made, 0])
    run = comfy_client.run(graph.nodes)
    assert "one.png: 1 × red (0.98); excluded: no green; covers 25.0%" in shown(run, found)
    assert "two.png: 2 × red (0.98, 0.98); excluded: 1 × green (0.98); covers 25.0%" in shown(run, found)
    assert "2 pictures: 2 with a mask, 0 without." in shown(run, checked)


def test_phrases_make_masks_of_images(comfy_client, graph, folders):
    draw(folders.input, "text prompt.png", red=[(30, 20, 90, 60)])
    picture = graph.add("LoadImage", image="text prompt.png")
    made = text_masks(graph, images=[picture, 0], phrases="red box")
    seen = preview(graph, [made, 1])
    run = comfy_client.run(graph.nodes)
    mask = pixels(comfy_client, run.outputs[seen]["images"][0])[..., 0] > 127
    assert mask.shape == (80, 120)
    truth = np.zeros_like(mask)
    truth[20:60, 30:90] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.95


def test_a_checkpoint_with_random_weights_runs_through_the_whole_network(comfy_client, graph, folders):
    draw(folders.input, "random.png", red=[(30, 20, 90, 60)])
    picture = graph.add("LoadImage", image="random.png")
    made = text_masks(graph, file=RANDOM_SAM3_FILE, images=[picture, 0], phrases='a "cat", (wild): 3 🐈', threshold=0.1)
    found = graph.text([made, 3])
    assert '× a "cat", (wild): 3 🐈 (0.' in shown(comfy_client.run(graph.nodes), found)


@pytest.mark.parametrize(
    ("nothing_found", "outcome"),
    [
        ("error", "Text masks: nothing was found in 1 of 2 pictures: plain.png: nothing found (no red)"),
        ("white", "plain.png: nothing found (no red); white mask"),
        ("black", "plain.png: nothing found (no red); black mask"),
        ("skip", "plain.png: nothing found (no red); left out"),
    ],
)
def test_a_picture_without_what_is_named_is_told(comfy_client, graph, folders, nothing_found, outcome):
    folder = folders.input / "sometimes red"
    draw(folder, "box.png", red=[(0, 0, 60, 40)])
    draw(folder, "plain.png")
    load = graph.add("MLT_LoadDataset", folder="sometimes red")
    made = text_masks(graph, dataset=[load, 0], phrases="red", nothing_found=nothing_found)
    found = graph.text([made, 3])
    run = comfy_client.run(graph.nodes, check=nothing_found != "error")
    assert outcome in (run.error or shown(run, found))


def test_cancelling_stops_between_pictures_and_the_graph_can_run_again(comfy_client, graph, folders):
    for i in range(60):
        draw(folders.input / "many red", f"{i:02}.png", red=[(0, 0, 60, 40)])
    load = graph.add("MLT_LoadDataset", folder="many red", preview_images=0)
    made = text_masks(graph, dataset=[load, 0], phrases="red", file=RANDOM_SAM3_FILE, threshold=0.1, instances=1)
    found = graph.text([made, 3])
    prompt = comfy_client.submit(graph.nodes)
    comfy_client.wait_for(
        lambda kind, data: kind == "progress_state" and data["nodes"].get(made, {}).get("value", 0) > 1
    )
    comfy_client.interrupt()
    assert comfy_client.finish(prompt, check=False).ending == "execution_interrupted"
    seen = max(
        data["nodes"][made]["value"]
        for kind, data in comfy_client.events
        if kind == "progress_state" and made in data["nodes"]
    )
    assert seen < 60
    for path in sorted((folders.input / "many red").glob("*.png"))[2:]:
        path.unlink()
    assert "2 made" in shown(comfy_client.run(graph.nodes), found)


def test_a_text_without_a_phrase_is_refused(comfy_client, graph, folders):
    draw(folders.input, "refused.png", red=[(30, 20, 90, 60)])
    picture = graph.add("LoadImage", image="refused.png")
    made = text_masks(graph, images=[picture, 0], phrases=" \n ")
    graph.text([made, 3])
    assert "phrases: expected at least one phrase" in comfy_client.run(graph.nodes, check=False).error


def test_a_model_that_is_not_sam_3_is_refused(comfy_client, graph, folders, demo_server):
    draw(folders.input, "wrong model.png", red=[(30, 20, 90, 60)])
    picture = graph.add("LoadImage", image="wrong model.png")
    names = demo_server.object_info()["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
    options = names[1]["options"] if len(names) > 1 and "options" in names[1] else names[0]
    other = next(name for name in options if name not in (SAM3_FILE, RANDOM_SAM3_FILE))
    made = text_masks(graph, file=other, images=[picture, 0], phrases="red")
    graph.text([made, 3])
    assert "model: expected SAM 3, got" in comfy_client.run(graph.nodes, check=False).error


def test_the_subject_makes_the_masks_of_a_dataset(comfy_client, graph, folders):
    folder = folders.input / "subjects"
    draw(folder, "two parts.png", white=[(10, 20, 70, 60), (90, 30, 100, 40)])
    load = graph.add("MLT_LoadDataset", folder="subjects")
    made = subject_masks(graph, dataset=[load, 0], threshold=0.5, largest_only=True)
    found, checked = graph.text([made, 3]), inspect(graph, [made, 0])
    run = comfy_client.run(graph.nodes)
    assert "two parts.png: 2 parts, the largest kept; covers 25.0%" in shown(run, found)
    assert "1 picture: 1 with a mask, 0 without." in shown(run, checked)


@pytest.mark.parametrize("file", [BIREFNET_FILE, RANDOM_BIREFNET_FILE])
def test_the_subject_s_mask_is_that_of_remove_background(comfy_client, graph, folders, file):
    draw(folders.input, "subject.png", white=[(30, 20, 90, 60)])
    picture = graph.add("LoadImage", image="subject.png")
    made = subject_masks(graph, file=file, images=[picture, 0], nothing_found="black")
    loader = graph.nodes[made]["inputs"]["model"]
    core = graph.add("RemoveBackground", bg_removal_model=loader, image=[picture, 0])
    ours, theirs = preview(graph, [made, 1]), preview(graph, [core, 0])
    run = comfy_client.run(graph.nodes)
    a, b = (pixels(comfy_client, run.outputs[one]["images"][0]) for one in (ours, theirs))
    assert a.shape == b.shape == (80, 120, 3)
    assert np.ptp(b) > 0
    assert np.abs(a - b).max() <= 1


def test_a_plain_picture_has_no_subject_and_is_named(comfy_client, graph, folders):
    draw(folders.input / "plain only", "plain.png")
    load = graph.add("MLT_LoadDataset", folder="plain only")
    graph.text([subject_masks(graph, dataset=[load, 0]), 3])
    error = comfy_client.run(graph.nodes, check=False).error
    assert "Subject masks: nothing was found in 1 of 1 picture: plain.png" in error


def walk(folders, name, *, gone=(), count=6):
    """A folder with one clip: a red square that moves on black, over it a green one, and the masks of what is red."""
    pictures, masks = np.zeros((count, 60, 80, 3), np.uint8), np.zeros((count, 60, 80), np.float32)
    for number in range(count):
        place = (slice(20, 50), slice(5 + 5 * number, 35 + 5 * number))
        inner = (slice(30, 40), slice(15 + 5 * number, 25 + 5 * number))
        if number not in gone:
            pictures[number][place], masks[number][place] = (255, 0, 0), 1
            pictures[number][inner], masks[number][inner] = (0, 255, 0), 0
    write_clip(folders.input / name / "walk.mkv", list(pictures))
    return masks


def saved(graph, made, name):
    graph.add("MLT_SaveMasks", dataset=[made, 0], destination=name)


def masks_saved(client, folders, name):
    masks = str(client.server.base / "output" / name)
    (sample,) = load_dataset(folder_settings(folders.input / name, mask_folder=masks), allowed=anywhere).samples
    return np.stack([found.mask for found in examine_frames(sample, range(6))])


def overlap(one, other):
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


def test_phrases_are_found_in_key_frames_of_a_clip_and_followed_through_it(comfy_client, graph, folders):
    truth = walk(folders, "followed", gone=(4,))
    load = graph.add("MLT_LoadDataset", folder="followed")
    made = text_masks(graph, dataset=[load, 0], phrases="anything", exclude="green", key_frames="1")
    saved(graph, made, "followed")
    told = shown(comfy_client.run(graph.nodes), made)
    assert "walk.mkv: in frame 4 what was followed is no longer seen, and the masks are black" in told
    assert "excluded: 1 × green (0.98), followed from frame 1 over 6 frames)" in told
    found = masks_saved(comfy_client, folders, "followed")
    assert not found[4].any()
    assert all(overlap(found[number], truth[number]) > 0.85 for number in (0, 1, 2, 3, 5))


@pytest.mark.parametrize(("file", "threshold"), [(RANDOM_SAM3_FILE, 0.1)])
def test_a_checkpoint_with_random_weights_follows_a_clip_through_the_whole_network(
    comfy_client, graph, folders, file, threshold
):
    walk(folders, "random clip", count=3)
    load = graph.add("MLT_LoadDataset", folder="random clip")
    made = text_masks(
        graph, file=file, dataset=[load, 0], phrases="cat", threshold=threshold, instances=2, key_frames="1"
    )
    found = graph.text([made, 3])
    told = shown(comfy_client.run(graph.nodes), found)
    assert "followed from frame 1 over 3 frames" in told and "cover" in told


def test_cancelling_stops_between_the_frames_of_a_clip(comfy_client, graph, folders):
    walk(folders, "long walk", count=60)
    load = graph.add("MLT_LoadDataset", folder="long walk", preview_images=0)
    made = text_masks(graph, dataset=[load, 0], phrases="red")
    graph.text([made, 3])
    prompt = comfy_client.submit(graph.nodes)
    comfy_client.wait_for(lambda kind, data: kind == "binary" and re.search(rb"frame [1-9]\d* of 60", data))
    comfy_client.interrupt()
    assert comfy_client.finish(prompt, check=False).ending == "execution_interrupted"
    assert not any(kind == "binary" and b"frame 60 of 60" in data for kind, data in comfy_client.events)


def test_the_subject_is_found_in_each_frame_of_a_clip(comfy_client, graph, folders):
    truth = walk(folders, "subject clip", gone=(2,))
    load = graph.add("MLT_LoadDataset", folder="subject clip")
    made = subject_masks(graph, dataset=[load, 0], threshold=0.5)
    saved(graph, made, "subject clip")
    told = shown(comfy_client.run(graph.nodes), made)
    assert "walk.mkv: 6 frames, of which frame 2 have nothing: no pixel of a subject" in told
    found = masks_saved(comfy_client, folders, "subject clip")
    whole = np.maximum.accumulate(truth, axis=2) * np.maximum.accumulate(truth[..., ::-1], axis=2)[..., ::-1]
    assert not found[2].any()
    assert all(overlap(found[number], whole[number]) > 0.85 for number in (0, 1, 3, 4, 5))


def faces(graph, images):
    """ComfyUI's own face masks of pictures; gives the MASK link."""
    loader = graph.add("LoadMediaPipeFaceLandmarker", model_name=FACE_FILE)
    marks = graph.add("MediaPipeFaceLandmarker", face_detection_model=[loader, 0], image=images)
    return [graph.add("MediaPipeFaceMask", face_landmarks=[marks, 0], regions="all"), 0]


def test_comfyui_s_face_masks_become_a_dataset_with_the_face_learned(comfy_client, graph, folders):
    folder = folders.input / "faces"
    draw(folder, "a.png", white=[(180, 100, 220, 140)], size=(320, 240))
    draw(folder, "b.png", white=[(100, 180, 140, 220)], size=(240, 320))
    load = graph.add("MLT_LoadDataset", folder="faces")
    masks = faces(graph, [load, 1])
    made = graph.add("MLT_DatasetFromImages", images=[load, 1], masks=masks, captions=[load, 3])
    checked, seen = inspect(graph, [made, 0]), preview(graph, masks)
    run = comfy_client.run(graph.nodes)
    report = shown(run, checked)
    assert "2 pictures: 2 with a mask, 0 without." in report
    assert [10 < float(share) < 20 for share in re.findall(r"coverage ([\d.]+)%", report)] == [True, True]
    for entry, (x, y) in zip(run.outputs[seen]["images"], [(200, 120), (120, 200)], strict=True):
        rows, columns = np.nonzero(pixels(comfy_client, entry)[..., 0] > 127)
        assert abs(columns.mean() - x) < 8
        assert abs(rows.mean() - y) < 8


def test_a_picture_without_a_face_has_a_black_mask_of_which_the_inspection_warns(comfy_client, graph, folders):
    folder = folders.input / "one face"
    draw(folder, "face.png", white=[(180, 100, 220, 140)], size=(320, 240))
    draw(folder, "none.png", size=(320, 240))
    load = graph.add("MLT_LoadDataset", folder="one face")
    made = graph.add("MLT_DatasetFromImages", images=[load, 1], masks=faces(graph, [load, 1]))
    checked = inspect(graph, [made, 0])
    report = shown(comfy_client.run(graph.nodes), checked)
    assert "1 mask is all black: nothing is learned there: picture-0002." in report
