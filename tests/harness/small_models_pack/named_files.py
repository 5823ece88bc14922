"""Files that name a small model instead of holding one, for families that ComfyUI knows by the sizes of real files.

ComfyUI's own loader nodes read them under the official names and get the small model, of its own classes.
"""

import json
import os
import sys

from safetensors import safe_open

# In a file's header: the family of a network, or the family of a text encoder by what the loader is told it is for.
NETWORK, ENCODERS = "masklora_network", "masklora_encoders"
# In place of a family: the model that describes pictures.
DESCRIBES = "describer"
# Where the harness lies, of which ComfyUI knows nothing.
TESTS = "MASKLORA_TESTS"


def header(path):
    """What the file's writer noted in it."""
    if not str(path).endswith(".safetensors"):
        return {}
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _find_harness():
    if os.environ[TESTS] not in sys.path:
        sys.path.append(os.environ[TESTS])


def describer():
    """The small model that describes pictures."""
    _find_harness()
    from harness.describer import describer

    return describer()


def small_of(family):
    """The small model of a family, and its text encoder where it has one that is small."""
    _find_harness()
    from harness import models

    return lambda: models.small_model(family, page=True), models.small_of(family).encoder


def replacements():
    """(owner, attribute, value) of what in ComfyUI reads networks and text encoders."""
    import comfy.sd

    load_network, load_encoder = comfy.sd.load_diffusion_model, comfy.sd.load_clip
    load_checkpoint = comfy.sd.load_checkpoint_guess_config

    def network(path, *given, **options):
        family = header(path).get(NETWORK)
        return small_of(family)[0]() if family else load_network(path, *given, **options)

    def checkpoint(path, *given, **options):
        family = header(path).get(NETWORK)
        if not family:
            return load_checkpoint(path, *given, **options)
        made = small_of(family)[0]()
        from harness.vaes import small_vae

        return made, None, small_vae(family), None

    def encoder(ckpt_paths, folder=None, clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION, *given, **options):
        kinds = json.loads(header(ckpt_paths[0]).get(ENCODERS, "{}"))
        folder = options.pop("embedding_directory", folder)
        if not kinds:
            return load_encoder(ckpt_paths, folder, clip_type, *given, **options)
        kind = kinds[clip_type.name.lower()]
        return describer() if kind == DESCRIBES else small_of(kind)[1].made()

    return [
        (comfy.sd, "load_diffusion_model", network),
        (comfy.sd, "load_clip", encoder),
        (comfy.sd, "load_checkpoint_guess_config", checkpoint),
    ]
