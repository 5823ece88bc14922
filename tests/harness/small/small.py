"""What a small model is made of, and the text that goes with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor, nn

from .encoder import Encoder

Extras = Callable[[int, torch.Generator], dict[str, Any]]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Small:
    """A small model of one family, of ComfyUI's own class.

    Attributes:
        family: Name of the family in the product.
        text: Features of a token of its texts.
        full_text: Those of a real model's, where no layer of the network tells them.
        pooled: Features of its pooled text; 0 for none.
        extras: What else its text encoder gives, from the count of tokens and a generator.
        vae: Kind of its VAE; see `harness.vaes`.
        build: Makes a network that ComfyUI knows by its weights; None where it knows the family by its full size.
        keys: Shapes of the full-size weights that ComfyUI looks at; they exist on the meta device only. Or what
            tells them.
        config: What the network is built with instead of what ComfyUI detected.
        text_multiple: Its texts are filled up to a multiple of so many tokens, and so is the picture where the family
            says so.
        text_front: How many tokens its network puts in front of the text.
        full: What a real model's configuration has where the keys do not tell: how many blocks there are. For families
            that are built, what they are built with.
        gain: How its norms store a gain of one.
        slow: Whether its tests take so long that they run with the long ones only.
        jumps: Whether its loss jumps where other experts are chosen, so that no difference of it is a derivative.
        encoder: Its text encoder.
        page: What its network is built with beside `config` where it reads that encoder's texts.
    """

    family: str
    text: int
    full_text: int = 0
    pooled: int = 0
    extras: Extras | None = None
    vae: str = "picture 16"
    build: Callable[..., nn.Module] | None = None
    keys: Shapes | Callable[[], Shapes] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    text_multiple: int = 1
    text_front: int = 0
    full: dict[str, Any] = field(default_factory=dict)
    gain: float = 1.0
    slow: bool = False
    jumps: bool = False
    encoder: Encoder | None = None
    page: dict[str, Any] = field(default_factory=dict)

    def texts(self, *, tokens: int, seed: int) -> dict[str, Tensor]:
        """What the text encoder gives for one text: "cond" (1, tokens, features) and whatever else."""
        generator = torch.Generator().manual_seed(seed)
        text = {"cond": torch.randn(1, tokens, self.text, generator=generator)}
        if self.pooled:
            text["pooled_output"] = torch.randn(1, self.pooled, generator=generator)
        return {**text, **(self.extras(tokens, generator) if self.extras else {})}

    def shrunk(self, dtype: torch.dtype, *, quantised: bool = False) -> Any:
        """A ModelPatcher on the CPU whose weights are not filled yet: detected at full size, then made small.

        With `quantised` its layers are those that ComfyUI takes for files that tell how each of them is stored.
        """
        device = torch.device("cpu")
        model = self._model(self.config, dtype, device, quantised=quantised)
        return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=device)

    def full_network(self) -> tuple[str, nn.Module]:
        """The name of ComfyUI's configuration, and its network at full size, without any memory for its weights."""
        model = self.without_weights(self.full)
        return type(model.model_config).__name__, model.diffusion_model

    def without_weights(self, changes: dict[str, Any]) -> Any:
        """ComfyUI's BaseModel at full size but for `changes`, without any memory for its weights."""
        meta = torch.device("meta")
        if self.build is None:
            return self._model(changes, torch.bfloat16, meta)
        with meta:
            state = self.build(**changes).state_dict()
            config = comfy.model_detection.model_config_from_unet(state, "")
            return config.get_model({}, "", device=meta)

    def _model(
        self, changes: dict[str, Any], dtype: torch.dtype, device: torch.device, *, quantised: bool = False
    ) -> Any:
        with torch.device("meta"):
            shapes = self.keys() if callable(self.keys) else self.keys
            keys = {name: torch.empty(shape) for name, shape in shapes.items()}
        config = comfy.model_detection.model_config_from_unet(keys, "")
        assert config is not None, f"ComfyUI did not recognise the keys of {self.family}"
        config.unet_config |= changes
        config.quant_config = {"mixed_ops": True} if quantised else None
        stored = None if quantised else dtype
        cast = comfy.model_management.unet_manual_cast(stored, device, config.supported_inference_dtypes)
        config.set_inference_dtype(dtype, cast)
        return config.get_model({}, "", device=device)
