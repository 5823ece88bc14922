"""A block's forward and its backward as two graphs of plain operations, which a compiler can take.

The forward is traced with what it writes in place made out of place, and the backward from that graph: the block once
more and the gradient of its inputs, without what only its known result needs. So nothing has to be watched, and the
gradients are those of `checkpointed`, bit for bit (tests/host/model/test_compiled_blocks.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

# From the inputs and the tensors that the block reads to its results.
Body = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
_TRACING: ContextVar[bool] = ContextVar("tracing", default=False)


class UntraceableError(Exception):
    """The computation is not the same operations each time, or reads what it was not given."""


def is_tracing() -> bool:
    """Whether operations are being recorded: what keeps nothing for backward by other means can leave these out."""
    return _TRACING.get()


def traced_forward(body: Body, inputs: Sequence[Tensor], reads: Sequence[Tensor]) -> fx.GraphModule:
    """The operations of `body`, out of place: takes `inputs` and `reads` as two lists, gives its list of results.

    Args:
        body: May write to its inputs, which are copies. It is run once, on tensors without data.
        inputs: As it is called with; their shapes, dtypes and devices are the graph's.
        reads: What else it computes with.

    Raises:
        UntraceableError: It reads values of tensors, or other tensors, or draws random numbers.
    """

    def copied(inputs: list[Tensor], reads: list[Tensor]) -> list[Tensor]:
        return body([x.clone() for x in inputs], reads)

    return _traced(functionalize(copied, remove="mutations"), _leaves(inputs), _leaves(reads))


def traced_backward(
    forward: fx.GraphModule, inputs: Sequence[Tensor], reads: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> fx.GraphModule:
    """The gradients of a traced forward: takes inputs, reads and the gradients of its results as three lists.

    It gives one gradient for each of `inputs` and then `reads` that requires one, None where it is zero. Gradients of
    results that are None here are taken for zero.
    """

    def joint(inputs: list[Tensor], reads: list[Tensor], grads: list[Tensor | None]) -> tuple[Tensor | None, ...]:
        results = forward(inputs, reads)
        wanted = [t for t in (*inputs, *reads) if t.requires_grad]
        pairs = [(r, g) for r, g in zip(results, grads, strict=True) if g is not None and r.requires_grad]
        if not pairs:
            return tuple(None for _ in wanted)
        return torch.autograd.grad([r for r, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True)

    return _traced(joint, _leaves(inputs), _leaves(reads), list(grads))


def _leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.detach().requires_grad_(t.requires_grad) for t in tensors]


def _traced(function: Callable, *given: list) -> fx.GraphModule:
    try:
        # With gradients, so that kernels are chosen that have a backward.
        with torch.enable_grad(), _tracing():
            graph = make_fx(function, tracing_mode="fake")(*given)
    except Exception as error:
        raise UntraceableError(str(error).strip().partition("\n")[0] or type(error).__name__) from error
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            raise UntraceableError(f"it reads a tensor that it is not given ({node.target})")
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and not _is_without_dropout(node):
            raise UntraceableError(f"it draws random numbers ({node.target})")
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _is_without_dropout(node: fx.Node) -> bool:
    """Whether it is an attention that could drop some of its scores, and drops none."""
    names = [argument.name for argument in node.target._schema.arguments]
    if "dropout_p" not in names:
        return False
    at = names.index("dropout_p")
    return (node.args[at] if at < len(node.args) else node.kwargs.get("dropout_p", 0.0)) == 0.0


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    token = _TRACING.set(True)
    try:
        yield
    finally:
        _TRACING.reset(token)
