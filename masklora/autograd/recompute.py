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
from torch.autograd.function import once_differentiable

from ..errors import ConfigError
from .containers import Form, UnseenError, take_apart
from .forwards import Forward, has_foreign_forward, positional_names, replaced_forwards
from .saved_tensors import saved_tensor_scope
from .traced import is_tracing

# From the tensors of the arguments to those of the result.
_Call = Callable[[Sequence[Tensor]], list[Tensor]]
# The context of a whole pass of a body; whether it is its repetition, of which the gradients are a part.
Holding = Callable[[bool], contextlib.AbstractContextManager]
# The context in which autograd saves what a call keeps for backward; these are what it is called with.
Keeping = Callable[[Sequence[Tensor]], contextlib.AbstractContextManager]


def _at_hand(again: bool) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def as_it_is(inputs: Sequence[Tensor]) -> contextlib.AbstractContextManager:
    """A `Keeping` in which nothing is done."""
    return contextlib.nullcontext()


class _Recompute(torch.autograd.Function):
    """Runs `first` without a graph, and `again` in backward with one; all tensors are explicit inputs.

    `first` is not kept, and `again` holds no tensor: autograd lets go of the inputs once backward is done.
    """

    @staticmethod
    def forward(ctx: Any, first: _Call, again: _Call, holding: Holding, mutates: bool, n: int, *tensors: Tensor):
        ctx.again, ctx.holding, ctx.mutates, ctx.n = again, holding, mutates, n
        ctx.save_for_backward(*tensors)
        rng = _RngState(tensors[:n])
        results = first([t.clone() for t in tensors[:n]] if mutates else list(tensors[:n]))
        ctx.rng = rng if rng.is_used() else contextlib.nullcontext()
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None):
        saved = ctx.saved_tensors
        inputs = [t.detach().requires_grad_(t.requires_grad) for t in saved[: ctx.n]]
        parameters = list(saved[ctx.n :])
        wanted = [t for t in (*inputs, *parameters) if t.requires_grad]
        scope = saved_tensor_scope(mutates=ctx.mutates)
        with ctx.holding(True), torch.enable_grad(), scope, ctx.rng:
            # A leaf that requires grad may not be written in place; a view of it may.
            given = [t.clone() for t in inputs] if ctx.mutates else inputs
            outputs = ctx.again(given)
            pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None and o.requires_grad]
            found = torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True)
        by_id = {id(t): g for t, g in zip(wanted, found, strict=True)}
        return None, None, None, None, None, *(by_id.get(id(t)) for t in (*inputs, *parameters))


