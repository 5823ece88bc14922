"""The parts of the demo that need torch and pictures; runs in the host's interpreter.

`python -m devtools.hostside TASK`, from the repository's root: JSON on stdin, one JSON line on stdout.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLUMNS = 6
CELL = 128
GAP = 4
LABEL = 16
STRIPE = 5


def prepare(job):
    """Builds the checkpoint; its path, the prompts of each seed, and how the base model is sampled."""
    from demo import paint_check, scenes
    from demo.assemble import build_checkpoint

    places = ["", *(f" on {background}" for background in scenes.BACKGROUNDS)]
    return {
        "checkpoint": str(build_checkpoint(Path(job["folder"]))),
        "prompts": [f"a {scenes.TRIGGER}{places[seed % len(places)]}" for seed in range(job["seeds"])],
        "sampling": {
            "size": scenes.SIZE,
            "steps": paint_check.STEPS,
            "cfg": paint_check.GUIDANCE,
            "sampler_name": paint_check.SAMPLER,
            "scheduler": paint_check.SCHEDULER,
        },
    }


def compare(job):
    """Writes the side-by-side picture; its path and the judged numbers as lines of text."""
    base, lora = ([np.asarray(Image.open(path).convert("RGB")) for path in job[name]] for name in ("base", "lora"))
    rows = [
        ("training pictures; what the mask ignores is striped", training_pictures(Path(job["training"]))),
        ("base model, seeds 0 to 5", base),
        ("with the LoRA, same seeds and prompts", lora),
    ]
    side_by_side(rows).save(job["picture"])
    return {"picture": job["picture"], "numbers": judged(base, lora) if job["judged"] else []}


def training_pictures(folder):
    """The first pictures with alpha of a folder, dark stripes over their ignored part."""
    out = []
    for path in sorted(folder.glob("*.png"))[:COLUMNS]:
        pixels = np.asarray(Image.open(path).convert("RGBA")).astype(np.float32)
        striped = np.indices(pixels.shape[:2]).sum(0) // STRIPE % 2
        darkness = striped[..., None] * 0.75 * (1 - pixels[..., 3:] / 255)
        out.append(np.rint((1 - darkness) * pixels[..., :3]).astype(np.uint8))
    return out


def side_by_side(rows):
    """One picture: a labelled row for each (label, pictures)."""
    height = LABEL + CELL + GAP
    sheet = Image.new("RGB", (COLUMNS * (CELL + GAP) + GAP, len(rows) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (label, pictures) in enumerate(rows):
        top = GAP + number * height
        draw.text((GAP, top), label, fill="black")
        for column, picture in enumerate(pictures[:COLUMNS]):
            small = Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(small, (GAP + column * (CELL + GAP), top + LABEL))
    return sheet


def judged(base, lora):
    """How often the judge sees the subject and the training backdrop, in words."""
    from demo.judge import judge, load_classifier

    net = load_classifier()
    lines = []
    for name, pictures in (("base", base), ("LoRA", lora)):
        verdicts = judge(np.stack(pictures), net=net)
        subject = sum(verdict.shows_subject for verdict in verdicts) / len(verdicts)
        backdrop = sum(verdict.shows_backdrop for verdict in verdicts) / len(verdicts)
        what = f"subject recognised {subject:.0%}, training background unasked {backdrop:.0%}"
        lines.append(f"{name}, {len(verdicts)} seeds: {what}")
    return lines


TASKS = {"prepare": prepare, "compare": compare}

if __name__ == "__main__":
    answer = TASKS[sys.argv[1]](json.load(sys.stdin))
    sys.stdout.write(json.dumps(answer) + "\n")
