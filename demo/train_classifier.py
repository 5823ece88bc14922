"""Trains the judge and writes `demo/classifier.safetensors`.

`python -m demo.train_classifier --minutes 5`, from the repository's root, after `demo.train_codec`. A
fifth of its pictures are malformed on purpose (torn, merged, bent, recoloured) and labelled as nothing
clear, so that a lumpy shape does not count as recognised.
"""

from __future__ import annotations

import argparse
import logging
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from . import scenes
from .judge import BACKGROUND_LABELS, COLOUR_LABELS, OBJECT_LABELS, WEIGHTS, SceneClassifier
from .nets import SceneCodec
from .train_base import load_codec

log = logging.getLogger("demo.classifier")
Labels = tuple[int, int, int, int, int]


def bend(picture: np.ndarray, rng: np.random.Generator, reach: float) -> np.ndarray:
    """The picture displaced by a smooth random field of about `reach` pixels."""
    field = torch.from_numpy(rng.normal(0, reach, (1, 2, 7, 7))).float()
    field = F.interpolate(field, size=picture.shape[:2], mode="bicubic", align_corners=True)
    base = F.affine_grid(torch.eye(2, 3)[None], (1, 3, *picture.shape[:2]), align_corners=False)
    grid = base + field.permute(0, 2, 3, 1) * 2 / scenes.SIZE
    source = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    bent = F.grid_sample(source, grid, padding_mode="border", align_corners=False)
    return bent[0].permute(1, 2, 0).numpy()


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[rng.integers(len(names))]


def _any_ground(rng: np.random.Generator) -> str:
    return scenes.BACKDROP if rng.random() < 0.2 else _pick(rng, scenes.BACKGROUNDS)


def _labels(thing: str, colour: str, ground: str, *, subject: bool) -> Labels:
    def place(name: str, table: tuple[str, ...]) -> int:
        return table.index(name) if name in table else len(table) - 1

    return (
        place(thing, OBJECT_LABELS),
        place(colour, COLOUR_LABELS),
        place(ground, BACKGROUND_LABELS),
        int(subject),
        int(ground == scenes.BACKDROP),
    )


def malformed_mask(rng: np.random.Generator) -> np.ndarray:
    """A figure that is none of the objects: two torn together, one badly bent, one cut off, or a blob."""
    pose = scenes.random_pose(rng)
    kind = rng.integers(4)
    first, second = rng.choice(len(scenes.OBJECTS), 2, replace=False)
    mask = scenes.coverage(scenes.outlines(scenes.OBJECTS[first]), pose)
    if kind == 0:
        other = scenes.coverage(scenes.outlines(scenes.OBJECTS[second]), pose)
        turn = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[: scenes.SIZE, : scenes.SIZE]
        side = (x - pose.x) * np.cos(turn) + (y - pose.y) * np.sin(turn) > 0
        return np.where(side, mask, other).astype(np.float32)
    if kind == 1:
        return np.clip(bend(mask[..., None].repeat(3, 2), rng, rng.uniform(9, 14))[..., 0], 0, 1)
    if kind == 2:
        turn = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[: scenes.SIZE, : scenes.SIZE]
        side = (x - pose.x) * np.cos(turn) + (y - pose.y) * np.sin(turn) > rng.uniform(-6, 8)
        return (mask * side).astype(np.float32)
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    waves = sum(rng.normal(0, 0.16) * np.cos(n * angle + rng.uniform(0, 6)) for n in (2, 3, 4, 5))
    outline = np.stack([np.cos(angle), np.sin(angle)], 1) * (0.8 + waves)[:, None]
    return scenes.coverage([(outline, 1)], pose)


def malformed_subject(rng: np.random.Generator, ground: str) -> np.ndarray:
    """Something that must not pass for the subject: parts missing, other colours, or badly bent."""
    pose, kind = scenes.random_pose(rng), rng.integers(3)
    colours = {name: np.array(colour) for name, colour in scenes.SUBJECT_COLOURS.items()}
    if kind == 0:
        for name in ("top", "bottom"):
            colours[name] = np.array(scenes.COLOURS[_pick(rng, tuple(scenes.COLOURS))])
    parts = scenes.subject_parts()
    if kind == 1:
        parts = [part for part in parts if part[1] in _pick(rng, (("top",), ("bottom",), ("eye", "pupil")))]
    picture = scenes.draw_background(rng, ground)
    for points, name in parts:
        cover = scenes.coverage([(points, 1)], pose)[..., None]
        picture = picture + cover * (colours[name] - picture)
    return bend(picture, rng, rng.uniform(12, 17)) if kind == 2 else picture


