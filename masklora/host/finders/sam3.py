"""Masks of what words name, with ComfyUI's own SAM 3 through its MODEL and CLIP.

ComfyUI's text path takes a comma for the next phrase, drops brackets and finds one thing a phrase unless it
ends in `:N`. Here each phrase is encoded exactly as typed and told apart from how many things are wanted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import cv2
import numpy as np
import torch
from comfy.text_encoders.sam3_clip import SAM3ClipModelWrapper

import nodes

from ...errors import ConfigError, FamilyError
from ...generators.clips import parse_key_frames
from ...generators.finding import Finding, Picture, Things
from ...generators.phrases import check_phrases, short, split_phrases
from ...settings import check, ranged
from .borrowed import as_image, silent_progress, unload

# SAM 3 itself looks at 1008×1008 and answers with masks of 288×288 for 200 candidates, all of which ComfyUI
# scales to the picture before it drops most: at this size they take 1.9 GB at most.
WORKING_SIDE = 1536
# Larger than any number of candidates.
EVERY_INSTANCE = 1_000_000
SCORES_SHOWN = 5
NAME = "SAM3_Detect"
ADVICE = "Load sam3.1_multiplex_fp16.safetensors with Load Checkpoint and connect its MODEL and CLIP."


@dataclass(frozen=True)
class TextSettings:
    """What is searched for and how.

    Attributes:
        phrases: One phrase a line; what any of them finds is in the mask.
        exclude: One phrase a line; what these find is taken out again.
        threshold: Least score of a finding, 0..1.
        instances: How many findings of a phrase count at most, best first; 0 = all.
        refine: How often each finding's outline is refined, 0..5.
        key_frames: Numbers of a clip's frames that are searched, counted from 0.
    """

    phrases: str = ""
    exclude: str = ""
    threshold: float = ranged(0.5, 0.0, 1.0)
    instances: int = ranged(0, 0, 200)
    refine: int = ranged(2, 0, 5)
    key_frames: str = "0"


def check_text(settings: TextSettings) -> TextSettings:
    """`settings` if they are usable, else a `ConfigError` that names the widget."""
    check_phrases(*_phrases(settings))
    parse_key_frames(settings.key_frames)
    return check(settings)


@dataclass(frozen=True, eq=False)
class Found:
    """What one phrase found in one picture: masks bool (n, h, w) at the working size, and scores, best first."""

    phrase: str
    masks: np.ndarray
    scores: tuple[float, ...]

    @property
    def note(self) -> str:
        """`2 × cat (0.91, 0.80)`, or `no cat`."""
        if not self.scores:
            return f"no {self.phrase}{_hint(self.phrase)}"
        more = ", …" if len(self.scores) > SCORES_SHOWN else ""
        listed = ", ".join(f"{score:.2f}" for score in self.scores[:SCORES_SHOWN])
        return f"{len(self.scores)} × {self.phrase} ({listed}{more})"


def _hint(phrase: str) -> str:
    """Advice where a phrase is written as ComfyUI's own node would want it."""
    if "," in phrase:
        return " (searched as one phrase: write one per line to search for several)"
    if re.search(r":\s*\d+$", phrase):
        return " (searched as typed: how many findings count is set by instances)"
    return ""


