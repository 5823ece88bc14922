"""A new word for CLIP: vectors of its own, which stand where a caption has the trigger word."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters.text_encoders import NewWord
from ...errors import ConfigError
from ...file_names import name_fault, safe_name
from ...folder.captions import with_word

# What ComfyUI takes as the name of an embedding ends at these.
_ENDS = re.compile(r"[\s<\[,]+")
Vectors = Mapping[str, Tensor]


def word_name(trigger: str) -> str:
    """The name under which prompts call the word of a trigger word, as a file's name without suffix.

    Raises:
        ConfigError: Nothing is left of it, or no file can be called so.
    """
    name = _ENDS.sub("_", safe_name(trigger.strip()).replace("/", "_").replace("\\", "_")).strip("_.")
    if not name:
        raise ConfigError(
            "new_word: it stands for the trigger word of the data set, which is empty. Write one into trigger_word of "
            "Load Dataset, or switch new_word off."
        )
    if fault := name_fault(name, folder=Path()):
        raise ConfigError(f"trigger_word: {fault}")
    return name


def new_vectors(clip: Any, encoders: tuple[str, ...], *, count: int, start: str, seed: int) -> dict[str, nn.Parameter]:
    """The vectors with which a new word begins, float32 (count, width) by encoder, on the CPU.

    Args:
        clip: Whose encoders they are for.
        encoders: Names of these.
        count: How many vectors the word is.
        start: Words whose own vectors it begins with, cycled where they are fewer; empty for random ones, spread as
            those of the vocabulary.
        seed: Of the random ones.

    Raises:
        ConfigError: `start` has more tokens than the word has vectors.
    """
    generator, found = torch.Generator().manual_seed(seed), {}
    for name in encoders:
        table = getattr(clip.cond_stage_model, name).transformer.get_input_embeddings().weight
        with torch.inference_mode(False), torch.no_grad():
            if start.strip():
                rows = table[_tokens(getattr(clip.tokenizer, name), start, count)].to("cpu", torch.float32, copy=True)
            else:
                known = table.detach().to("cpu", torch.float32)
                random = torch.randn(count, known.shape[1], generator=generator)
                rows = known.mean(dim=0) + random * known.std(dim=0)
            found[name] = nn.Parameter(rows)
    return found


def _tokens(tokenizer: Any, words: str, count: int) -> list[int]:
    (section, *_) = tokenizer.tokenize_with_weights(words, disable_weights=True)
    marks = {tokenizer.start_token, tokenizer.end_token, tokenizer.pad_token}
    tokens = [token for token, *_ in section if token not in marks]
    if len(tokens) > count:
        raise ConfigError(
            f"word_start: {words!r} is {len(tokens)} tokens long, and the new word has word_vectors {count}. Raise "
            "that, or write fewer words."
        )
    return [tokens[i % len(tokens)] for i in range(count)]


def spelled(text: str, word: NewWord) -> str:
    """A prompt with the new word where it has the trigger word."""
    return with_word(text, word.trigger, f"embedding:{word.name}")


def tokenizer_with(tokenizer: Any, name: str, vectors: Callable[[], Vectors]) -> Any:
    """ComfyUI's tokenizer, to which `embedding:name` is these vectors, by encoder; the given one stays as it is.

    They are asked for at every text, so that they may be those in training.
    """
    own = copy.copy(tokenizer)
    for encoder in vectors():
        part = copy.copy(getattr(tokenizer, encoder))
        # Without a folder to look into ComfyUI takes no name for an embedding's.
        part.embedding_directory = part.embedding_directory if part.embedding_directory is not None else []
        part._try_get_embedding = _finding(part._try_get_embedding, encoder, name, vectors)
        setattr(own, encoder, part)
    return own


def _finding(others: Callable[[str], Any], encoder: str, name: str, vectors: Callable[[], Vectors]) -> Any:
    word = re.compile(rf"{re.escape(name)}(?![^\s<\[,])")

    def found(asked: str) -> Any:
        there = word.match(asked.lstrip())
        if there is None:
            return others(asked)
        return vectors()[encoder], name, " ".join(asked.lstrip()[there.end() :].split())

    return found
