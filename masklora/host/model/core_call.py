"""ComfyUI's own call of a network, with a sampling that changes nothing: what comes out is the raw prediction.

Which conditions a network takes, what is concatenated to its input, how latents are packed and how time is told is
all in ComfyUI's `BaseModel._apply_model`; no family of ours repeats it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor, nn


class _NeutralSampling(nn.Module):
    """Input unchanged, time as given, the network's own output; all else is the sampling's in whose place it is."""

    def __init__(self, sampling: nn.Module) -> None:
        super().__init__()
        # Not as a submodule: the model would carry its tables a second time.
        self.__dict__["sampling"] = sampling

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["sampling"], name)

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        return model_output


@contextlib.contextmanager
def _raw_predictions(model: Any, *, dtype: torch.dtype) -> Iterator[None]:
    """While it lasts ComfyUI's `model` computes in `dtype` and answers with its network's own output.

    Within one call only: sample pictures and whatever else ComfyUI does between two steps find the model as it was.

    The model knows no patcher meanwhile: with one of dynamic memory it would fetch blocks ahead, into buffers that
    are given free only when a node ends.
    """
    before = model.model_sampling, model.manual_cast_dtype, model.current_patcher
    model.model_sampling = _NeutralSampling(model.model_sampling)
    model.current_patcher = None
    if model.get_dtype_inference() != dtype:
        model.manual_cast_dtype = dtype
    try:
        yield
    finally:
        model.model_sampling, model.manual_cast_dtype, model.current_patcher = before


class CoreCall:
    """A model's network, called through ComfyUI.

    Args:
        model: ComfyUI's BaseModel.
        dtype: What the network computes in.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.model, self.dtype = model, dtype

    def __call__(self, x: Tensor, t: Tensor, *, transformer_options: dict[str, Any], **conds: Any) -> Tensor:
        """The raw prediction (B, C, [F,] h, w), float32; float64 where `x` is.

        Args:
            x: Noisy latents (B, C, [F,] h, w).
            t: What the network is told of the noise, (B,).
            transformer_options: ComfyUI's.
            conds: By ComfyUI's names, of this batch. Where its `latent_shapes` are several, the network takes other
                parts of a sample beside the picture: they are given as zeros, and what it answers of them is dropped.
        """
        shapes = conds.get("latent_shapes", ())
        x = _with_other_parts(x, shapes)
        with _raw_predictions(self.model, dtype=self.dtype):
            if x.dtype != torch.float64:
                out = self.model._apply_model(x, t, transformer_options=transformer_options, **conds)
                return comfy.utils.unpack_latents(out, shapes)[0]
            # ComfyUI rounds what comes out to float32, which would drown finite differences.
            raw: list[Any] = []
            hook = self.model.diffusion_model.register_forward_hook(lambda module, given, out: raw.append(out))
            try:
                self.model._apply_model(x, t, transformer_options=transformer_options, **conds)
            finally:
                hook.remove()
            return raw[-1] if isinstance(raw[-1], Tensor) else raw[-1][0]


def _with_other_parts(pictures: Tensor, shapes: Sequence[Sequence[int]]) -> Tensor:
    """Pictures and zeros for the other parts of their samples in one tensor, as ComfyUI's samplers hold them."""
    if len(shapes) < 2:
        return pictures
    others = [pictures.new_zeros(len(pictures), *shape[1:]) for shape in shapes[1:]]
    return comfy.utils.pack_latents([pictures, *others])[0]


def compute_dtype(model: Any, device: torch.device) -> torch.dtype:
    """What ComfyUI computes in with this model; bfloat16 instead of float16 where the device has it."""
    dtype = model.get_dtype_inference()
    if dtype == torch.float16 and comfy.model_management.should_use_bf16(device):
        return torch.bfloat16
    return dtype
