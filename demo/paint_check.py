"""Paints prompts with the embedded base through ComfyUI's own nodes and counts what the judge recognises.

    python demo/paint_check.py --comfyui FOLDER [--samples 50] [--grid FILE] [--checkpoint FILE]

Measured: for each sample a (colour, object, background) is drawn from a fixed seed, every fifth from the
combinations that the base never saw; the prompt is "a COLOUR OBJECT on BACKGROUND";
CheckpointLoaderSimple, CLIPTextEncode, KSampler and VAEDecode paint it at 128 px, seed = its number. It
counts as recognised when the judge names the asked object *and* the asked colour. The exit status is 1
below 90 %. Background and whole-scene rates are printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STEPS, GUIDANCE, SAMPLER, SCHEDULER = 20, 3.0, "euler", "simple"
GATE = 0.90
SIZE = 128


def start_comfyui(folder: Path) -> None:
    """Makes ComfyUI's modules and this package importable, on the CPU.

    ComfyUI's folder comes first, because this repository has a `nodes` package of its own.
    """
    sys.argv = [sys.argv[0], "--cpu"]
    sys.path[:1] = [str(folder), str(ROOT)]
    import comfy.options

    comfy.options.enable_args_parsing()


class Painter:
    """A checkpoint loaded by ComfyUI's own loader, ready to paint prompts."""

    def __init__(self, checkpoint: Path) -> None:
        import folder_paths

        import nodes

        self.nodes = nodes
        folder_paths.add_model_folder_path("checkpoints", str(checkpoint.parent))
        self.model, self.clip, self.vae = nodes.CheckpointLoaderSimple().load_checkpoint(checkpoint.name)
        self.empty = self.words("")

    def words(self, prompt: str) -> list:
        """The conditioning of a prompt."""
        return self.nodes.CLIPTextEncode().encode(self.clip, prompt)[0]

    def paint(self, prompt: str, seed: int, *, model: object = None, count: int = 1) -> np.ndarray:
        """`count` pictures (count, 128, 128, 3), float32 in [0, 1]."""
        import torch

        latent = {"samples": torch.zeros(count, 16, SIZE // 8, SIZE // 8)}
        with torch.inference_mode():
            sampled = self.nodes.KSampler().sample(
                model or self.model, seed, STEPS, GUIDANCE, SAMPLER, SCHEDULER, self.words(prompt), self.empty, latent
            )[0]
            pictures = self.nodes.VAEDecode().decode(self.vae, sampled)[0]
        return pictures.float().clamp(0, 1).numpy()


def asked_scenes(count: int) -> list[tuple[str, str, str]]:
    """The fixed list of scenes to paint: every fifth was held out of the base's training."""
    from demo import scenes

    rng = np.random.default_rng(2024)
    seen, unseen = scenes.combinations(), scenes.combinations(held_out=True)
    pools = (unseen if i % 5 == 4 else seen for i in range(count))
    return [pool[rng.integers(len(pool))] for pool in pools]


def save_grid(pictures: list[np.ndarray], path: Path, *, columns: int = 10) -> None:
    """Writes the pictures side by side as one PNG."""
    from PIL import Image

    blank = np.zeros_like(pictures[0])
    padded = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(padded[i : i + columns], 1) for i in range(0, len(padded), columns)]
    Image.fromarray(np.rint(255 * np.concatenate(rows)).astype(np.uint8)).save(path)


def check(painter: Painter, count: int, grid: Path | None) -> dict[str, float]:
    """Paints, judges, and returns the rates."""
    from demo.judge import judge, load_classifier

    asked = asked_scenes(count)
    pictures = [painter.paint(f"a {c} {o} on {b}", seed)[0] for seed, (o, c, b) in enumerate(asked)]
    if grid:
        save_grid(pictures, grid)
    verdicts = judge(np.stack(pictures), net=load_classifier())
    hits = {name: [getattr(v, name) == a[i] for v, a in zip(verdicts, asked, strict=True)]
            for i, name in enumerate(("thing", "colour", "background"))}  # fmt: skip
    both = np.logical_and(hits["thing"], hits["colour"])
    rates = {name: float(np.mean(values)) for name, values in hits.items()}
    rates["recognised"] = float(both.mean())
    rates["recognised_unseen_combinations"] = float(both[4::5].mean())
    rates["whole_scene"] = float(np.logical_and(both, hits["background"]).mean())
    return rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, default=os.environ.get("COMFYUI_PATH"))
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--grid", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    if not arguments.comfyui:
        parser.error("say where ComfyUI is: --comfyui FOLDER or the variable COMFYUI_PATH")
    start_comfyui(Path(arguments.comfyui).resolve())
    from demo.assemble import build_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = arguments.checkpoint or build_checkpoint(Path(folder))
        rates = check(Painter(checkpoint.resolve()), arguments.samples, arguments.grid)
    sys.stdout.write(json.dumps({"samples": arguments.samples, **rates}) + "\n")
    return 0 if rates["recognised"] >= GATE else 1


if __name__ == "__main__":
    sys.exit(main())
