"""The demo model's text encoder: a hashed word table in the layout of CLIP-L.

It understands no language. Every entry of CLIP's vocabulary gets its own row of signs from an integer
hash, every place of the first dozen its own row of halves; all transformer layers are zero and therefore
pass their input on. A prompt's features are thus exactly 0, ±0.5 or ±1.5 on every platform and every
version of torch, and unlike words are nearly orthogonal. The end token, which also pads, has a row of
zeros; the pooled output is zero.
"""

from __future__ import annotations

import numpy as np
import torch

VOCABULARY = 49408
START_TOKEN = 49406
END_TOKEN = 49407
PLACES = 77
NAMED_PLACES = 12
WIDTH = 768
LAYERS = 12
CONTEXT_WIDTH = 4096
PREFIX = "text_encoders.clip_l.transformer."


def hashed_signs(rows: int, *, salt: int) -> np.ndarray:
    """(rows, 768) int8 of −1 and +1, a fixed function of the row number and the salt.

    Source: the finaliser of the SplitMix64 generator (Steele, Lea and Flood, 2014), twelve 64-bit words a
    row.
    """
    words = np.arange(rows * WIDTH // 64, dtype=np.uint64) + np.uint64(salt << 40)
    with np.errstate(over="ignore"):
        words = (words + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        words = words ^ (words >> np.uint64(31))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")
    return (bits.astype(np.int8) * 2 - 1).reshape(rows, WIDTH)


def token_table() -> torch.Tensor:
    """(49408, 768) float16: a row of ±1 for every word, zeros for the end token."""
    table = torch.from_numpy(hashed_signs(VOCABULARY, salt=1)).half()
    table[END_TOKEN] = 0
    return table


def place_table() -> torch.Tensor:
    """(77, 768) float16: a row of ±0.5 for each of the first twelve places, zeros after them."""
    table = torch.from_numpy(hashed_signs(PLACES, salt=2)).half() / 2
    table[NAMED_PLACES:] = 0
    return table


def encoder_tensors() -> dict[str, torch.Tensor]:
    """Every tensor of the identity CLIP-L under its checkpoint name, float16."""
    model = f"{PREFIX}text_model."
    tensors = {
        f"{model}embeddings.token_embedding.weight": token_table(),
        f"{model}embeddings.position_embedding.weight": place_table(),
        f"{PREFIX}text_projection.weight": torch.zeros(WIDTH, WIDTH).half(),
    }
    for name in ("weight", "bias"):
        tensors[f"{model}final_layer_norm.{name}"] = torch.zeros(WIDTH).half()
    for layer in range(LAYERS):
        stem = f"{model}encoder.layers.{layer}."
        for norm in ("layer_norm1", "layer_norm2"):
            tensors[f"{stem}{norm}.weight"] = torch.ones(WIDTH).half()
            tensors[f"{stem}{norm}.bias"] = torch.zeros(WIDTH).half()
        shapes = {f"self_attn.{part}_proj": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")}
        shapes |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
        for part, shape in shapes.items():
            tensors[f"{stem}{part}.weight"] = torch.zeros(shape).half()
            tensors[f"{stem}{part}.bias"] = torch.zeros(shape[0]).half()
    return tensors


def prompt_features(token_ids: torch.Tensor, *, tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """What the encoder returns for (B, 77) token ids: (B, 77, 768), before the padding to 4096."""
    return tokens[token_ids] + places[: token_ids.shape[1]]
