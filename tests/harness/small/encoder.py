"""Small text encoders of ComfyUI's own classes, with its own tokenizers where these come with it."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.llama
import sentencepiece
import torch

_TEXTS = ["a thing on grass, seen from the side (series)", "zwx people and things in a room", "0123456789 brown fox"]


@dataclass(frozen=True)
class Encoder:
    """A text encoder.

    Attributes:
        module: Of `comfy.text_encoders`.
        tokenizer: Name of its tokenizer's class.
        sizes: What its networks are built with instead of their own configuration, by ComfyUI's names of them.
        model: Name of its class, or of the function that makes one; of another module than `module` with a dot. Or the
            class itself.
        arguments: Of that function.
        eyes: What the part that sees is built with, by ComfyUI's names; none where nothing here looks at pictures.
        words: Whether its vocabulary comes with the file; else it is ComfyUI's.
    """

    module: str
    tokenizer: str
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: str | type = "te"
    words: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    eyes: dict[str, Any] = field(default_factory=dict)

    def made(self) -> Any:
        """A CLIP with random weights, drawn from one seed."""
        module, model = _module(self.module), self._class()
        target = comfy.supported_models_base.ClipTarget(getattr(module, self.tokenizer), model)
        options = {f"{name}_model_config": sizes for name, sizes in self.sizes.items()}
        data = {"spiece_model": _vocabulary()} if self.words else {}
        with self._small_eyes():
            made = comfy.sd.CLIP(target, tokenizer_data=data, model_options={**options, "dtype": torch.float32})
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, p in made.cond_stage_model.named_parameters():
                # What sees is never small where nothing here looks at pictures.
                if self.eyes or ".visual." not in name:
                    scale = max(1, p[0].numel()) ** -0.5 if p.ndim > 1 else 0.1
                    p.copy_(torch.randn(p.shape, generator=generator) * scale + (p.ndim == 1 and "norm" in name))
        return made

    @contextlib.contextmanager
    def _small_eyes(self) -> Iterator[None]:
        module = comfy.text_encoders.llama.qwen_vl
        real = module.Qwen2VLVisionTransformer

        def small(**given: Any) -> Any:
            return real(**given | self.eyes)

        module.Qwen2VLVisionTransformer = small if self.eyes else real
        try:
            yield
        finally:
            module.Qwen2VLVisionTransformer = real

    def _class(self) -> type:
        if isinstance(self.model, type):
            return self.model
        other, _, name = self.model.rpartition(".")
        model = getattr(_module(other or self.module), name)
        return model if isinstance(model, type) else model(**self.arguments)


def _module(name: str) -> Any:
    return importlib.import_module(f"comfy.text_encoders.{name}")


def llama(width: int, layers: int, **more: Any) -> dict[str, Any]:
    """Sizes of a language model with `width` features a token."""
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    return {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 64, **heads, **more}


def t5(width: int, **more: Any) -> dict[str, Any]:
    """Sizes of a T5 with `width` features a token."""
    return {"d_model": width, "d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 2, **more}


def clip(width: int) -> dict[str, Any]:
    """Sizes of a CLIP with `width` features a token, and as many pooled."""
    return {"hidden_size": width, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 16}


def _vocabulary() -> torch.Tensor:
    model = io.BytesIO()
    places = dict(pad_id=0, eos_id=1, bos_id=2, unk_id=3)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXTS), model_writer=model, vocab_size=120, hard_vocab_limit=False, **places
    )
    return torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)
