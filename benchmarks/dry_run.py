"""A training step at full size, counted on any machine: `python dev.py run benchmarks/dry_run.py [NAME …]`.

Every family at 1024 pixels and a text of 512 tokens, bfloat16, rank 16, its usual targets, batch 1, blocks
recomputed, AdamW; then some with a prior, preservation, routed tokens, swapped blocks, inputs of blocks offloaded,
and without recomputing.
Tensors have no data (`fake_device`), so nothing is timed. Counts go to dry_run.json, the table to docs/full_size.md.

The limit is what a step cannot do without: the forward, the gradient of its input, and the forward again where blocks
are recomputed; adapters and losses come on top.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.full_size import Case, Counting
from harness.small import small_models
from masklora.settings import OFFLOADED, LossSettings

RESULTS = Path(__file__).with_suffix(".json")
TABLE = Path(__file__).resolve().parents[1] / "docs" / "full_size.md"
PLAIN = LossSettings(prior_weight=0.0)
PRIOR = LossSettings(prior_weight=1.0, prior_probability=1.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "per block": {},
    "off": {"checkpointing": "off"},
    "prior": {"loss": PRIOR},
    "preservation": {"loss": dataclasses.replace(PLAIN, preservation_weight=1.0), "plain": True},
    "fp8": {"stored": torch.float8_e4m3fn},
    "fp8 half swapped": {"stored": torch.float8_e4m3fn, "swapped": 0.5},
    "fp8 all swapped": {"stored": torch.float8_e4m3fn, "swapped": 1.0},
    "fp8 inputs offloaded": {"stored": torch.float8_e4m3fn, "checkpointing": OFFLOADED},
    "fp8 all swapped inputs offloaded": {"stored": torch.float8_e4m3fn, "swapped": 1.0, "checkpointing": OFFLOADED},
    "routed": {"loss": dataclasses.replace(PLAIN, routes="0.75: 2..-3")},
}
# Of the size of a forward: what each of them cannot do without.
PASSES = {"per block": 3, "off": 2, "prior": 4, "preservation": 7, "fp8": 3, "routed": 3}
PASSES |= {name: 3 for name in VARIANTS if name.startswith("fp8 ")}
# Ways to keep the weights, beside bfloat16.
_WEIGHTS = ("fp8", "fp8 half swapped", "fp8 all swapped")
# Beside the first, for these models.
WIDELY = ("sdxl", "flux", "qwen_image", "z_image", "wan")
# Beside these, the large ones.
SWAPPED = ("flux", "qwen_image", "wan")


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips of a model that are counted: their size, numbers of frames, and the ways of training."""

    size: tuple[int, int]
    frames: tuple[int, ...]
    # Frames that become one latent frame.
    stride: int
    variants: tuple[str, ...]


_LARGE = ("fp8 inputs offloaded", "fp8 all swapped inputs offloaded")
CLIPS = {
    "wan": Clips((832, 480), (49, 81), 4, _LARGE),
    "wan22_5b": Clips((832, 480), (49, 81), 4, ("per block", "fp8 inputs offloaded")),
    "ltxav": Clips((768, 512), (121,), 8, ("fp8", *_LARGE)),
}
# Their conditions or networks read values of tensors, or are not made at full size without a file's.
UNCOUNTED = {
    *("anima", "boogu", "minimax_h3", "minimax_h3_pruned", "omnigen2", "pixart", "pixart_alpha"),
    *("hidream", "hunyuan_video15", "sd3"),
}
GIB, TERA = 2**30, 1e12
# Sizes of cards in GB, and the share of them that a training may take: the rest is the system's and the allocator's.
CARDS, SHARE = (8, 12, 16, 24, 32, 48, 80), 0.9


def cases(names: list[str]) -> dict[str, Case]:
    """By the row's name."""
    found = {}
    for name in (n for n in names if n not in UNCOUNTED):
        for variant, changes in VARIANTS.items():
            large = "swapped" in changes or changes.get("checkpointing") == OFFLOADED
            widely = SWAPPED if large else WIDELY
            if variant == "per block" or (name in widely and not (variant == "routed" and name == "sdxl")):
                found[f"{name}, {variant}"] = Case(name, **changes)
        if name in CLIPS:
            found |= _clip_cases(name, CLIPS[name])
    return found


def _clip_cases(name: str, clips: Clips) -> dict[str, Case]:
    return {
        f"{name} {frames} frames, {variant}": Case(
            name, size=clips.size, frames=1 + (frames - 1) // clips.stride, **VARIANTS[variant]
        )
        for frames in clips.frames
        for variant in clips.variants
    }


