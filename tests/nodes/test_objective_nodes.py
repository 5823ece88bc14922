"""The whole masked objective from nodes, in a real ComfyUI on small SD 1.5, SDXL and FLUX.1 models."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from harness.models import offer_small_flux, offer_small_unet, offer_unet_companions

# Everything that every family allows, at once.
EVERYTHING = {
    "preset": "custom",
    "prior_weight": 0.5,
    "prior_probability": 1.0,
    "prior_schedule": "cosine",
    "preservation_weight": 0.5,
    "infill_probability": 0.5,
    "outside_share": 0.1,
    "mask_probability": 0.8,
    "noise_blur": 0.1,
    "masked_timestep_max": 0.9,
}
FAMILIES = ("sd15", "sdxl", "flux")


@pytest.fixture(scope="module")
def files(comfy_server):
    """Names of the small models' files, by family and kind."""
    models = comfy_server.base / "models"
    unets = offer_unet_companions(models)
    found = {family: {**unets, "diffusion_models": offer_small_unet(models, family)} for family in ("sd15", "sdxl")}
    return {**found, "flux": offer_small_flux(models)}


def add_models(graph, family, files):
    """MODEL, CLIP and VAE from ComfyUI's own loaders."""
    of = files[family]
    model = graph.add("UNETLoader", unet_name=of["diffusion_models"], weight_dtype="default")
    if family == "sd15":
        clip = graph.add("CLIPLoader", clip_name=of["clip_l"], type="stable_diffusion")
    else:
        second = of["clip_g" if family == "sdxl" else "t5"]
        clip = graph.add("DualCLIPLoader", clip_name1=of["clip_l"], clip_name2=second, type=family)
    vae = graph.add("VAELoader", vae_name=of["vae"])
    return [model, 0], [clip, 0], [vae, 0]


@pytest.fixture
def couple(folders):
    """Three pictures of 128×128 of Anna at the left and Ben at the right, with their words and a trigger word."""
    folder = folders.input / "couple"
    for i in range(1, 4):
        pixels = np.random.default_rng(i).integers(0, 256, (128, 128, 3), np.uint8)
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"day {i}.png")
        (folder / f"day {i}.txt").write_text("zwx people on grass", encoding="utf-8")
        (folder / "masks").mkdir(exist_ok=True)
        for name, left in (("anna", 8), ("ben", 80)):
            mask = np.zeros((128, 128), np.uint8)
            mask[40:88, left : left + 40] = 255
            Image.fromarray(mask).save(folder / "masks" / f"day {i}.{name}.png")
    return "couple"


def add_training(graph, family, files, folder, *, name, crop="centre", **loss):
    model, clip, vae = add_models(graph, family, files)
    where = {"folder": folder, "mask_source": "folder", "mask_folder": "masks", "trigger_word": "zwx"}
    dataset = graph.add("MLT_LoadDataset", **where)
    sizes = {"resolution": 128, "bucket_step": 16, "crop": crop, "crop_margin": 0.0, "infill_variants": 2}
    cache = graph.add("MLT_CacheDataset", dataset=[dataset, 0], vae=vae, clip=clip, storage="memory", **sizes)
    settings = graph.add("MLT_MaskedLoss", **loss)
    train = {"steps": 2, "batch_size": 2, "validate_every": 2, "validation_share": 0.4, "name": name}
    trained = graph.add("MLT_TrainLoRA", model=model, cache=[cache, 0], loss=[settings, 0], **train)
    return trained, graph.text([cache, 1])


def metadata(server, name):
    with safe_open(server.base / "output" / "loras" / f"{name}.safetensors", "np") as file:
        return {key: json.loads(file.metadata()[f"masklora.{key}"]) for key in ("loss", "summary")}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_of_the_objective_trains_at_once(family, comfy_client, comfy_server, files, graph, couple):
    tokens = {"attention_mask": True, "text_padding_mask": True, "routes": "0.8: 1..-2"} if family == "flux" else {}
    asked = {**EVERYTHING, **tokens}
    train, _ = add_training(graph, family, files, couple, name=f"everything {family}", **asked)
    run = comfy_client.run(graph.nodes)
    assert "Trained 2 steps" in "\n".join(run.outputs[train]["text"])
    told = metadata(comfy_server, f"everything {family}")
    assert {key: told["loss"][key] for key in asked} == asked
    for name in ("inside", "outside", "prior", "drift", "preservation", "validation"):
        assert np.isfinite(told["summary"][name]), name
    assert told["summary"]["prior"] > 0 and told["summary"]["preservation"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_our_preset_and_a_masked_crop_train(family, comfy_client, comfy_server, files, graph, couple):
    name = f"crop {family}"
    train, cached = add_training(graph, family, files, couple, name=name, crop="masked crop", preset="masked lora")
    run = comfy_client.run(graph.nodes)
    assert "Trained 2 steps" in "\n".join(run.outputs[train]["text"])
    # Half of the time one of them on 48×48 pixels, half both on 112×48, of 128×128.
    assert "masked crop: trains on 23% of the pixels (77% saved per step" in "\n".join(run.outputs[cached]["text"])
    told = metadata(comfy_server, name)
    assert (told["loss"]["preset"], told["loss"]["prior_weight"], told["loss"]["infill_probability"]) == (
        "masked lora",
        1.0,
        0.5,
    )
    assert told["summary"]["drift"] is not None
