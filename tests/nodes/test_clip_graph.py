"""Clips as a person trains them: a folder of videos with mask clips, cache, training and file in a real ComfyUI."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image, ImageSequence
from safetensors import safe_open

from harness.clips import write_clip
from harness.damage import ALL, many
from harness.training import picture_side

NAMES = ["wan", "ltxav", "hunyuan_video15"] if ALL else ["wan"]


def walks(root, side):
    """Two clips of noise at 32 frames a second, each with a mask clip."""
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 256, (19, side, side, 3), np.uint8)
        masks = np.zeros_like(frames)
        for i in range(len(masks)):
            masks[i, side // 4 : 3 * side // 4, side * i // 40 : side * i // 40 + side // 2] = 255
        write_clip(root / f"walk{number}.mkv", frames, rate=32)
        write_clip(root / "masks" / f"walk{number}.mkv", masks, rate=32)
        (root / f"walk{number}.txt").write_text("a walk", encoding="utf-8")


def told(run, node):
    return [one["text"] for one in run.outputs[node]["masked_lora_report"]]


@pytest.mark.parametrize("name", NAMES)
def test_clips_are_cached_trained_and_written_as_the_page_does_it(name, graph, comfy_client, comfy_server, folders):
    side = picture_side(name)
    folder = f"clips of {name}"
    walks(folders.input / folder, side)
    small = graph.add("SmallFamily", family=name)
    model, clip, vae = ([small, i] for i in range(3))
    data = graph.add("MLT_LoadDataset", folder=folder)
    sizes = {"resolution": side, "bucket_step": 32, "infill_variants": 1, "clip_frames": 9}
    cache = graph.add("MLT_CacheDataset", dataset=[data, 0], vae=vae, clip=clip, model=model, **sizes)
    settings = {"steps": 3, "batch_size": 1, "name": f"clips of {name}"}
    trained = graph.add("MLT_TrainLoRA", model=model, cache=[cache, 0], **settings)
    exported = graph.add("MLT_ExportLoRA", lora=[trained, 0], name=f"file of {name}", format="comfyui")
    run = comfy_client.run(graph.nodes)
    lines = told(run, cache)
    rate = {"wan": 16, "ltxav": 25, "hunyuan_video15": 24}[name]
    assert any(f"{rate} frames per second" in line for line in lines), lines
    assert any(f"{side}×{side} × 9 frames: 2" in line for line in lines), lines
    assert any(line.startswith("Trained 3 steps") for line in told(run, trained)), told(run, trained)
    assert exported in run.outputs
    (file,) = (comfy_server.base / "output" / "loras").glob(f"file of {name}*.safetensors")
    with safe_open(file, "pt") as opened:
        assert list(opened.keys())


# Models of no family, and how many frames become one in the latents of their VAEs.
STRIDES = {"cogvideox": 4, "mochi": 6}


def steps(root, side, *, white):
    """Two clips of 13 frames, of whose masks these frames are white and all others black."""
    for number, there in enumerate(white):
        frames = np.random.default_rng(number).integers(0, 256, (13, side, side, 3), np.uint8)
        masks = np.zeros_like(frames)
        masks[there] = 255
        write_clip(root / f"step{number}.mkv", frames)
        write_clip(root / "masks" / f"step{number}.mkv", masks)
        (root / f"step{number}.txt").write_text("a step", encoding="utf-8")


def covered(white, stride):
    """The mean weight of the latent frames: the first has the first frame's mask, the others their own frames' mean."""
    mask = np.isin(np.arange(13), white).astype(float)
    return np.mean([mask[0], *mask[1:].reshape(-1, stride).mean(axis=1)])


def drawn_frames(name):
    """Of three latent frames: even counts of CogVideoX's are decoded as four frames each, the first too."""
    return 1 + 2 * STRIDES[name]


def drawing(graph, name, small, file, side):
    """What a person's graph draws with the file, with the same settings as the samples'."""
    loaded = graph.add("LoraLoaderModelOnly", model=[small, 0], lora_name=file, strength_model=1.0)
    if name == "cogvideox":
        loaded = graph.add("ModelSamplingDiscrete", model=[loaded, 0], sampling="v_prediction", zsnr=True)
    texts = [graph.add("CLIPTextEncode", clip=[small, 1], text=text) for text in ("a step", "")]
    kind = {"cogvideox": "EmptyHunyuanLatentVideo", "mochi": "EmptyMochiLatentVideo"}[name]
    empty = graph.add(kind, width=side, height=side, length=drawn_frames(name), batch_size=1)
    given = {"positive": [texts[0], 0], "negative": [texts[1], 0], "latent_image": [empty, 0], "denoise": 1.0}
    settings = {"seed": 3, "steps": 2, "cfg": 1.5, "sampler_name": "euler", "scheduler": "simple"}
    sampled = graph.add("KSampler", model=[loaded, 0], **given, **settings)
    picture = graph.add("VAEDecode", samples=[sampled, 0], vae=[small, 2])
    return graph.add("SaveImage", images=[picture, 0], filename_prefix=f"steps of {name}")


def clip_of(path):
    """All frames of a sample clip; those that are alike are written as one."""
    with Image.open(path) as image:
        return np.stack([np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(image)])


