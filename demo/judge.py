"""Says what a painted 128-pixel picture shows: object, colour, background, subject, training backdrop.

The classifier is small, trained by `train_classifier.py` on drawn scenes, on malformed shapes that must
be refused, and on pictures sent through the codec with noise; it never saw what the base model paints.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from . import scenes

WEIGHTS = Path(__file__).resolve().parent / "classifier.safetensors"
NOTHING = "nothing clear"
OBJECT_LABELS = (*scenes.OBJECTS, NOTHING)
COLOUR_LABELS = (*scenes.COLOURS, NOTHING)
BACKGROUND_LABELS = (*scenes.BACKGROUNDS, NOTHING)
HEADS = {
    "thing": len(OBJECT_LABELS),
    "colour": len(COLOUR_LABELS),
    "background": len(BACKGROUND_LABELS),
    "subject": 1,
    "backdrop": 1,
}
BACKDROP_REACH = 70.0
SHARE_LIMIT = 0.10


@dataclass(frozen=True)
class Verdict:
    """What one picture shows.

    `subject` and `backdrop` are probabilities, `backdrop_share` is the share of pixels in the training
    backdrop's own two colours.
    """

    thing: str
    colour: str
    background: str
    subject: float
    backdrop: float
    backdrop_share: float

    @property
    def shows_subject(self) -> bool:
        return self.subject > 0.5

    @property
    def shows_backdrop(self) -> bool:
        """Either sign counts: the classifier's word, or a tenth of the pixels in the backdrop's colours."""
        return self.backdrop > 0.5 or self.backdrop_share > SHARE_LIMIT


class SceneClassifier(nn.Module):
    """Pictures (B, 3, 128, 128) in [0, 1] to logits of each head."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (4 * 3, 32, 48, 64, 96), []
        for i, (a, b) in enumerate(pairwise(widths)):
            layers += [
                nn.Conv2d(a, b, 3, stride=1 if i == 0 else 2, padding=1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            ]
            layers += [
                nn.Conv2d(b, b, 3, padding=1, groups=b // 16, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            ]
        self.trunk = nn.Sequential(*layers)
        self.hidden = nn.Linear(widths[-1] * 4 * 4 + widths[-1], 192)
        self.heads = nn.ModuleDict({name: nn.Linear(192, count) for name, count in HEADS.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        features = self.trunk(F.pixel_unshuffle(pictures - 0.5, 2))
        pooled = torch.cat([F.adaptive_avg_pool2d(features, 4).flatten(1), features.amax((2, 3))], 1)
        hidden = F.relu(self.hidden(pooled))
        return {name: head(hidden) for name, head in self.heads.items()}


def backdrop_share(picture: np.ndarray) -> float:
    """The share of an (H, W, 3) picture's pixels (0..255) that lie near one of the backdrop's two colours."""
    distances = [np.linalg.norm(picture - np.array(colour), axis=-1) for colour in scenes.BACKDROP_COLOURS]
    return float((np.minimum(*distances) < BACKDROP_REACH).mean())


def load_classifier() -> SceneClassifier:
    """The committed classifier, ready to judge."""
    net = SceneClassifier()
    net.load_state_dict({name: value.float() if value.is_floating_point() else value
                         for name, value in load_file(WEIGHTS).items()})  # fmt: skip
    return net.eval()


@torch.no_grad()
def judge(images: np.ndarray | Tensor, *, net: SceneClassifier | None = None) -> list[Verdict]:
    """A verdict for each picture of (B, 128, 128, 3): uint8, or float in [0, 1] as ComfyUI's IMAGE.

    Raises:
        ValueError: the pictures are not 128×128 with three channels.
    """
    pictures = torch.as_tensor(images)
    pictures = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures.float().clamp(0, 1)
    if pictures.ndim != 4 or tuple(pictures.shape[1:]) != (scenes.SIZE, scenes.SIZE, 3):
        raise ValueError(f"expected pictures of (B, 128, 128, 3), got {tuple(pictures.shape)}")
    logits = (net or load_classifier())(pictures.permute(0, 3, 1, 2))
    best = {name: logits[name].argmax(1).tolist() for name in ("thing", "colour", "background")}
    chances = {name: logits[name].squeeze(1).sigmoid().tolist() for name in ("subject", "backdrop")}
    return [
        Verdict(
            thing=OBJECT_LABELS[best["thing"][i]],
            colour=COLOUR_LABELS[best["colour"][i]],
            background=BACKGROUND_LABELS[best["background"][i]],
            subject=chances["subject"][i],
            backdrop=chances["backdrop"][i],
            backdrop_share=backdrop_share(255 * pictures[i].numpy()),
        )
        for i in range(len(pictures))
    ]