class _RngState:
    """Random state at construction; as a context it is in force again, and the present one is kept."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._devices = list({t.device for t in tensors if t.device.type == "cuda"})
        self._states = self._present()

    def _present(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._devices)]

    def is_used(self) -> bool:
        """Whether a random number has been drawn since."""
        return not all(torch.equal(a, b) for a, b in zip(self._states, self._present(), strict=True))

    def __enter__(self) -> None:
        self._fork = torch.random.fork_rng(devices=self._devices)
        self._fork.__enter__()
        torch.set_rng_state(self._states[0])
        for device, state in zip(self._devices, self._states[1:], strict=True):
            torch.cuda.set_rng_state(state, device)

    def __exit__(self, *exc: object) -> None:
        self._fork.__exit__(*exc)


def checkpointed(
    body: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    *,
    parameters: Sequence[Tensor],
    mutates: bool,
    again: Callable[..., Any] | None = None,
    holding: Holding = _at_hand,
    keeping: Keeping = as_it_is,
) -> Any:
    """The result of `body(*args, **kwargs)`, holding its inputs instead of its activations.

    Random numbers that `body` draws are the same again in backward.

    Args:
        body: The computation; called once now without a graph and once in backward.
        args: Positional arguments; tensors may lie anywhere in containers and objects, see `take_apart`.
        kwargs: Keyword arguments, likewise. `body` is given copies of containers, so writes to a dict stay inside.
        parameters: The trainable tensors that `body` reads besides its arguments.
        mutates: Whether `body` may write to its inputs in place; costs one clone of each tensor in them.
        again: What backward runs instead of `body`: the same graph, whose results need not have the values.
        holding: The context of each of both passes.
        keeping: See `Keeping`.

    Returns:
        What `body` returns (tensors, or nested containers of them). Without grad mode, or if nothing requires
        a gradient, `body` runs plainly (on clones if it mutates).

    Raises:
        ConfigError: Something that `body` takes or returns may hide a tensor whose gradient would be lost.
    """
    trained = {id(p) for p in parameters}
    given = {**dict(enumerate(args)), **kwargs}
    with _refusing(body, given=True):
        tensors, form = take_apart(given, matters=lambda t: t.requires_grad and id(t) not in trained)
    shape: list[Form] = []

    def first(inputs: Sequence[Tensor]) -> list[Tensor]:
        with holding(False):
            found, results = _run(body, form, len(args), inputs)
        shape.append(results)
        return found

    again = functools.partial(_again, again or body, form, len(args))
    with keeping(tensors):
        out = _Recompute.apply(first, again, holding, mutates, len(tensors), *tensors, *parameters)
    return shape[0].filled(out)


def _run(body: Callable[..., Any], form: Form, positional: int, inputs: Sequence[Tensor]) -> tuple[list[Tensor], Form]:
    given = form.filled(inputs)
    args = [given.pop(i) for i in range(positional)]
    result = body(*args, **given)
    with _refusing(body, given=False):
        # Nothing tells, without a graph, which tensors would have a gradient; none may be out of sight.
        return take_apart(result, known=form.kept, shared=False)


def _again(body: Callable[..., Any], form: Form, positional: int, inputs: Sequence[Tensor]) -> list[Tensor]:
    return _run(body, form, positional, inputs)[0]


@contextlib.contextmanager
def _refusing(body: Callable[..., Any], *, given: bool) -> Iterator[None]:
    try:
        yield
    except UnseenError as error:
        owner = getattr(body, "__self__", body)
        name = getattr(owner, "__name__", type(owner).__name__)
        does = "is given" if given else "gives back"
        place = f" (at {error.where})" if error.where else ""
        raise ConfigError(
            f"checkpointing: {name} {does} a {error.what}{place}. It may hold tensors that cannot be followed when a "
            'block is repeated, and their gradient would be lost. Choose checkpointing "off", or take away what '
            "brings this into the model."
        ) from None


# The context in which a block that was called with these arguments, by name, is repeated for backward.
Repeating = Callable[[nn.Module, dict[str, Any]], contextlib.AbstractContextManager]


# Asked when a block is called: what brings back, before its repetition, how its layers computed then.
Recalling = Callable[[], Callable[[], None]]


def nothing_to_recall() -> Callable[[], None]:
    """A `Recalling` where layers compute alike all the time."""
    return _nothing


def _nothing() -> None:
    pass


def recalled(recall: Callable[[], None], body: Callable[..., Any]) -> Callable[..., Any]:
    """`body` as it is repeated: after what a `Recalling` gave."""

    def again(*args: Any, **kwargs: Any) -> Any:
        recall()
        return body(*args, **kwargs)

    return again


def _plainly(block: nn.Module, arguments: dict[str, Any]) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def _all_at_hand(block: nn.Module, again: bool) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


@contextlib.contextmanager
def checkpoint_blocks(
    blocks: Sequence[nn.Module],
    *,
    mutates: bool,
    repeating: Repeating = _plainly,
    holding: Callable[[nn.Module, bool], contextlib.AbstractContextManager] = _all_at_hand,
    keeping: Keeping = as_it_is,
    recalling: Recalling = nothing_to_recall,
) -> Iterator[None]:
    """Each of `blocks` keeps only its inputs for backward while the context lasts.

    What another pack has put on a block, or on a layer in it, is part of what is run and repeated. `repeating` may
    save work that only a block's result depends on, since the result is known when the block is repeated. `holding` is
    the context of every pass of a block, in which its weights may be read, gradients included. `keeping` is that in
    which its inputs are saved.
    """

    def make(block: nn.Module, inner: Forward) -> Forward:
        # Others may have made a block run layers of another one.
        read = blocks if any(has_foreign_forward(m) for m in block.modules()) else [block]
        held = functools.partial(holding, block)
        return _checkpointing(
            block,
            inner,
            read=read,
            mutates=mutates,
            repeating=repeating,
            holding=held,
            keeping=keeping,
            recalling=recalling,
        )

    with replaced_forwards(blocks, make):
        yield


def _checkpointing(
    block: nn.Module,
    inner: Forward,
    *,
    read: Sequence[nn.Module],
    mutates: bool,
    repeating: Repeating,
    holding: Holding,
    keeping: Keeping,
    recalling: Recalling,
) -> Forward:
    names = positional_names(type(block))

    def again(*args: Any, **kwargs: Any) -> Any:
        with repeating(block, {**dict(zip(names, args, strict=False)), **kwargs}):
            return inner(*args, **kwargs)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if is_tracing():
            return inner(*args, **kwargs)
        if not torch.is_grad_enabled():
            with holding(False):
                return inner(*args, **kwargs)
        parameters = trained_parameters(*read)
        return checkpointed(
            inner,
            args,
            kwargs,
            parameters=parameters,
            mutates=mutates,
            again=recalled(recalling(), again),
            holding=holding,
            keeping=keeping,
        )

    return forward


def trained_parameters(*modules: nn.Module) -> list[Tensor]:
    """What they learn, each once: their parameters that require a gradient, or what a layer has as `cast` of them.

    Both would give the gradient twice, since the one is made from the other.
    """
    parts = [part for module in modules for part in module.modules()]
    casting = [part for part in parts if getattr(part, "cast", None)]
    covered = {id(p) for part in casting for p in part.cast_from}
    own = (p for part in parts for p in part.parameters(recurse=False) if id(p) not in covered)
    copies = (t for part in casting for t in part.cast)
    return list(dict.fromkeys(t for t in (*own, *copies) if t.requires_grad))
