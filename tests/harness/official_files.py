"""Small models of the real classes under the names that ComfyUI's own templates give the files of the real ones."""

import json
import shutil

import torch
from safetensors.torch import save_file

from devtools.start_here.captioning import DESCRIBER, KIND
from devtools.start_here.models import MODELS

from .models import offer_small_flux, offer_small_unet, offer_unet_companions
from .small import small_models
from .small_models_pack.named_files import DESCRIBES, ENCODERS, NETWORK
from .vaes import ltx_sound, vae_state

# The family of each template's model.
FAMILIES = {
    "SDXL": "sdxl",
    "Z-Image": "z_image",
    "Qwen-Image": "qwen_image",
    "FLUX.1": "flux",
    "FLUX.2 klein": "flux2",
    "Krea 2": "krea2",
    "Chroma": "chroma",
    "Anima": "anima",
    "SD 1.5": "sd15",
    "ERNIE-Image": "ernie_image",
    "Ideogram 4": "ideogram4",
    "Wan 2.2 5B": "wan22_5b",
    "LTX-2": "ltxav",
    "Qwen-Image-Edit": "qwen_image",
    "FLUX.2 klein Edit": "flux2",
}
# ComfyUI has no configuration of its text encoder that could be made small.
WITHOUT_ENCODER = {"ERNIE-Image"}


def offer_official_files(server, models):
    """Writes a file of every official name into a `models` folder; `server` makes the checkpoints among them."""
    encoders = {}
    for model in MODELS:
        family = FAMILIES[model.title]
        if model.clip and model.clip.sound:
            state, told = ltx_sound()
            _write(models, model.network, state, {NETWORK: family, **told})
        elif model.vae is None:
            _move(small_checkpoint(server, family), models, model.network)
            continue
        else:
            _write(models, model.vae, vae_state(small_models()[family].vae))
        if family == "flux":
            _offer_flux(models, model)
            continue
        for file in model.files:
            if file.directory == "diffusion_models":
                _write(models, file, _NOTHING, {NETWORK: family})
        for file in model.encoders:
            # Two models may have a file of one name for an encoder that is told apart by its kind.
            encoders.setdefault(file.name, (file, {}))[1][model.kind or _UNTOLD] = family
    encoders.setdefault(DESCRIBER.name, (DESCRIBER, {}))[1][KIND] = DESCRIBES
    for file, kinds in encoders.values():
        _write(models, file, _NOTHING, {ENCODERS: json.dumps(kinds)})


def small_checkpoint(server, family):
    """A small SDXL or Stable Diffusion 1.5 with random weights as one file, written by ComfyUI's own nodes."""
    models = server.base / "models"
    unet, files = offer_small_unet(models, family), offer_unet_companions(models)
    clip = {"class_type": "CLIPLoader", "inputs": {"clip_name": files["clip_l"], "type": "stable_diffusion"}}
    if family == "sdxl":
        clips = {"clip_name1": files["clip_l"], "clip_name2": files["clip_g"], "type": "sdxl"}
        clip = {"class_type": "DualCLIPLoader", "inputs": clips}
    parts = {"model": ["1", 0], "clip": ["2", 0], "vae": ["3", 0]}
    prefix = f"checkpoint {family}"
    server.run(
        {
            "1": {"class_type": "UNETLoader", "inputs": {"unet_name": unet, "weight_dtype": "default"}},
            "2": clip,
            "3": {"class_type": "VAELoader", "inputs": {"vae_name": files["vae"]}},
            "4": {"class_type": "CheckpointSave", "inputs": {**parts, "filename_prefix": prefix}},
        }
    )
    (made,) = (server.base / "output").glob(f"{prefix}*.safetensors")
    return made


# What ComfyUI takes an encoder for whose loader is told nothing.
_UNTOLD = "ltxv"
_NOTHING = {"nothing": torch.zeros(1)}


def _offer_flux(models, model):
    made = offer_small_flux(models)
    for kind, file in zip(("diffusion_models", "clip_l", "t5"), (model.network, *model.encoders), strict=True):
        _move(models / file.directory / made[kind], models, file)
    (models / "vae" / made["vae"]).unlink()


def _write(models, file, state, metadata=None):
    folder = models / file.directory
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous().clone() for name, value in state.items()}
    save_file(state, folder / file.name, metadata=metadata)


def _move(source, models, file):
    (models / file.directory).mkdir(parents=True, exist_ok=True)
    shutil.move(source, models / file.directory / file.name)
