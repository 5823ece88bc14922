"""Gradient checkpointing that stays correct when a block updates its inputs in place.

Many transformer blocks write `img += …`. With torch's own checkpointing the recomputed tensors are then
mutated after they were saved and the gradient is silently wrong (relative error 1e-2 to 7e-1, see
benchmarks/gradient_table.py). Here the forward runs on clones and the recomputation is differentiated inside
`saved_tensor_scope`, which keeps the values that autograd saw.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from .saved_tensors import saved_tensor_scope

_Calls = tuple[Callable[[Sequence[Tensor]], list[Tensor]], Callable[[Sequence[Tensor]], list[Tensor]]]


class _Recompute(torch.autograd.Function):
    """Runs the first call without a graph, and the second in backward with one; all tensors are explicit inputs."""

    @staticmethod
    def forward(ctx: Any, calls: _Calls, mutates: bool, rng: _RngState | None, n: int, *tensors: Tensor):
        call, ctx.again = calls
        ctx.mutates, ctx.rng, ctx.n = mutates, rng, n
        ctx.save_for_backward(*tensors)
        inputs = [t.clone() for t in tensors[:n]] if mutates else list(tensors[:n])
        return tuple(call(inputs))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None):
        saved = ctx.saved_tensors
        inputs = [t.detach().requires_grad_(t.requires_grad) for t in saved[: ctx.n]]
        parameters = list(saved[ctx.n :])
        wanted = [t for t in (*inputs, *parameters) if t.requires_grad]
        scope = saved_tensor_scope(mutates=ctx.mutates)
        with torch.enable_grad(), scope, ctx.rng or contextlib.nullcontext():
            # A leaf that requires grad may not be written in place; a view of it may.
            given = [t.clone() for t in inputs] if ctx.mutates else inputs
            outputs = ctx.again(given)
            pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None and o.requires_grad]
            found = torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True)
        by_id = {id(t): g for t, g in zip(wanted, found, strict=True)}
        return None, None, None, None, *(by_id.get(id(t)) for t in (*inputs, *parameters))


class _RngState:
    """Random state at construction; as a context it is in force again, and the present one is kept."""

    def __init__(self, device: torch.device) -> None:
        self._devices = [device] if device.type == "cuda" else []
        self._cpu = torch.get_rng_state()
        self._device = torch.cuda.get_rng_state(device) if self._devices else None

    def __enter__(self) -> None:
        self._fork = torch.random.fork_rng(devices=self._devices)
        self._fork.__enter__()
        torch.set_rng_state(self._cpu)
        if self._device is not None:
            torch.cuda.set_rng_state(self._device, self._devices[0])

    def __exit__(self, *exc: object) -> None:
        self._fork.__exit__(*exc)


def checkpointed(
    body: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    *,
    parameters: Sequence[nn.Parameter],
    mutates: bool,
    preserve_rng: bool = False,
    again: Callable[..., Any] | None = None,
) -> Any:
    """The result of `body(*args, **kwargs)`, holding its inputs instead of its activations.

    Args:
        body: The computation; called once now without a graph and once in backward.
        args: Positional arguments; tensors may lie anywhere in nested lists, tuples and dicts.
        kwargs: Keyword arguments, likewise. Containers are rebuilt, so writes to a dict stay inside.
        parameters: The trainable tensors that `body` reads besides its arguments.
        mutates: Whether `body` may write to its inputs in place; costs one clone of each floating input.
        preserve_rng: Repeat the same random numbers in backward (needed with dropout).
        again: What backward runs instead of `body`: the same graph, whose results need not have the values.

    Returns:
        What `body` returns (tensors, or nested containers of them). Without grad mode, or if nothing requires
        a gradient, `body` runs plainly (on clones if it mutates).
    """
    leaves, spec = tree_flatten((args, kwargs))
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    out_spec: list[Any] = []

    def call(run: Callable[..., Any], tensors: Sequence[Tensor]) -> list[Tensor]:
        filled = list(leaves)
        for i, t in zip(where, tensors, strict=True):
            filled[i] = t
        a, k = tree_unflatten(filled, spec)
        flat, out = tree_flatten(run(*a, **k))
        out_spec[:] = [out]
        return flat

    tensors = [leaves[i] for i in where]
    rng = _RngState(tensors[0].device) if preserve_rng and tensors else None
    calls = functools.partial(call, body), functools.partial(call, again or body)
    flat = _Recompute.apply(calls, mutates, rng, len(tensors), *tensors, *parameters)
    return tree_unflatten(list(flat), out_spec[0])


# The context in which a block that was called with these arguments is repeated for backward.
Repeating = Callable[[nn.Module, tuple, dict[str, Any]], contextlib.AbstractContextManager]


def _plainly(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


@contextlib.contextmanager
def checkpoint_blocks(
    blocks: Sequence[nn.Module], *, mutates: bool, preserve_rng: bool = False, repeating: Repeating = _plainly
) -> Iterator[None]:
    """Each of `blocks` keeps only its inputs for backward while the context lasts.

    The blocks' class stays what it was (hosts test it with isinstance): only the instance's `forward` is
    replaced, and given back at the end, also after an error. `repeating` may save work that only a block's
    result depends on, since the result is known when the block is repeated.
    """
    for block in blocks:
        block.forward = _bind(block, mutates=mutates, preserve_rng=preserve_rng, repeating=repeating)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def _bind(block: nn.Module, *, mutates: bool, preserve_rng: bool, repeating: Repeating) -> Callable[..., Any]:
    original = type(block).forward.__get__(block)

    def again(*args: Any, **kwargs: Any) -> Any:
        with repeating(block, args, kwargs):
            return original(*args, **kwargs)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return original(*args, **kwargs)
        parameters = [p for p in block.parameters() if p.requires_grad]
        mode = dict(mutates=mutates, preserve_rng=preserve_rng)
        return checkpointed(original, args, kwargs, parameters=parameters, again=again, **mode)

    return forward