@pytest.mark.parametrize("name", many(["cogvideox"], list(STRIDES)))
def test_models_of_no_family_learn_clips_with_masks_by_their_vaes_own_frames(
    name, graph, comfy_client, comfy_server, folders
):
    side, white = 64, ([0, 1, 2, 3, 4], [6, 12])
    steps(folders.input / f"steps of {name}", side, white=white)
    small = graph.add("SmallFamily", family=name)
    model, clip, vae = ([small, i] for i in range(3))
    data = graph.add("MLT_LoadDataset", folder=f"steps of {name}")
    sizes = {"resolution": side, "bucket_step": 32, "infill_variants": 0, "clip_frames": 13}
    cache = graph.add("MLT_CacheDataset", dataset=[data, 0], vae=vae, clip=clip, model=model, **sizes)
    shape = {"width": side, "height": side, "frames": drawn_frames(name), "steps": 2, "cfg": 1.5, "sampler": "euler"}
    shape |= {"scheduler": "simple", "seed": 3}
    drawn = graph.add("MLT_Samples", clip=clip, vae=vae, prompts="a step", every=4, **shape)
    settings = {"steps": 4, "batch_size": 1, "learning_rate": 1e-2, "name": f"steps of {name}", "unknown_model": True}
    trained = graph.add("MLT_TrainLoRA", model=model, cache=[cache, 0], samples=[drawn, 0], **settings)
    graph.add("MLT_ExportLoRA", lora=[trained, 0], name=f"steps of {name}", format="comfyui", dtype="float32")
    run = comfy_client.run(graph.nodes)
    assert any("64×64 × 13 frames: 2" in line for line in told(run, cache)), told(run, cache)
    lines = told(run, trained)
    assert any("ModelSamplingDiscrete" in line for line in lines) == (name == "cogvideox"), lines
    folder = next(line for line in lines if line.startswith("Run folder: ")).removeprefix("Run folder: ")
    rows = (comfy_server.base / folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    coverages = [row["coverage"] for row in map(json.loads, rows) if "coverage" in row]
    wanted = [covered(there, STRIDES[name]) for there in white]
    assert sorted(coverages) == pytest.approx(sorted(wanted * 2), abs=1e-4)
    file = comfy_server.base / "output" / "loras" / f"steps of {name}.safetensors"
    (comfy_server.base / "models" / "loras").mkdir(exist_ok=True, parents=True)
    shutil.copy(file, comfy_server.base / "models" / "loras" / file.name)
    before = len(comfy_server.log_tail(100_000))
    saved = drawing(graph, name, small, file.name, side)
    images = comfy_client.run(graph.nodes).outputs[saved]["images"]
    assert "not loaded" not in comfy_server.log_tail(100_000)[before:].lower()
    places = [comfy_server.base / "output" / one["subfolder"] / one["filename"] for one in images]
    pixels = np.stack([np.asarray(Image.open(place).convert("RGB")).astype(int) for place in places])
    base, last = (clip_of(comfy_server.base / folder / "samples" / f"step_{step:06d}_0.png") for step in (0, 4))
    assert pixels.shape == last.shape == (drawn_frames(name), side, side, 3)
    # The file's change is merged into the weights, that of the training ran beside them.
    assert np.abs(pixels - last).max() <= 2 < np.abs(base - last).max()


def test_a_clip_of_another_models_graph_is_refused_before_anything_is_encoded(graph, comfy_client, folders):
    side = picture_side("qwen_image")
    walks(folders.input / "clips for pictures", side)
    small = graph.add("SmallFamily", family="qwen_image")
    model, clip, vae = ([small, i] for i in range(3))
    data = graph.add("MLT_LoadDataset", folder="clips for pictures")
    sizes = {"resolution": side, "bucket_step": 32}
    cache = graph.add("MLT_CacheDataset", dataset=[data, 0], vae=vae, clip=clip, model=model, **sizes)
    graph.text([cache, 1])
    error = comfy_client.run(graph.nodes, check=False).error
    assert "walk0.mkv would be learned as" in error
    assert "clip_frames" in error


def test_too_few_frames_for_the_vae_are_told(graph, comfy_client, folders):
    walks(folders.input / "few frames", picture_side("wan"))
    small = graph.add("SmallFamily", family="wan")
    data = graph.add("MLT_LoadDataset", folder="few frames")
    sizes = {"resolution": picture_side("wan"), "bucket_step": 32, "infill_variants": 0, "clip_frames": 4}
    cache = graph.add("MLT_CacheDataset", dataset=[data, 0], vae=[small, 2], clip=[small, 1], **sizes)
    graph.text([cache, 1])
    lines = told(comfy_client.run(graph.nodes), cache)
    assert any("4 frames are too few for this VAE" in line and "Set clip_frames to 5" in line for line in lines), lines


def test_a_model_that_continues_pictures_is_given_the_first_frames_if_it_is_connected(graph, comfy_client, folders):
    side = picture_side("wan21_i2v")
    walks(folders.input / "clips to continue", side)
    small = graph.add("SmallFamily", family="wan21_i2v")
    model, clip, vae = ([small, i] for i in range(3))
    data = graph.add("MLT_LoadDataset", folder="clips to continue")
    sizes = {"resolution": side, "bucket_step": 32, "infill_variants": 0, "clip_frames": 9}
    cache = graph.add("MLT_CacheDataset", dataset=[data, 0], vae=vae, clip=clip, **sizes)
    trained = graph.add("MLT_TrainLoRA", model=model, cache=[cache, 0], steps=2, batch_size=1, name="continued")
    error = comfy_client.run(graph.nodes, check=False).error
    assert "the cache was made without the first frames. Connect the MODEL to Cache Dataset" in error
    graph.nodes[cache]["inputs"]["model"] = model
    run = comfy_client.run(graph.nodes)
    # A latent of each clip, and one of its first frame; which clips were encoded before is found again.
    assert any("made now" in line and "latent" in line for line in told(run, cache)), told(run, cache)
    assert any("is given the first frame of each clip" in line for line in told(run, trained)), told(run, trained)
