"""ComfyUI's VAE and CLIP as the cache's encoders.

Both run under `torch.no_grad()` inside or outside the executor's inference mode, and hand out ordinary CPU
tensors, because the trainer differentiates through what is built from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import torch

from ...cache.keys import digest
from ...cache.shots import ClipRule
from ...errors import FamilyError
from ..references.conditions import flattened
from ..references.ways import encoded_with

SAMPLES = 1 << 16
Plain = (bool, int, float, str, type(None))
# Where a text entry tells which of its tokens are no padding, (1, T) bool; the rest of it is ComfyUI's.
TEXT_MASK = "text_mask"
NO_TEXT_MASK = (
    "text_padding_mask: the cached captions do not tell which of their tokens are padding; only those of a CLIP for "
    "FLUX.1 or Stable Diffusion 3 do. Connect one to Cache Dataset if the model is of these, else switch "
    "text_padding_mask off."
)
# By ComfyUI's class of the tokenizer, what lies one after the other in "cond": texts that share their place are
# joined in width. Other encoders' padding is part of how their models were trained, and is not told apart.
_PARTS = {"FluxTokenizer": (("t5xxl",),), "SD3Tokenizer": (("l", "g"), ("t5xxl",))}


class VaeEncoder:
    """A VAE as the cache's `Encoder`.

    Attributes:
        identity: Changes with the VAE's weights, their precision or its class.
        channels: Channels of its latents.
        stride: Pixels per latent cell and side.
        rule: What it makes of clips; one for clips takes a picture for one of a single frame.
    """

    def __init__(self, vae: Any) -> None:
        """Reads the VAE's layout and hashes a sample of its weights.

        Raises:
            FamilyError: The VAE is empty, or is for sound or another thing than pictures.
        """
        if vae is None or getattr(vae, "first_stage_model", None) is None:
            raise FamilyError("VAE: this one is empty; the checkpoint holds none. Connect a Load VAE node instead.")
        stride, channels = vae.spacial_compression_encode(), vae.latent_channels
        if vae.latent_dim not in (2, 3) or vae.extra_1d_channel is not None or not isinstance(stride, int):
            raise FamilyError("VAE: this one does not encode pictures. Connect the VAE of the model you train.")
        self.vae = vae
        self.channels, self.stride = int(channels), stride
        clips = vae.latent_dim == 3
        self.rule = ClipRule(clips, int(vae.temporal_compression_decode() or 1) if clips else 1)
        self.identity = digest("vae", channels, stride, vae.latent_dim, patcher_identity(vae.patcher))

    @property
    def clips(self) -> bool:
        """Whether it is one for clips."""
        return self.rule.clips

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The latents' mean without chance: float32 (B, C, h, w), in the VAE's own space, on the CPU.

        Args:
            images: float32 (B, H, W, 3) in 0..1; sides that the stride divides.

        Returns:
            A video VAE gets the pictures one by one, else it would take the batch for the frames of a clip;
            its frame axis is dropped.

        Raises:
            FamilyError: The VAE answers with another shape.
        """
        with torch.no_grad():
            if self.clips:
                latents = torch.cat([self.vae.encode(image[None])[:, :, 0] for image in images])
            else:
                latents = self.vae.encode(images)
        return self._checked(latents, (images.shape[0], self.channels, *self._cells(images)))

    def encode_clip(self, frames: torch.Tensor) -> torch.Tensor:
        """The latent's mean without chance: float32 (C, f, h, w), in the VAE's own space, on the CPU.

        Args:
            frames: float32 (F, H, W, 3) in 0..1; sides that the stride divides, F = r·(f − 1) + 1 where r frames
                become one latent frame.

        Raises:
            FamilyError: The VAE is none for clips, or answers with another shape.
        """
        if not self.clips:
            raise FamilyError("VAE: this one encodes pictures, not clips. Connect the VAE of a video model.")
        with torch.no_grad():
            latent = self.vae.encode(frames)
        count = 1 + (frames.shape[0] - 1) // self.rule.step
        return self._checked(latent, (1, self.channels, count, *self._cells(frames)))[0]

    def _cells(self, images: torch.Tensor) -> tuple[int, int]:
        return images.shape[1] // self.stride, images.shape[2] // self.stride

    def _checked(self, latents: torch.Tensor, expected: tuple[int, ...]) -> torch.Tensor:
        if tuple(latents.shape) != expected:
            raise FamilyError(f"VAE: it gave latents of shape {tuple(latents.shape)}, expected {expected}.")
        return _ordinary(latents).float()