def row_of(case: Case) -> dict[str, Any]:
    """The figures of one training."""
    training = Counting(case)
    with training.running():
        return training.step()


def table_of(rows: dict[str, dict[str, Any]]) -> str:
    """The page docs/full_size.md."""
    lines = [
        "# Training at full size\n",
        "Counted, not timed: one training step of each model without any data, on no GPU, by "
        "`python dev.py run benchmarks/dry_run.py`. A picture of 1024×1024, a text of 512 tokens, batch 1, bfloat16, "
        f"rank 16, usual targets, AdamW; clips are of so many frames: {_sizes()}. GiB when most "
        "is in use; launches are operations that run a "
        "kernel; FLOPs beside those that the step cannot do without (forward, gradient of the input, and the forward "
        "again where blocks are recomputed); where it is more, that is the backward of attention, which makes its "
        "scores once more and so takes two and a half times its forward. Offloaded: with `checkpointing` "
        f'"per block, offloaded" in Train Masked LoRA. Not counted: {", ".join(sorted(UNCOUNTED))}.\n',
        "| training | weights | adapters, gradients, optimizer | kept for backward | work | all | beside the weights | "
        "launches | TFLOP, of the limit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(line_of(name, rows) for name in rows), "", *cards_of(rows)]) + "\n"


def _sizes() -> str:
    return ", ".join(f"{model} {clips.size[0]}×{clips.size[1]}" for model, clips in CLIPS.items())


def cards_of(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Lines of the second table: the smallest card for each model, by how its weights are kept."""
    # Of one picture the inputs of blocks take too little to make another card do.
    ways = {"bf16": "per block", **{name: name for name in VARIANTS if name in _WEIGHTS}}
    lines = [
        "## Which card trains what\n",
        "The smallest card, in GB, of which the counted training above takes at most "
        f"{SHARE:.0%}. Counted, not tried on these cards. A dash: not counted. Swapped blocks wait in main memory "
        "(`swap_blocks` in Train Masked LoRA); smaller pictures, token routing and a masked crop take less.\n",
        f"| model | {' | '.join(ways)} |",
        f"|---|{'---|' * len(ways)}",
    ]
    for model in dict.fromkeys(name.split(", ")[0] for name in rows if not name.split(", ")[0].endswith(" frames")):
        cells = [_card_for(rows.get(f"{model}, {variant}")) for variant in ways.values()]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def _card_for(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    needed = sum(row["bytes"].values())
    fitting = [card for card in CARDS if needed <= SHARE * card * GIB]
    return str(fitting[0]) if fitting else f"above {CARDS[-1]}"


def share_of_limit(name: str, rows: dict[str, dict[str, Any]]) -> float:
    """FLOPs of a row beside those of the passes that it cannot do without."""
    model, variant = name.split(", ")
    # A forward beside which the base model is not asked; routed tokens make it shorter.
    plain = rows[name] if variant == "routed" else rows.get(f"{model}, per block", rows[name])
    return rows[name]["flops"] / (PASSES[variant] * plain["flops of the forward"])


def line_of(name: str, rows: dict[str, dict[str, Any]]) -> str:
    """One row of the table."""
    row = rows[name]
    kinds = row["bytes"]
    trained = sum(kinds.get(kind, 0) for kind in ("adapters", "gradients", "optimizer"))
    total = sum(kinds.values())
    figures = kinds["weights"], trained, kinds.get("forward", 0) + kinds.get("inputs", 0), kinds["work"], total
    cells = [name, *(f"{n / GIB:.2f}" for n in (*figures, total - kinds["weights"]))]
    cells += [f"{row['launches'] / 1000:.1f} k", f"{row['flops'] / TERA:.0f}, {share_of_limit(name, rows):.2f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Count the named rows, or those of the named models, or all; the others keep the counts that they have."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    asked = sys.argv[1:]
    for name, case in cases(list(small_models())).items():
        if asked and name not in asked and name.split(", ")[0] not in asked:
            continue
        known[name] = row_of(case)
        sys.stdout.write(line_of(name, known) + "\n")
        sys.stdout.flush()
        order = list(cases(list(small_models())))
        known = dict(sorted(known.items(), key=lambda item: order.index(item[0])))
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        TABLE.write_text(table_of(known), encoding="utf-8")


if __name__ == "__main__":
    main()
