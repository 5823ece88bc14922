"""A device whose tensors have shapes and no data, on which the full-size step runs on any machine.

It is a backend that torch lets Python make, so that its tensors lie on another device than the CPU's and mixing both is
an error, as on a GPU. It stays in benchmarks and tests: in a person's process other accelerators live in its place.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import comfy.ldm.modules.attention
import comfy.ops
import peft  # noqa: F401 - not while tensors have no data
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from benchmarks.counting import Counted
from masklora.host.memory.kernels import OneKernel, attention, rms_norm

_NAME = "fake"


@functools.cache
def fake_device() -> torch.device:
    """The device; made once a process."""
    _setup_privateuseone_for_python_backend(_NAME)
    return torch.device(f"{_NAME}:0")


class CopiesAtOnce:
    """Stands in for the stream on which a card copies: where there is no data, nothing comes late."""

    def host(self, size: int) -> Tensor:
        """Main memory (size,) uint8."""
        return torch.empty(size, dtype=torch.uint8, device="cpu")

    def give_back(self, memory: Tensor) -> None:
        """It is gone with the last that holds it."""

    def record(self) -> None:
        """Nothing lags behind."""

    def copy(self, pairs: Sequence[tuple[Tensor, Tensor]], *, after: None) -> None:
        """Fill the first of each pair from the second."""
        with torch.no_grad():
            for there, here in pairs:
                there.copy_(here, non_blocking=True)

    def wait(self, mark: None) -> None:
        """All copies are made."""

    def settle(self) -> None:
        """Likewise."""


@contextlib.contextmanager
def without_data(counted: Counted) -> Iterator[FakeTensorMode]:
    """While it lasts, tensors that are made have no data, and `counted` counts those on the device.

    What asks for data is an error: `.item()` and its like raise DataDependentOutputException.
    """
    with contextlib.ExitStack() as stack:
        mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        # Generators are real, and so are their states.
        for name in ("get_rng_state", "equal"):
            stack.enter_context(mock.patch.object(torch, name, _with_data(getattr(torch, name))))
        stack.enter_context(mock.patch.object(torch, "Generator", _GeneratorOfTheCpu))
        stack.enter_context(as_on_a_gpu(counted))
        yield mode


@contextlib.contextmanager
def as_on_a_gpu(counted: Counted) -> Iterator[None]:
    """While it lasts `counted` counts, some operations as the kernels that a GPU has for them; these make no data."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(counted)
        plain = torch._C._nn.scaled_dot_product_attention
        flash = functools.partial(attention, counted, plain)
        # ComfyUI binds a name of its own for it.
        for owner in (torch.nn.functional, comfy.ops):
            stack.enter_context(mock.patch.object(owner, "scaled_dot_product_attention", flash))
        functions = torch.nn.functional
        for name, fused in (("rms_norm", rms_norm), ("silu", _fused_silu)):
            stack.enter_context(
                mock.patch.object(functions, name, functools.partial(fused, counted, getattr(functions, name)))
            )
        yield


@contextlib.contextmanager
def made_in_place(device: torch.device) -> Iterator[None]:
    """While it lasts modules are made on `device` and stay there: moving one without data fails."""
    with mock.patch.object(nn.Module, "to", lambda module, *args, **kwargs: module), torch.device(device):
        yield


class _GeneratorOfTheCpu(torch.Generator):
    """Random numbers without data come from nowhere; torch makes no generator for this device."""

    def __new__(cls, device: Any = "cpu") -> _GeneratorOfTheCpu:
        return super().__new__(cls)


def _with_data(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args, **kwargs)

    return call


def _fused_silu(counted: Counted, plain: Any, x: Tensor, inplace: bool = False) -> Tensor:
    return plain(x, inplace) if inplace or x.device != counted.device else OneKernel.apply(x, "silu", 0, counted)