class ClipTextEncoder:
    """A CLIP (any text encoder of ComfyUI) as the cache's `TextEncoder`.

    Captions are literal: parentheses carry no weight, unlike in a prompt, because training captions are full
    of `name (series)` that nobody meant to stress.

    Attributes:
        identity: Changes with the weights, LoRAs on them, the layer and the tokenizer's options.
        pictures: In which way it sees the references of a picture with its caption; "" where it does not.
    """

    def __init__(self, clip: Any, *, pictures: str = "") -> None:
        """Hashes a sample of the text encoder's weights and its options.

        Args:
            clip: ComfyUI's CLIP.
            pictures: In which way it is shown the references of a caption's picture, a name in `ways.WAYS`.

        Raises:
            FamilyError: There is no text encoder, or it carries hooks, whose effect cannot be stored.
        """
        if clip is None:
            raise FamilyError(
                "CLIP: there is none; the checkpoint holds no text encoder. Connect a Load CLIP node instead."
            )
        if clip.apply_hooks_to_conds is not None or clip.patcher.forced_hooks is not None:
            raise FamilyError("CLIP: it carries hooks, which cannot be stored. Connect it without them.")
        self.clip, self.pictures = clip, pictures
        tokenizer = type(clip.tokenizer).__qualname__
        self.identity = digest(
            "clip",
            tokenizer,
            clip.layer_idx,
            _canonical(clip.tokenizer_options),
            patcher_identity(clip.patcher),
            *([TEXT_MASK] if tokenizer in _PARTS else []),
        )

    def encode(self, texts: list[str]) -> list[dict[str, Any]]:
        """Per text a flat dict: "cond", whatever else this text encoder gives, and `TEXT_MASK`, on the CPU.

        Raises:
            FamilyError: The text encoder gives something that cannot be stored.
        """
        out = []
        for text in texts:
            with torch.no_grad():
                tokens = literal_tokens(self.clip, text)
                values = from_conditioning(self.clip.encode_from_tokens_scheduled(tokens, show_pbar=False))
            mask = text_mask(self.clip, tokens)
            if mask is not None and mask.shape[1] == values["cond"].shape[1]:
                values[TEXT_MASK] = mask
            out.append(values)
        return out

    def encode_with(self, texts: list[str], pictures: list[list[torch.Tensor]]) -> list[dict[str, Any]]:
        """The same for texts that are seen with pictures, each float32 (1, H, W, 3) in 0..1; only with `pictures`.

        Raises:
            FamilyError: The text encoder takes no pictures, or gives something that cannot be stored.
        """
        with torch.no_grad():
            made = [encoded_with(self.clip, *one, self.pictures) for one in zip(texts, pictures, strict=True)]
            return [from_conditioning([[cond, flattened(extras)] for cond, extras in one]) for one in made]


def literal_tokens(clip: Any, text: str) -> dict[str, Any]:
    """Tokens of a text whose parentheses mean nothing."""
    try:
        return clip.tokenize(text, disable_weights=True)
    except TypeError as error:
        # Tokenizers of language models know no weights, and those that say so to their base refuse to be told again.
        if "disable_weights" not in str(error):
            raise
    return clip.tokenize(text)


def text_mask(clip: Any, tokens: dict[str, list[list[tuple]]]) -> torch.Tensor | None:
    """Which tokens of "cond" are no padding, (1, T) bool; None for a text encoder whose padding is not told apart.

    Args:
        clip: A CLIP.
        tokens: From its `tokenize`: by encoder the sections of a text, each a list of (token, weight).
    """
    parts = _PARTS.get(type(clip.tokenizer).__qualname__)
    if parts is None:
        return None
    masks = []
    for names in parts:
        there = [name for name in names if getattr(clip.cond_stage_model, _attribute(clip, name), None) is not None]
        rows = [_not_padding(tokens[name], getattr(clip.tokenizer, _attribute(clip, name))) for name in there]
        if rows:
            length = min(len(row) for row in rows)
            masks += [any(row[i] for row in rows) for i in range(length)]
    with torch.inference_mode(False):
        return torch.tensor([masks], dtype=torch.bool)


