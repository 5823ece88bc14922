"""Train Text Encoder in a real ComfyUI: from a folder to a file and a new word, which core reads as it did."""

import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from harness.models import offer_small_unet, offer_unet_companions

SIDE, NAME = 64, "text-encoder"
DRAWN = {"seed": 3, "steps": 2, "cfg": 1.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
PROMPT = "a photo of (embedding:zwx:1.2)"


@pytest.fixture
def sockets(graph, comfy_server):
    """MODEL, CLIP and VAE of a small Stable Diffusion 1.5, from files by core's loaders."""
    models = comfy_server.base / "models"
    files = offer_unet_companions(models)
    unet = graph.add("UNETLoader", unet_name=offer_small_unet(models), weight_dtype="default")
    clip = graph.add("CLIPLoader", clip_name=files["clip_l"], type="stable_diffusion")
    vae = graph.add("VAELoader", vae_name=files["vae"])
    return [[node, 0] for node in (unet, clip, vae)]


@pytest.fixture
def folder(folders):
    made = folders.make(NAME, count=2, size=(SIDE, SIDE))
    for i, file in enumerate(sorted(made.glob("*.png"))):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file)
        folders.mask(file.with_name(f"{file.stem}_mask.png"), size=(SIDE, SIDE))
    return made.name


def training(graph, sockets, folder, **texts):
    """The training's node, and its LORA_MODEL as core saves it."""
    model, clip, vae = sockets
    data = graph.add("MLT_LoadDataset", folder=folder, trigger_word="zwx")
    sizes = {"resolution": SIDE, "bucket_step": 64, "infill_variants": 0}
    cache = graph.add("MLT_CacheDataset", dataset=[data, 0], vae=vae, clip=clip, model=model, **sizes)
    encoder = graph.add("MLT_TextEncoder", clip=clip, **{"learning_rate": 1e-2, "new_word": True, **texts})
    settings = {"steps": 2, "batch_size": 1, "learning_rate": 1e-2, "name": NAME, "save_every": 1}
    given = {"model": model, "cache": [cache, 0], "text_encoder": [encoder, 0]}
    trained = graph.add("MLT_TrainLoRA", **given, **settings)
    graph.add("SaveLoRA", lora=[trained, 0], prefix=f"loras/{NAME} by core")
    return trained


def drawn(graph, model, clip, vae, name):
    positive, negative = (graph.add("CLIPTextEncode", clip=clip, text=text) for text in (PROMPT, ""))
    empty = graph.add("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1)
    given = {"positive": [positive, 0], "negative": [negative, 0], "latent_image": [empty, 0]}
    sampled = graph.add("KSampler", model=model, **given, **DRAWN)
    picture = graph.add("VAEDecode", samples=[sampled, 0], vae=vae)
    return graph.add("SaveImage", images=[picture, 0], filename_prefix=f"{NAME} {name}")


def test_a_text_encoder_is_trained_from_a_folder_to_a_file_that_core_s_loader_reads_as_the_training_did(
    graph, comfy_client, comfy_server, sockets, folder, routes
):
    model, clip, vae = sockets
    trained = training(graph, sockets, folder)
    given = drawn(graph, [trained, 1], [trained, 6], vae, "given")
    run = comfy_client.run(graph.nodes)
    told = [one["text"] for one in run.outputs[trained]["masked_lora_report"]]
    output, loras = comfy_server.base / "output", comfy_server.base / "models" / "loras"
    assert any(line.startswith("New word: prompts call it embedding:zwx.") for line in told), told
    tensors = load_file(output / "loras" / f"{NAME}.safetensors")
    kinds = {key.partition("_")[0] + "_" + key.split("_")[1] for key in tensors}
    assert kinds == {"lora_te", "lora_unet"}
    (core,) = (output / "loras").glob(f"{NAME} by core*.safetensors")
    assert load_file(core).keys() == tensors.keys()
    assert load_file(output / "embeddings" / "zwx.safetensors")["clip_l"].shape == (2, 768)
    # What the page writes of an earlier step names the word of that step.
    known = routes.named(NAME)["id"]
    status, answer = routes.post(f"/runs/{known}/export", b'{"step": 1}')
    assert status == 200, answer
    with safe_open(output / answer["files"][0], "np") as file:
        assert file.metadata()["masklora.embedding"] == "zwx-step000001"
        assert set(file.keys()) == tensors.keys()
    assert (output / "embeddings" / "zwx-step000001.safetensors").is_file()

    loras.mkdir(exist_ok=True, parents=True)
    shutil.copy(output / "loras" / f"{NAME}.safetensors", loras)
    before = len(comfy_server.log_tail(100_000))
    strengths = {"strength_model": 1.0, "strength_clip": 1.0}
    loaded = graph.add("LoraLoader", model=model, clip=clip, lora_name=f"{NAME}.safetensors", **strengths)
    files = [drawn(graph, [loaded, 0], [loaded, 1], vae, "loaded"), drawn(graph, [loaded, 0], clip, vae, "half")]
    shown = [picture(comfy_server, comfy_client.run(graph.nodes), file) for file in files]
    said = comfy_server.log_tail(100_000)[before:].lower()
    assert "not loaded" not in said and "does not exist" not in said
    wanted = picture(comfy_server, run, given)
    assert np.abs(shown[0] - wanted).max() <= 2 < np.abs(shown[1] - wanted).max()


def picture(server, run, node):
    image, *_ = run.outputs[node]["images"]
    return np.asarray(Image.open(server.base / "output" / image["subfolder"] / image["filename"])).astype(int)
