"""PEFT's LoRA layers with a forward that costs two small matrix products and nothing else.

PEFT's own forward casts the input to the adapter's dtype (a full-size fp32 copy on half-precision models) and
takes about twice the Python time. Everything else (initialisation, rsLoRA scaling, DoRA, names) stays PEFT's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Conv2d as PeftConv2d
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn

from .lora_keys import ADAPTER


class ThinLinear(PeftLinear):
    """base(x) + scaling · B(A(x)), with A and B cast to the dtype of x."""

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Nothing: PEFT would put adapters into the base's storage dtype, even float8."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(…, in) to (…, out) in the dtype of x; without the adapter while it is disabled."""
        if self.disable_adapters:
            return self.base_layer(x)
        if ADAPTER in self.lora_variant:
            return super().forward(x, *args, **kwargs)
        out = self.base_layer(x)
        down = self.lora_A[ADAPTER].weight.to(x.dtype)
        up = self.lora_B[ADAPTER].weight.to(x.dtype)
        hidden = F.linear(self.lora_dropout[ADAPTER](x), down)
        flat = torch.addmm(
            out.reshape(-1, out.shape[-1]),
            hidden.reshape(-1, hidden.shape[-1]),
            up.t(),
            alpha=self.scaling[ADAPTER],
        )
        return flat.view(out.shape)


class ThinConv2d(PeftConv2d):
    """base(x) + scaling · B(A(x)) for convolutions, in the dtype of x."""

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Nothing, as in `ThinLinear`."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, in, H, W) to (B, out, H', W') in the dtype of x; without the adapter while it is disabled."""
        if self.disable_adapters:
            return self.base_layer(x)
        if ADAPTER in self.lora_variant:
            return super().forward(x, *args, **kwargs)
        down, up = self.lora_A[ADAPTER], self.lora_B[ADAPTER]
        hidden = F.conv2d(
            self.lora_dropout[ADAPTER](x),
            down.weight.to(x.dtype),
            None,
            down.stride,
            down.padding,
            down.dilation,
            down.groups,
        )
        scaled = up.weight.to(x.dtype) * self.scaling[ADAPTER]
        return self.base_layer(x) + F.conv2d(hidden, scaled, None, up.stride, up.padding, up.dilation, up.groups)


CUSTOM_MODULES: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: ThinLinear, nn.Conv2d: ThinConv2d}
