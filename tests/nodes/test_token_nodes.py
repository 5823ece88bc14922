"""Routed and hidden tokens from the loss node, in a real ComfyUI on small FLUX.1 and Stable Diffusion 3 models."""

import json

import pytest
from safetensors import safe_open

from harness.models import offer_small_flux, offer_small_unet

ALL = {"attention_mask": True, "text_padding_mask": True, "routes": "0.9: 1..-2", "prior_weight": 1.0}


@pytest.fixture(scope="module")
def flux_files(comfy_server):
    return offer_small_flux(comfy_server.base / "models")


def add_sd3(graph, server):
    name = next((server.base / "models" / "checkpoints").glob("masked-lora-demo*")).name
    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name=name)
    return [checkpoint, 0], [checkpoint, 1], [checkpoint, 2]


def add_flux(graph, files):
    model = graph.add("UNETLoader", unet_name=files["diffusion_models"], weight_dtype="default")
    clip = graph.add("DualCLIPLoader", clip_name1=files["clip_l"], clip_name2=files["t5"], type="flux")
    vae = graph.add("VAELoader", vae_name=files["vae"])
    return [model, 0], [clip, 0], [vae, 0]


def add_training(graph, model, clip, vae, *, name, **loss):
    # 128 pixels are 64 tokens of two by two latent cells.
    dataset = graph.add("MLT_LoadDataset", folder="tokens")
    cache = graph.add(
        "MLT_CacheDataset", dataset=[dataset, 0], vae=vae, clip=clip, resolution=128, bucket_step=16, infill_variants=0
    )
    settings = graph.add("MLT_MaskedLoss", **loss)
    train = {"steps": 2, "batch_size": 2, "name": name}
    return graph.add("MLT_TrainLoRA", model=model, cache=[cache, 0], loss=[settings, 0], **train)


@pytest.fixture
def pictures(folders):
    folder = folders.make("tokens", 3, size=(128, 128), captions=True)
    for i in range(1, 4):
        folders.mask(folder / f"cat {i}-masklabel.png", size=(128, 128), rows=0.25)
    return folder


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_two_steps_with_every_token_switch_on(
    family, comfy_client, comfy_server, demo_server, flux_files, graph, pictures
):
    loaded = add_sd3(graph, demo_server) if family == "sd3" else add_flux(graph, flux_files)
    train = add_training(graph, *loaded, name=f"tokens {family}", **ALL)
    run = comfy_client.run(graph.nodes)
    assert "Trained 2 steps" in "\n".join(str(t) for t in run.outputs[train]["text"])
    with safe_open(comfy_server.base / "output" / "loras" / f"tokens {family}.safetensors", "np") as file:
        metadata = file.metadata()
    loss, summary = (json.loads(metadata[f"masklora.{name}"]) for name in ("loss", "summary"))
    assert {name: loss[name] for name in ALL} == ALL
    # A quarter of 64 tokens is mask; a tenth of the others is rounded up to 16.
    assert summary["kept_tokens"] == {"16×16": [0.5]}
    assert summary["drift"] is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"routes": "0.5: 1..2"}, "routes: Stable Diffusion 1.5 is a U-Net"),
        ({"attention_mask": True}, "attention_mask: Stable Diffusion 1.5 is a U-Net"),
        ({"text_padding_mask": True}, "text_padding_mask: Stable Diffusion 1.5 is a U-Net"),
    ],
)
def test_a_u_net_refuses_what_acts_on_tokens(change, message, comfy_client, comfy_server, demo_server, graph, pictures):
    _, clip, vae = add_sd3(graph, demo_server)
    unet = graph.add("UNETLoader", unet_name=offer_small_unet(comfy_server.base / "models"), weight_dtype="default")
    add_training(graph, [unet, 0], clip, vae, name="refused", **change)
    assert message in comfy_client.refusal(graph.nodes)


@pytest.mark.parametrize(
    ("routes", "message"),
    [("half: 1..2", "'half: 1..2' is no route"), ("0.5: 5..3", "ends before it begins")],
)
def test_routes_that_cannot_be_read_are_refused_by_the_loss_node(routes, message, comfy_client, graph):
    graph.text([graph.add("MLT_MaskedLoss", routes=routes), 1])
    refused = comfy_client.refusal(graph.nodes)
    assert refused.startswith("routes: ") and message in refused and "such as 0.75: 2.." in refused
