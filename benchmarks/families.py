"""Measures every small model and writes the table of families: `python dev.py run benchmarks/families.py [NAME …]`.

The numbers go to families.json, the table to docs/families.md.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import comfy.lora
import safetensors.torch
import torch

from benchmarks.against_core import LEVELS, SQUARE, AtLevel
from benchmarks.gradients import MODES, measure
from harness.diffusers_models import diffusers_models, off_by, outcomes
from harness.diffusers_models.loading import formats_in_diffusers
from harness.models import small_model, small_side, small_text
from harness.small import small_models
from harness.training import make_cache, make_request
from masklora.adapters import select_targets
from masklora.errors import AdapterError
from masklora.host.exporting import LoraTensors, export_lora
from masklora.host.families import Family, families, find_family
from masklora.host.model.trainable import TrainableModel
from masklora.host.training import train_lora
from masklora.settings import AdapterSettings, ExportSettings
from masklora.training.job import Hooks

RESULTS = Path(__file__).with_name("families.json")
TABLE = Path(__file__).resolve().parents[1] / "docs" / "families.md"


COLUMNS = (
    *("model", "core", "diffusers", "gradients", "batch", "texts"),
    *("loads in ComfyUI", "loads in diffusers", "tokens", "full size"),
)
# Small models of no family, by what people call them; each is a test of test_unknown_models.py.
BEHIND_THE_SWITCH = {
    "lens": "Lens",
    "hunyuan_dit": "Hunyuan-DiT",
    "pixeldit": "PixelDiT",
    "ssd1b": "SSD-1B",
    "vega": "Segmind Vega",
    "koala": "KOALA 700M",
    "sdxl_refiner": "SDXL Refiner",
    "cogvideox": "CogVideoX",
    "mochi": "Mochi",
    "chroma_radiance": "Chroma Radiance",
    "z_image_pixel": "Z-Image in pixel space",
}
# By what people call them: the reason.
CANNOT = {
    "HiDream-O1": "its noise is 8 times as strong as that of other models, and this pack trains with strength 1 only",
    "Cosmos 1": "it predicts the picture out of noise levels of its own (EDM), neither noise, v nor flow",
    "Stable Cascade": "ComfyUI tells its network of the noise in a way of its own",
}


def row_of(name: str) -> dict[str, Any]:
    """What is known of one small model."""
    config, full = small_models()[name].full_network()
    family = find_family(config, full)
    return {
        "model": name,
        "title": family.title,
        "configuration": config,
        "prediction apart": max(AtLevel(name, level).prediction_apart() for level in LEVELS),
        "target apart": max(AtLevel(name, level).target_apart() for level in LEVELS),
        **{f"gradients, {targets}": _gradients(name, targets) for targets in ("default", "all")},
        "together apart": _together(name),
        "formats": _formats(name),
        **in_diffusers(name),
        "tokens": family.has_tokens,
        **_full_size(full, family),
    }


def _gradients(name: str, targets: str) -> float:
    """The largest relative error of a checkpointing mode in float64 against plain autograd."""
    found = measure(name, dtype=torch.float64, targets=targets, differences=False)
    return max(found[f"{mode}: against plain autograd"] for mode in MODES)


@torch.no_grad()
def _together(name: str) -> float:
    """How far two samples together lie from each by itself, relative."""
    trainable = TrainableModel(small_model(name))
    generator = torch.Generator().manual_seed(2)
    grid = [small_side(trainable.family)] * 2
    noisy, u = torch.randn(2, trainable.channels, *grid, generator=generator), torch.tensor([0.3, 0.8])
    text = trainable.collate([small_text(name, tokens=20, seed=s) for s in (0, 1)], [SQUARE] * 2, noisy.shape[1:])
    both = trainable.denoise(noisy, u, text)
    alone = torch.cat([trainable.denoise(noisy[i : i + 1], u[i : i + 1], text[i : i + 1]) for i in (0, 1)])
    return float((both - alone).norm() / alone.norm())


def _formats(name: str) -> list[str]:
    """The formats in which a LoRA of three steps is written, all of which ComfyUI loads whole."""
    formats = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        request = make_request(name, make_cache(name))
        trained = train_lora(request, runs=Path(folder), hooks=Hooks(), report=lambda told: None)
        for file_format in ("comfyui", "diffusers"):
            try:
                settings = ExportSettings(format=file_format, dtype="float32")
                (path,) = export_lora(LoraTensors(trained), Path(folder) / file_format, settings)
            except AdapterError:
                continue
            known = comfy.lora.model_lora_keys_unet(request.model.model, {})
            patches = comfy.lora.load_lora(safetensors.torch.load_file(path), known)
            changed = {key[0] if isinstance(key, tuple) else key for key in patches}
            assert len(changed) == len(trained.factors), f"{name}: ComfyUI loads {len(changed)} layers of {file_format}"
            formats.append(file_format)
    return formats


def in_diffusers(name: str) -> dict[str, Any]:
    """How far our prediction lies from that of diffusers' network, None where it has none, and what it loads."""
    theirs = diffusers_models().get(name)
    if theirs is None:
        return {"diffusers apart": None, "formats in diffusers": []}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False):
        formats = formats_in_diffusers(name, theirs, Path(folder))
        answers = outcomes(name)[:2] if theirs.predict else None
    apart = off_by(answers[0].pred, answers[1].pred) if answers else None
    return {"diffusers apart": apart, "formats in diffusers": formats}