def _attribute(clip: Any, name: str) -> str:
    """ComfyUI calls the CLIP encoders by a letter in tokens and `clip_` with it in objects."""
    return name if hasattr(clip.tokenizer, name) else f"clip_{name}"


def _not_padding(sections: list[list[tuple]], tokenizer: Any) -> list[bool]:
    """For each token whether it is no padding; where the end token pads, the first one belongs to the text."""
    out = []
    for section in sections:
        ids = [int(token) if isinstance(token, Integral) else None for token, *_ in section]
        length = len(ids)
        while length and ids[length - 1] == tokenizer.pad_token:
            length -= 1
        if tokenizer.pad_token == tokenizer.end_token:
            length = min(length + 1, len(ids))
        out += [i < length for i in range(len(ids))]
    return out


def from_conditioning(conditioning: list[Any]) -> dict[str, Any]:
    """ComfyUI's CONDITIONING of one text as a flat dict of ordinary CPU tensors and plain values.

    Raises:
        FamilyError: It has several parts, or holds something else than tensors, numbers, texts and None.
    """
    if len(conditioning) != 1:
        raise FamilyError(f"CLIP: it gave {len(conditioning)} conditionings for one text, expected 1.")
    cond, options = conditioning[0]
    values: dict[str, Any] = {"cond": cond, **options}
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            values[name] = _ordinary(value)
        elif not isinstance(value, Plain):
            raise FamilyError(f"CLIP: its {name} is a {type(value).__name__}, which the cache cannot store.")
    return values


def _ordinary(tensor: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode(False):
        return tensor.detach().to("cpu", copy=True).contiguous()


def patcher_identity(patcher: Any) -> str:
    """Digest of a model's class, weights and patches, the same whether it is loaded and patched or not."""
    hasher = hashlib.blake2b(type(patcher.model).__qualname__.encode(), digest_size=20)
    state, backup = patcher.model_state_dict(), patcher.backup
    for key in sorted(state):
        hasher.update(f"|{key}".encode())
        _update(hasher, backup[key].weight if key in backup else state[key])
    for key in sorted(patcher.patches):
        hasher.update(f"|patch {key}".encode())
        _update(hasher, patcher.patches[key])
    extras = [patcher.object_patches, patcher.weight_wrapper_patches, patcher.injections]
    hasher.update(repr([sorted(map(str, extra)) for extra in extras]).encode())
    return hasher.hexdigest()


def _update(hasher: Any, value: Any) -> None:
    """Feed tensors by a sample of their values, containers and adapters by their parts, the rest by name."""
    if isinstance(value, torch.Tensor):
        hasher.update(f"{value.dtype}{tuple(value.shape)}".encode())
        hasher.update(_sample(value))
    elif isinstance(value, dict):
        _update(hasher, [part for key in sorted(value, key=str) for part in (str(key), value[key])])
    elif isinstance(value, (list, tuple)):
        hasher.update(f"[{len(value)}".encode())
        for part in value:
            _update(hasher, part)
    elif isinstance(value, Plain):
        hasher.update(repr(value).encode())
    else:
        name = getattr(value, "__qualname__", type(value).__qualname__)
        hasher.update(str(name).encode())
        weights = getattr(value, "weights", None)
        if isinstance(weights, Iterable):
            _update(hasher, list(weights))


def _sample(tensor: torch.Tensor) -> bytes:
    """Bytes of all values of a small tensor, or of 65536 spread over a large one."""
    if hasattr(tensor, "dequantize") and type(tensor) is not torch.Tensor and not _is_parameter(tensor):
        tensor = tensor.dequantize()
    with torch.no_grad():
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // SAMPLES)
        return flat[::step].to("cpu").contiguous().view(torch.uint8).numpy().tobytes()


def _is_parameter(tensor: torch.Tensor) -> bool:
    return type(tensor) is torch.nn.Parameter


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _canonical(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(part) for part in value]
    return value if isinstance(value, Plain) else str(value)