def draw_example(rng: np.random.Generator) -> tuple[np.ndarray, Labels]:
    """One picture (128, 128, 3) float32 in 0..255 and its labels."""
    draw, ground = rng.random(), _any_ground(rng)
    thing, colour = _pick(rng, scenes.OBJECTS), _pick(rng, tuple(scenes.COLOURS))
    if draw < 0.50:
        scene, labels = (
            scenes.draw_scene(rng, thing, colour, ground),
            _labels(thing, colour, ground, subject=False),
        )
        picture = scene.image.astype(np.float32)
    elif draw < 0.70:
        picture = scenes.draw_subject(rng, ground).image.astype(np.float32)
        labels = _labels("", "", ground, subject=True)
    elif draw < 0.76:
        picture, labels = scenes.draw_background(rng, ground), _labels("", "", ground, subject=False)
    elif draw < 0.82:
        picture, labels = malformed_subject(rng, ground), _labels("", "", ground, subject=False)
        return np.clip(picture, 0, 255).astype(np.float32), labels
    else:
        mask = malformed_mask(rng)[..., None]
        picture = scenes.draw_background(rng, ground)
        picture = picture + mask * (np.array(scenes.COLOURS[colour], np.float32) - picture)
        labels = _labels("", colour, ground, subject=False)
    if rng.random() < 0.5:
        picture = bend(picture, rng, rng.uniform(0, 4.5 if labels[3] else 2.2))
    return np.clip(picture * rng.uniform(0.93, 1.07) + rng.uniform(-8, 8, 3), 0, 255).astype(np.float32), labels


@torch.no_grad()
def roughen(pictures: torch.Tensor, codec: SceneCodec, rng: np.random.Generator) -> torch.Tensor:
    """A quarter of a batch sent through the codec with noise, the rest blurred at times, all noisy."""
    few = len(pictures) // 4
    latents = codec.encode(pictures[:few])
    passed = codec.decode(latents + torch.randn_like(latents) * torch.rand(few, 1, 1, 1) * 0.35).clamp(0, 1)
    rest = pictures[few:]
    if rng.random() < 0.5:
        rest = F.avg_pool2d(F.pad(rest, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    both = torch.cat([passed, rest])
    return (both + torch.randn_like(both) * rng.uniform(0, 0.03)).clamp(0, 1)


def make_batch(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (B, 3, 128, 128) in [0, 1] and labels (B, 5)."""
    examples = [draw_example(rng) for _ in range(count)]
    pictures = torch.from_numpy(np.stack([picture for picture, _ in examples])).permute(0, 3, 1, 2) / 255
    return pictures.contiguous(), torch.tensor([labels for _, labels in examples])


def head_losses(logits: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the three choices plus the two yes-or-no answers."""
    loss = sum(F.cross_entropy(logits[name], labels[:, i]) for i, name in enumerate(("thing", "colour", "background")))
    for i, name in ((3, "subject"), (4, "backdrop")):
        loss = loss + F.binary_cross_entropy_with_logits(logits[name].squeeze(1), labels[:, i].float())
    return loss


def accuracy(net: SceneClassifier, pictures: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """The share of right answers of each head."""
    with torch.no_grad():
        logits = net.eval()(pictures)
    net.train()
    right = {name: logits[name].argmax(1) == labels[:, i] for i, name in enumerate(("thing", "colour", "background"))}
    right |= {
        name: (logits[name].squeeze(1) > 0) == (labels[:, i] > 0) for i, name in ((3, "subject"), (4, "backdrop"))
    }
    return {name: round(hits.float().mean().item(), 3) for name, hits in right.items()}


def train(minutes: float, *, batch: int = 32, rate: float = 2e-3) -> SceneClassifier:
    """A classifier trained for so many minutes of processor time on ever new pictures."""
    rng = np.random.default_rng(7)
    torch.manual_seed(7)
    codec = load_codec()
    net = SceneClassifier()
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.02)
    held = make_batch(np.random.default_rng(99), 256)
    held = (roughen(held[0], codec, np.random.default_rng(98)), held[1])
    start, step = time.process_time(), 0
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 30) * max(0.01, 1 - done)
        pictures, labels = make_batch(rng, batch)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(roughen(pictures, codec, rng))
        loss = head_losses({name: value.float() for name, value in logits.items()}, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        if step % 100 == 0:
            log.info("judge %3.0f %% step %d loss %.3f %s", 100 * done, step, loss.item(), accuracy(net, *held))
    log.info("judge: step %d, on drawn pictures never trained on %s", step, accuracy(net, *held))
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    net = train(arguments.minutes)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in net.state_dict().items()}
    save_file(halves, WEIGHTS)


if __name__ == "__main__":
    main()
