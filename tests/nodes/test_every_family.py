"""Every family as a person trains it: pictures, cache, training with samples, file, and ComfyUI's own loader of it."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from harness.damage import ALL
from harness.small import small_models, tried
from harness.training import needed_references, picture_side
from masklora.host.families import families

# One with a clip VAE, one with a large text, one whose text is padded; all of them take their time.
SHORT = ("qwen_image", "flux2", "z_image")
NAMES = [name for name in tried() if small_models()[name].encoder is not None and (ALL or name in SHORT)]
# What makes nothing without a reference picture is in test_reference_training.py.
NAMES = [name for name in NAMES if needed_references(name) is None]
# Their networks take sound beside the picture, of which there is none.
WITH_SOUND = {family.name for family in families() if family.sound}
DRAWN = {"steps": 2, "cfg": 1.5, "sampler": "euler", "scheduler": "simple", "seed": 3}


def side_of(name):
    """Pixels a side that this small model takes and that all strides divide."""
    return -(-picture_side(name) // 64) * 64


def couple(folders, side):
    """Three noisy pictures with captions and masks."""
    folder = folders.make("every family", count=3, size=(side, side))
    for i, file in enumerate(sorted(folder.glob("*.png"))):
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(file)
        folders.mask(file.with_name(f"{file.stem}_mask.png"), size=(side, side))
    return folder.name


def training(graph, name, folder):
    small = graph.add("SmallFamily", family=name)
    model, clip, vae = ([small, i] for i in range(3))
    data = graph.add("MLT_LoadDataset", folder=folder)
    sizes = {"resolution": side_of(name), "bucket_step": 64, "infill_variants": 0}
    cache = graph.add("MLT_CacheDataset", dataset=[data, 0], vae=vae, clip=clip, model=model, **sizes)
    loss = graph.add("MLT_MaskedLoss", prior_weight=0.5)
    shape = {"width": side_of(name), "height": side_of(name)}
    drawn = graph.add("MLT_Samples", clip=clip, vae=vae, prompts="a thing (series)", every=1, **shape, **DRAWN)
    inputs = {"model": model, "cache": [cache, 0], "loss": [loss, 0], "samples": [drawn, 0]}
    settings = {"steps": 2, "batch_size": 2, "learning_rate": 1e-2, "name": f"every {name}"}
    trained = graph.add("MLT_TrainLoRA", **inputs, **settings)
    graph.add("MLT_ExportLoRA", lora=[trained, 0], name=f"every {name} float32", format="comfyui", dtype="float32")
    return small, trained


def drawing(graph, small, file, side, *, sound):
    """What a person's graph draws with the file, with the same settings as the samples'."""
    loaded = graph.add("LoraLoaderModelOnly", model=[small, 0], lora_name=file, strength_model=1.0)
    texts = [graph.add("CLIPTextEncode", clip=[small, 1], text=text) for text in ("a thing (series)", "")]
    empty = graph.add("EmptyLatentImage", width=side, height=side, batch_size=1)
    if sound:
        empty = graph.add("PictureWithoutSound", model=[small, 0], side=side)
    given = {"positive": [texts[0], 0], "negative": [texts[1], 0], "latent_image": [empty, 0], "denoise": 1.0}
    settings = {"seed": 3, "steps": 2, "cfg": 1.5, "sampler_name": "euler", "scheduler": "simple"}
    sampled = graph.add("KSampler", model=[loaded, 0], **given, **settings)
    if sound:
        # Its VAE decodes no single frame well.
        frame = [graph.add("LTXVSeparateAVLatent", av_latent=[sampled, 0]), 0]
        sampled = graph.add("LatentConcat", samples1=frame, samples2=frame, dim="t")
    picture = graph.add("VAEDecode", samples=[sampled, 0], vae=[small, 2])
    return graph.add("SaveImage", images=[picture, 0], filename_prefix="every family")


def levels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("name", NAMES)
def test_a_family_is_trained_sampled_exported_and_loaded_as_the_page_does_it(
    name, graph, comfy_client, comfy_server, folders
):
    small, trained = training(graph, name, couple(folders, side_of(name)))
    run = comfy_client.run(graph.nodes)
    told = [one["text"] for one in run.outputs[trained]["masked_lora_report"]]
    assert any(line.startswith("Trained 2 steps") for line in told), told
    folder = next(line for line in told if line.startswith("Run folder: ")).removeprefix("Run folder: ")
    shown = {step: comfy_server.base.joinpath(folder, "samples", f"step_{step:06d}_0.png") for step in (0, 1, 2)}
    assert all(file.is_file() for file in shown.values()), list(shown[0].parent.glob("*"))
    file = comfy_server.base / "output" / "loras" / f"every {name} float32.safetensors"
    (comfy_server.base / "models" / "loras").mkdir(exist_ok=True, parents=True)
    shutil.copy(file, comfy_server.base / "models" / "loras" / file.name)
    before = len(comfy_server.log_tail(100_000))
    saved = drawing(graph, small, file.name, side_of(name), sound=small_models()[name].family in WITH_SOUND)
    image, *_ = comfy_client.run(graph.nodes).outputs[saved]["images"]
    assert "not loaded" not in comfy_server.log_tail(100_000)[before:].lower()
    drawn = levels((comfy_server.base / "output" / image["subfolder"] / image["filename"]).read_bytes())
    base, last = (levels(shown[step].read_bytes()) for step in (0, 2))
    # The file's change is merged into the weights, that of the training ran beside them.
    assert np.abs(drawn - last).max() <= 2 < np.abs(base - last).max()
