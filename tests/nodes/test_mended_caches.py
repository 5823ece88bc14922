"""A cache that is deleted or damaged while ComfyUI runs is made anew within the training that needs it."""

import shutil

import pytest
from safetensors.torch import load_file

from harness.toy import same


def said(run, node="4"):
    return "\n".join(one["text"] for one in run.outputs[node]["masked_lora_report"])


def delete_everything(cache):
    shutil.rmtree(cache)


def flip_a_byte_of_every_latent(cache):
    for path in (cache / "latent").glob("*/*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-7] ^= 0x10
        path.write_bytes(data)


def cut_one_latent(cache):
    path = min((cache / "latent").glob("*/*.safetensors"))
    path.write_bytes(path.read_bytes()[:-9])


def delete_masks_and_captions(cache):
    for kind in ("mask", "text"):
        shutil.rmtree(cache / kind)


def empty_every_file(cache):
    for path in cache.glob("*/*/*.safetensors"):
        path.write_bytes(b"")


HARMS = [delete_everything, flip_a_byte_of_every_latent, cut_one_latent, delete_masks_and_captions, empty_every_file]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_training_with_another_seed_gives_what_it_gives_with_an_intact_cache_in_one_try(
    harm, comfy_client, comfy_server, train_graph
):
    name, loras = harm.__name__, comfy_server.base / "output" / "loras"
    comfy_client.run(train_graph(name=f"{name} before", seed=70))
    intact = comfy_client.run(train_graph(name=f"{name} intact", seed=71, if_a_run_exists="start anew"))
    assert "made anew" not in said(intact)
    harm(comfy_server.base / "user" / "masked_lora" / "cache")
    run = comfy_client.run(train_graph(name=f"{name} mended", seed=71, if_a_run_exists="start anew"))
    assert "Trained 3 steps" in said(run)
    assert "The cache was damaged or deleted; made anew:" in said(run)
    assert same(*(load_file(loras / f"{name} {which}.safetensors") for which in ("mended", "intact")))
    again = comfy_client.run(train_graph(name=f"{name} after", seed=72, if_a_run_exists="start anew"))
    assert "made anew" not in said(again)


def test_a_picture_that_is_gone_too_is_left_out(comfy_client, comfy_server, train_graph, folders):
    folder = folders.make("gone too", alpha=True)
    prompt = train_graph(name="gone too")
    prompt["2"]["inputs"]["folder"] = "gone too"
    comfy_client.run(prompt)
    shutil.rmtree(comfy_server.base / "user" / "masked_lora" / "cache" / "latent")
    (folder / "cat 2.png").unlink()
    prompt["4"]["inputs"]["seed"] = 5
    # Load Dataset sees that the folder has changed: the cache is made of what is there.
    run = comfy_client.run(prompt)
    assert "Trained 3 steps" in said(run)
