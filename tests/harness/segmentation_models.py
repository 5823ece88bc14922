"""Writes small SAM 3 and BiRefNet files that ComfyUI's own loaders read as its real classes.

The networks have random weights. The `ruled` files answer by rule, so that what must be found is known; see
`small_models_pack.networks`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import comfy.ops
import torch
from safetensors.torch import save_file

import nodes

from .face_model import write_face_model
from .small_models_pack.networks import (
    SAM3_SIZES,
    TEXT_WIDTH,
    WORDS,
    SmallBiRefNet,
    SmallSAM3,
    replacements,
)

# Under the published names, so that example workflows run as they are.
SAM3_FILE = "sam3.1_multiplex_fp16.safetensors"
BIREFNET_FILE = "birefnet.safetensors"
FACE_FILE = "mediapipe_face_fp32.safetensors"
RANDOM_SAM3_FILE = "random sam3.safetensors"
RANDOM_BIREFNET_FILE = "random birefnet.safetensors"
TEXT_PREFIX = "detector.backbone.language_backbone."


def offer_small_models(models: Path) -> Path:
    """Writes all files into the folders of a `models` folder; the published names answer by rule."""
    write_sam3(models / "checkpoints" / SAM3_FILE, ruled=True)
    write_sam3(models / "checkpoints" / RANDOM_SAM3_FILE)
    write_birefnet(models / "background_removal" / BIREFNET_FILE, ruled=True)
    write_birefnet(models / "background_removal" / RANDOM_BIREFNET_FILE)
    write_face_model(models / "detection" / FACE_FILE)
    return models


@contextlib.contextmanager
def small_sizes() -> Iterator[None]:
    """While it lasts, ComfyUI's loaders in this process read the small files."""
    with contextlib.ExitStack() as stack:
        for owner, name, value in replacements():
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


def write_sam3(path: Path, *, ruled: bool = False, kind: str = "SAM31", seed: int = 5) -> Path:
    """A checkpoint with MODEL and CLIP for Load Checkpoint; `kind` SAM31 is the published one, or SAM3."""
    text_module = importlib.import_module("comfy.text_encoders.sam3_clip")
    with small_sizes(), torch.inference_mode(False):
        parts = {"device": "cpu", "dtype": torch.float32}
        network = SmallSAM3(image_model=kind, operations=comfy.ops.disable_weight_init, **SAM3_SIZES, **parts)
        text = text_module.SAM3ClipModelWrapper(**parts)
    state = {**random_state(network, seed), **random_state(text, seed, prefix=TEXT_PREFIX)}
    state["words"] = torch.zeros(len(WORDS), TEXT_WIDTH)
    _save(state, path)
    if ruled:
        _, clip = load_sam3(path)
        tokens = [clip.tokenize(word) for word in WORDS]
        encoded = [clip.encode_from_tokens(one)[0, 1].float().cpu().clone() for one in tokens]
        _save({**state, "words": torch.stack(encoded)}, path)
    return path


def load_sam3(path: Path):
    """(MODEL, CLIP) of a small checkpoint, as Load Checkpoint gives them."""
    sd = importlib.import_module("comfy.sd")
    with small_sizes():
        return sd.load_checkpoint_guess_config(str(path), output_vae=False)[:2]


def write_birefnet(path: Path, *, ruled: bool = False, seed: int = 6) -> Path:
    """A file for Load Background Removal Model."""
    with torch.inference_mode(False):
        network = SmallBiRefNet(None, torch.float32, "cpu", comfy.ops.disable_weight_init)
    state = random_state(network, seed)
    state["by_rule"] = torch.full((1,), float(ruled))
    return _save(state, path)


def load_birefnet(path: Path):
    """The BACKGROUND_REMOVAL of a small file, as Load Background Removal Model gives it."""
    module = importlib.import_module("comfy.bg_removal_model")
    with small_sizes():
        return module.load(str(path))


def core_node(node_id: str, file: str) -> type:
    """A node class of ComfyUI's extras, registered in this process as its own start would do it."""
    if node_id not in nodes.NODE_CLASS_MAPPINGS:
        path = Path(nodes.__file__).parent / "comfy_extras" / file

        def load():
            return asyncio.run(nodes.load_custom_node(str(path), module_parent="comfy_extras"))

        # Playwright leaves an event loop in the main thread.
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(load).result(), f"{file} did not load"
    return nodes.NODE_CLASS_MAPPINGS[node_id]


def random_state(network: torch.nn.Module, seed: int, *, prefix: str = "") -> dict[str, torch.Tensor]:
    """Weights that keep activations near one; gains and variances are about one, indices as they are."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            state[prefix + name] = value.clone()
            continue
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            noise = noise / max(1, value[0].numel()) ** 0.5
        elif name.endswith("running_var") or ("norm" in name and name.endswith("weight")):
            noise = 1 + 0.02 * noise.abs()
        else:
            noise = 0.02 * noise
        state[prefix + name] = noise
    return state


def _save(state: dict[str, torch.Tensor], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, str(path))
    return path
