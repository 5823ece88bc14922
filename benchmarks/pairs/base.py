"""Teaches the benchmark's base model from nothing, in about a minute of one thread, and alike every time.

All weights of ComfyUI's own FLUX class learn, on pairs that are drawn anew: to keep the reference, to give its block
one of four colours, and to keep it at a word never seen. Gates begin open, so that a signal passes all blocks. Where a
thing of the picture is in the reference the network finds out by itself, from their places in its rotary tables.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.leakage import words
from benchmarks.leakage.base import sample_times
from harness.models import small_model
from masklora.autograd.saved_tensors import saved_tensor_scope
from masklora.host.model.patches import training_kernels

from . import codec, scenes
from .world import GUIDANCE, SIZES, instruct

UNKNOWN = "?"
# Of what a base is shown, by the edit's name; what is left are the colours.
KEPT, NEVER_SEEN = 0.3, 0.2
log = logging.getLogger("pairs.base")


@dataclass(frozen=True)
class Schooling:
    """How the base is taught."""

    steps: int = 600
    batch: int = 16
    rate: float = 2e-3
    seed: int = 3


@dataclass(frozen=True)
class Lesson:
    """A batch: latents (B, 16, 8, 8) of references and targets, masks (B, 8, 8), texts (B, 5, 64), pooled (B, 64)."""

    references: Tensor
    targets: Tensor
    masks: Tensor
    texts: Tensor
    pooled: Tensor


def draw_lesson(rng: np.random.Generator, size: int, edit: str = "") -> Lesson:
    """So many pairs, all of one edit if that is named."""
    pairs, told = [], []
    for _ in range(size):
        name = edit or str(rng.choice([scenes.KEEP, UNKNOWN, *scenes.COLOURS], p=_odds()))
        pairs.append(scenes.draw_pair(rng, scenes.KEEP if name == UNKNOWN else name))
        ids = words.word_ids(instruct("unknown" if name == UNKNOWN else name))
        told.append(codec.instruction([*ids[:-1], int(rng.integers(2**32))] if name == UNKNOWN else ids))
    texts, pooled = (torch.cat(parts) for parts in zip(*told, strict=True))
    references, targets = (np.stack([getattr(pair, name) for pair in pairs]) for name in ("reference", "target"))
    return Lesson(
        references=codec.to_model_space(references),
        targets=codec.to_model_space(targets),
        masks=torch.as_tensor(np.stack([pair.mask for pair in pairs])),
        texts=texts,
        pooled=pooled,
    )


def _odds() -> list[float]:
    each = (1 - KEPT - NEVER_SEEN) / len(scenes.COLOURS)
    return [KEPT, NEVER_SEEN, *[each] * len(scenes.COLOURS)]


def network() -> nn.Module:
    """ComfyUI's FLUX, small, with weights to begin from and to be trained."""
    torch.manual_seed(2)
    net = small_model("flux", **SIZES).model.diffusion_model.requires_grad_(True)
    for name, value in net.named_parameters():
        if value.ndim > 1:
            nn.init.normal_(value, std=0.02 if "mod" in name else 0.7 / value[0].numel() ** 0.5)
        else:
            nn.init.constant_(value, float("norm" in name))
    nn.init.normal_(net.final_layer.linear.weight, std=0.02)
    # The base is drawn from and trained at one guidance, and need not learn of others.
    nn.init.zeros_(net.guidance_in.out_layer.weight)
    for block in net.double_blocks:
        _open(block.img_mod.lin, 2, 5)
        _open(block.txt_mod.lin, 2, 5)
    for block in net.single_blocks:
        _open(block.modulation.lin, 2)
    return net


@torch.no_grad()
def _open(modulation: nn.Linear, *gates: int) -> None:
    """Let all pass these of a modulation's parts, its gates."""
    for part in gates:
        modulation.bias[part * SIZES["hidden"] : (part + 1) * SIZES["hidden"]] = 1


def _plain_attention(function: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, **options: Any) -> Tensor:
    """Attention written out, of (B, heads, N, D): on a processor that is quicker backwards than torch's fused one."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def clean(net: nn.Module, lesson: Lesson, noise: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """The velocity that the network answers at noise levels (B,), and the latents that follow from it."""
    level = levels.view(-1, 1, 1, 1)
    noisy = (1 - level) * lesson.targets + level * noise
    velocity = net(
        noisy,
        levels,
        lesson.texts,
        y=lesson.pooled,
        guidance=torch.full_like(levels, GUIDANCE),
        ref_latents=[lesson.references],
        transformer_options={"optimized_attention_override": _plain_attention},
    )
    return velocity, noisy - level * velocity


def teach(schooling: Schooling) -> nn.Module:
    """The network after its lessons."""
    net, rng = network(), np.random.default_rng(schooling.seed)
    torch.manual_seed(schooling.seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=schooling.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    # Of the sixteen channels three carry the picture.
    weight = torch.tensor([4.0] * codec.USED + [0.25] * (codec.CHANNELS - codec.USED)).view(-1, 1, 1)
    with training_kernels():
        for step in range(schooling.steps):
            rise, fall = (step + 1) / 50, 2 * (1 - step / schooling.steps)
            optimizer.param_groups[0]["lr"] = schooling.rate * min(1.0, rise, max(0.02, fall))
            lesson = draw_lesson(rng, schooling.batch)
            noise = torch.randn_like(lesson.targets)
            # The blocks write in place to what autograd keeps.
            with saved_tensor_scope(mutates=True):
                velocity, _ = clean(net, lesson, noise, sample_times(schooling.batch))
                loss = ((velocity - (noise - lesson.targets)).square() * weight).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            if (step + 1) % 100 == 0:
                log.info("step %d loss %.3f", step + 1, loss.item())
    return net


@torch.no_grad()
def errors(net: nn.Module, edit: str, *, size: int = 64, level: float = 1.0) -> tuple[float, float]:
    """Mean square in the network's space, in and outside of the block, of what it takes pure noise for.

    Noise has 1 there. `level` is the noise's.
    """
    lesson, noise = draw_lesson(np.random.default_rng(5), size, edit), torch.Generator().manual_seed(5)
    shape = lesson.targets.shape
    with training_kernels():
        _, found = clean(net, lesson, torch.randn(shape, generator=noise), torch.full((size,), level))
    wrong = (found - lesson.targets)[:, : codec.USED].square().mean(1)
    inside, outside = lesson.masks, 1 - lesson.masks
    return float((wrong * inside).sum() / inside.sum()), float((wrong * outside).sum() / outside.sum())


def made(schooling: Schooling, file: Path | None = None) -> dict[str, Tensor]:
    """The base's weights, from the file where there is one, else taught, and kept there if one is named."""
    if file is not None and file.is_file():
        return load_file(file)
    state = {name: value.detach().contiguous() for name, value in teach(schooling).state_dict().items()}
    if file is not None:
        save_file(state, file)
    return state