def _full_size(network: torch.nn.Module, family: Family) -> dict[str, Any]:
    """How large a real model is, and the LoRA that the family's defaults make for it."""
    settings = AdapterSettings(rank=family.defaults.rank)
    targets = select_targets(network, settings, pattern=family.targets["default"])
    shapes = [network.get_submodule(path).weight.shape for path in targets]
    numbers = sum(settings.rank * (shape[0] + shape[1:].numel()) for shape in shapes)
    return {
        "billions": sum(p.numel() for p in network.parameters()) / 1e9,
        "layers": len(targets),
        "rank": settings.rank,
        "megabytes": 2 * numbers / 1e6,
    }


def table_of(rows: list[dict[str, Any]]) -> str:
    """The page docs/families.md."""
    lines = [
        "# Families\n",
        "What each family of models was measured with, on small models of ComfyUI's own classes with random weights: "
        "`python dev.py run benchmarks/families.py`. Errors are relative. Every yes is a test.\n",
        "- **core**: the clean latent of our output against the one that ComfyUI samples with, at five noise levels; "
        "and where the network answers with our target.",
        "- **gradients**: float64, usual layers and all of them, the worst way of checkpointing against plain "
        "autograd on ComfyUI's own call.",
        "- **diffusers**: our raw prediction against that of diffusers' own network with the same weights, called as "
        "its pipeline does; – where it has none, or reads what ours is not given.",
        "- **batch**: two samples together against each by itself.",
        "- **texts**: what samples of a batch do whose texts differ in length: they are repeated or filled up, which "
        "attention does not see, to a common length, or run one by one. Texts that a network has "
        "put through layers of its own are equally long.",
        "- **loads**: the formats of Export LoRA that ComfyUI, and diffusers' own loader, take whole, with the same "
        "change of every weight.",
        "- **tokens**: attention mask and token routing act on it.",
        "- **full size**: a real model's weights, and the LoRA that the family's defaults make, in 16 bits.\n",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    lines += [measured(row) for row in rows]
    lines.append("\n## Defaults\n")
    lines.append("| family | rate | rank, alpha | steps | noise levels | source |")
    lines.append("|---|---|---|---|---|---|")
    lines += [defaults(family) for family in families()]
    return "\n".join([*lines, *without_a_family()]) + "\n"


def without_a_family() -> list[str]:
    """The lines on models that no family knows."""
    return [
        "\n## Models without a family\n",
        "With `unknown_model` switched on in Train Masked LoRA these train too, with targets and defaults that no one "
        "has tried for them, and without attention masks and token routing. Their small models were put through the "
        "same comparison with plain autograd (the last three in float32, which their networks ask for, else in "
        "float64), and ComfyUI loads what is written for them whole:\n",
        ", ".join(BEHIND_THE_SWITCH.values()) + ".\n",
        "CogVideoX and Mochi learn clips too, with a mask for each frame: after the first, 4 frames of CogVideoX, and "
        "6 of Mochi, become one of the latent. KSampler draws only noise with CogVideoX unless ModelSamplingDiscrete, "
        "with `v_prediction` and `zsnr`, stands before it; sample pictures are drawn in that way.\n",
        "These cannot be trained, and an error says so:\n",
        *(f"- **{title}**: {reason}." for title, reason in CANNOT.items()),
        "\nAny other model that ComfyUI loads was not tried.",
    ]


def measured(row: dict[str, Any]) -> str:
    """One model's line of the first table."""
    cells = [
        f"{row['title']} (`{row['model']}`)",
        f"{row['prediction apart']:.0e}, {row['target apart']:.0e}",
        "–" if row["diffusers apart"] is None else f"{row['diffusers apart']:.0e}",
        f"{row['gradients, default']:.0e}, {row['gradients, all']:.0e}",
        f"{row['together apart']:.0e}",
        texts_of(row["model"]),
        ", ".join(row["formats"]),
        ", ".join(row["formats in diffusers"]) or "–",
        "yes" if row["tokens"] else "no",
        f"{row['billions']:.1f} B; {row['layers']} layers, rank {row['rank']}: {row['megabytes']:.0f} MB",
    ]
    return f"| {' | '.join(cells)} |"


def texts_of(name: str) -> str:
    """What samples of a small model's family do whose texts differ in length."""
    (family,) = (family for family in families() if family.name == small_models()[name].family)
    if family.text_repeats or family.text_fills:
        return "repeated" if family.text_repeats else "filled"
    if family.text_adapter:
        return "equally long"
    return "alone" if family.alone else "one by one"


def defaults(family: Family) -> str:
    """One family's line of the second."""
    d = family.defaults
    usual = {f.name: f.default for f in dataclasses.fields(d)}
    levels = [d.timestep_sampling]
    levels += [
        f"{name.removeprefix('timestep_')} {getattr(d, name):g}"
        for name in ("timestep_mean", "timestep_std", "timestep_shift", "timestep_min", "timestep_max")
        if getattr(d, name) != usual[name]
    ]
    cells = [family.title, f"{d.learning_rate:g}", f"{d.rank}, {d.alpha:g}", str(d.steps), ", ".join(levels), d.source]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure the named models, or all; the others keep the numbers that they have."""
    wanted = sys.argv[1:] or list(small_models())
    known = {row["model"]: row for row in json.loads(RESULTS.read_text("utf-8"))} if RESULTS.exists() else {}
    for name in wanted:
        known[name] = row_of(name)
        sys.stdout.write(json.dumps(known[name]) + "\n")
        sys.stdout.flush()
    rows = [known[name] for name in small_models() if name in known]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(table_of(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