class TextMasks:
    """SAM 3 as a generator: call it with a picture; `close` takes the models off the compute device.

    The text encoder runs once per phrase, when the first picture comes; a run without pictures to mask loads
    nothing.
    """

    def __init__(
        self, model: Any, clip: Any, settings: TextSettings, *, check_cancel: Callable[[], None] = lambda: None
    ) -> None:
        """Checks the settings and both sockets, without running anything.

        Raises:
            ConfigError: A setting is out of range, no phrase is given, or one is too long.
            FamilyError: MODEL or CLIP is not SAM 3's, or ComfyUI is too old to have its node.
        """
        self.settings = check_text(settings)
        self._model, self._clip = _check_sockets(model, clip)
        self._check_cancel = check_cancel
        self._wanted, self._unwanted = _phrases(settings)
        self._tokens = {
            phrase: _tokenize(clip, phrase, widget=widget)
            for widget, phrases in (("phrases", self._wanted), ("exclude", self._unwanted))
            for phrase in phrases
        }
        self._encoded: dict[str, list] = {}

    def __call__(self, picture: Picture) -> Finding:
        """The union of what the phrases find without what the excluded ones find; the mask is black or white.

        Returns:
            No mask where the phrases find nothing, or nothing that is not excluded; the note says which.
        """
        image = as_image(picture.rgb, longest=WORKING_SIDE)
        found = [self._search(image, phrase) for phrase in self._wanted]
        wanted = np.concatenate([one.masks for one in found])
        union = wanted.any(axis=0)
        note = "; ".join(one.note for one in found)
        if not union.any():
            drawn = any(one.scores for one in found)
            return Finding(None, f"{note}; no pixel lies in their outlines" if drawn else note)
        removed = [self._search(image, phrase) for phrase in self._unwanted]
        unwanted = np.concatenate([wanted[:0], *(one.masks for one in removed)])
        if removed:
            note += "; excluded: " + "; ".join(one.note for one in removed)
            union = union & ~unwanted.any(axis=0)
        if not union.any():
            return Finding(None, f"{note}; all of it is excluded")
        return Finding(at_size(union, picture.rgb.shape[:2]), note, Things(wanted, unwanted))

    def close(self) -> None:
        """Frees the compute device; the generator can be called again, which loads the models again."""
        unload(self._model, self._clip.patcher)

    def _search(self, image: torch.Tensor, phrase: str) -> Found:
        self._check_cancel()
        with torch.inference_mode(), silent_progress():
            if phrase not in self._encoded:
                self._encoded[phrase] = _encode(self._clip, self._tokens[phrase], self.settings.instances)
            answer = nodes.NODE_CLASS_MAPPINGS[NAME].execute(
                model=self._model,
                image=image,
                conditioning=self._encoded[phrase],
                threshold=self.settings.threshold,
                refine_iterations=self.settings.refine,
                individual_masks=True,
            )
        masks, boxes = answer.result
        scores = tuple(float(box["score"]) for box in boxes[0])
        return Found(phrase, (masks > 0).cpu().numpy(), scores)


def _phrases(settings: TextSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is searched for and what is excluded."""
    phrases, exclude = (split_phrases(getattr(settings, widget), widget=widget) for widget in ("phrases", "exclude"))
    return phrases, exclude


def check_model(model: Any) -> None:
    """Nothing if `model` is a SAM 3 that this ComfyUI can run; else raises `FamilyError`."""
    if NAME not in nodes.NODE_CLASS_MAPPINGS:
        raise FamilyError("This ComfyUI has no SAM 3 nodes. Update ComfyUI to 0.30 or later.")
    network = getattr(model, "model", None)
    if not isinstance(network, comfy.model_base.SAM3):
        got = "nothing" if model is None else type(network if network is not None else model).__name__
        raise FamilyError(f"model: expected SAM 3, got {got}. {ADVICE}")


def _check_sockets(model: Any, clip: Any) -> tuple[Any, Any]:
    check_model(model)
    encoder = getattr(clip, "cond_stage_model", None)
    if not isinstance(encoder, SAM3ClipModelWrapper):
        got = "nothing" if clip is None else type(encoder if encoder is not None else clip).__name__
        raise FamilyError(f"clip: expected the text encoder of the SAM 3 checkpoint, got {got}. {ADVICE}")
    return model, clip


def _tokenize(clip: Any, phrase: str, *, widget: str) -> dict[str, Any]:
    wrapper = clip.tokenizer
    # Without the space ComfyUI would look for an embedding file of that name; the tokens are the same.
    text = phrase.replace("embedding:", "embedding :")
    batches = getattr(wrapper, wrapper.clip).tokenize_with_weights(text)
    if len(batches) > 1:
        raise ConfigError(
            f"{widget}: {short(phrase)} is longer than SAM 3 reads, 30 tokens. Use a short name of the thing, one per "
            "line."
        )
    return {wrapper.clip_name: batches}


def _encode(clip: Any, tokens: dict[str, Any], instances: int) -> list:
    made = clip.encode_from_tokens(tokens, return_dict=True)
    entry = {
        "cond": made["cond"],
        "attention_mask": made.get("attention_mask"),
        "max_detections": instances or EVERY_INSTANCE,
    }
    return [[made["cond"], {"sam3_multi_cond": [entry]}]]


def at_size(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A bool mask as float32 zeros and ones at `size` (height, width)."""
    if mask.shape == size:
        return mask.astype(np.float32)
    scaled = cv2.resize(mask.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return (scaled >= 0.5).astype(np.float32)
