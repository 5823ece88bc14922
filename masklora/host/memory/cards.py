"""What is known of the card at hand: its memory, and its nominal speed."""

from __future__ import annotations

import re
from typing import Any

import comfy.model_management
import psutil
import torch

# Dense bfloat16 with sums in float32, as NVIDIA's data sheets have it, in TFLOP/s.
_NOMINAL = {
    "RTX 3060": 25,
    "RTX 3060 Ti": 32,
    "RTX 3070": 41,
    "RTX 3070 Ti": 43,
    "RTX 3080": 60,
    "RTX 3080 Ti": 68,
    "RTX 3090": 71,
    "RTX 3090 Ti": 80,
    "RTX 4060": 30,
    "RTX 4060 Ti": 44,
    "RTX 4070": 58,
    "RTX 4070 SUPER": 71,
    "RTX 4070 Ti": 80,
    "RTX 4070 Ti SUPER": 88,
    "RTX 4080": 97,
    "RTX 4080 SUPER": 104,
    "RTX 4090": 165,
    "RTX 5060": 38,
    "RTX 5060 Ti": 47,
    "RTX 5070": 62,
    "RTX 5070 Ti": 88,
    "RTX 5080": 113,
    "RTX 5090": 210,
    "RTX A4000": 77,
    "RTX A5000": 111,
    "RTX A6000": 155,
    "RTX 6000 Ada Generation": 364,
    "A10": 125,
    "A40": 150,
    "A100": 312,
    "L4": 121,
    "L40S": 362,
    "H100": 989,
    "H100 PCIe": 756,
    "H200": 989,
}
# The same chip on another board.
_FORMS = re.compile(r"[- ](SXM\d*|PCIe|PCIE|\d+GB|HBM\w+)(?=[- ]|$)")


def card_name(device: torch.device) -> str:
    """What people call the card; the device's own name where there is none."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def card_memory(device: torch.device) -> int:
    """All memory of the card in bytes; 0 on the CPU, which has none to fit into."""
    return 0 if device.type == "cpu" else int(comfy.model_management.get_total_memory(device))


def nominal_tflops(name: str) -> int:
    """TFLOP/s in bfloat16 of the card of this name by its data sheet; 0 for one that is not known."""
    plain = name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    return _NOMINAL.get(plain) or _NOMINAL.get(_FORMS.sub("", plain), 0)


def memory_use(device: torch.device) -> dict[str, Any]:
    """Bytes in use and in all: of the device, or of this process where the device is the CPU; no waiting for it."""
    if device.type == "cpu":
        used, total = psutil.Process().memory_info().rss, psutil.virtual_memory().total
    else:
        total = comfy.model_management.get_total_memory(device)
        used = total - comfy.model_management.get_free_memory(device)
    return {"device": device.type, "used": int(used), "total": int(total)}


def in_bytes(value: float) -> str:
    """So many bytes, for people."""
    return f"{value / 2**30:.2f} GiB" if value >= 0.1 * 2**30 else f"{value / 2**20:.0f} MiB"
