"""Checkpointed blocks that run as compiled graphs: one for the forward, one that repeats it and gives the gradients.

Blocks that compute alike share their graphs. What cannot be traced runs as it was, and a person is told why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable

from .containers import Form, UnseenError, take_apart
from .forwards import Forward, positional_names, replaced_forwards
from .recompute import Keeping, Recalling, as_it_is, nothing_to_recall
from .traced import UntraceableError, is_tracing, traced_backward, traced_forward

# A block that is called in more ways may be called in a new one each time.
_MOST_WAYS = 24
# The weights of a block are plain tensors at hand while the context lasts; whether it is repeated for backward.
AtHand = Callable[[nn.Module, bool], contextlib.AbstractContextManager]
Compile = Callable[[fx.GraphModule], Callable[..., Any]]


def inductor(graph: fx.GraphModule) -> Callable[..., Any]:
    """The graph in torch's compiler, which takes it up, for these very shapes, when it is first called."""
    return torch.compile(graph, dynamic=False, fullgraph=True)


class _NewWayError(UntraceableError):
    """A block has graphs for other calls already, as many as it may have."""


class Compiler:
    """The compiled graphs of one network's blocks; they outlast the sessions of a training.

    Args:
        tell: Receives a sentence for people when something runs uncompiled.
        compile: What makes a graph fast; whatever it raises when it is first called, the graph then runs as it is.
    """

    def __init__(self, *, tell: Callable[[str], None], compile: Compile = inductor) -> None:
        self._tell, self.compile = tell, compile
        self._told: set[str] = set()
        self._graphs: dict[Any, _Graph] = {}
        self._ways: dict[nn.Module, dict[Any, _Way]] = {}
        self._left: set[nn.Module] = set()

    @contextlib.contextmanager
    def compiled(
        self,
        blocks: Sequence[nn.Module],
        *,
        at_hand: AtHand,
        hindrance: Callable[[nn.Module, dict[str, Any]], str],
        keeping: Keeping = as_it_is,
        recalling: Recalling = nothing_to_recall,
    ) -> Iterator[None]:
        """Each of `blocks`, which must be checkpointed, runs as compiled graphs while the context lasts.

        Args:
            blocks: Of the network.
            at_hand: See `AtHand`.
            hindrance: Why a call of a block with these arguments, by name, has to run as it was; "" where nothing is.
            keeping: See `Keeping`.
            recalling: See `Recalling`.
        """

        def make(block: nn.Module, inner: Forward) -> Forward:
            names = positional_names(type(block))

            def forward(*args: Any, **kwargs: Any) -> Any:
                if is_tracing() or block in self._left:
                    return inner(*args, **kwargs)
                reason = hindrance(block, {**dict(zip(names, args, strict=False)), **kwargs})
                try:
                    if not reason:
                        return _Call(self, block, inner, at_hand, args, kwargs).run(keeping, recalling())
                except _NewWayError as error:
                    reason = str(error)
                except UntraceableError as error:
                    self._left.add(block)
                    reason = str(error)
                self.say(f"compile: blocks of the kind {type(block).__name__} run uncompiled: {reason}.")
                return inner(*args, **kwargs)

            return forward

        with replaced_forwards(blocks, make):
            yield

    def say(self, sentence: str) -> None:
        """Tell a person, once."""
        if sentence not in self._told:
            self._told.add(sentence)
            self._tell(sentence)

    def way(self, block: nn.Module, key: Any, make: Callable[[], _Way]) -> _Way:
        """How a block is run that is called in this way; made when it is first called so."""
        ways = self._ways.setdefault(block, {})
        if key not in ways:
            if len(ways) == _MOST_WAYS:
                raise _NewWayError(
                    f"of so many sizes of pictures and texts the first {_MOST_WAYS} are compiled, and this is another"
                )
            ways[key] = make()
        return ways[key]

    def shared(self, graph: fx.GraphModule, given: Any) -> _Graph:
        """The compiled form of a graph, that of an earlier one of the same operations on tensors alike."""
        key = graph.code, given
        if key not in self._graphs:
            self._graphs[key] = _Graph(self, graph)
        return self._graphs[key]


class _Graph:
    """A traced graph and what the compiler made of it."""

    def __init__(self, compiler: Compiler, graph: fx.GraphModule) -> None:
        self._compiler, self._graph, self._run = compiler, graph, compiler.compile(graph)
        self._has_run = False

    def __call__(self, *given: Any) -> Any:
        if self._has_run:
            return self._run(*given)
        try:
            found = self._run(*given)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            self._compiler.say(f"compile: torch cannot compile the blocks here, which run uncompiled: {first}")
            self._compiler.compile = lambda graph: graph
            self._run = self._graph
            found = self._run(*given)
        self._has_run = True
        return found


class _Way:
    """The graphs for one way to call a block."""

    def __init__(self, compiler: Compiler, forward: fx.GraphModule, given: Form, result: Form, alike: Any) -> None:
        self._compiler, self._traced, self._alike = compiler, forward, alike
        # Its key names objects by their ids.
        self._given = given
        self.forward, self.result = compiler.shared(forward, alike), result
        self._backward: dict[tuple[bool, ...], _Graph] = {}

    def backward(self, inputs: Sequence[Tensor], reads: Sequence[Tensor], grads: Sequence[Tensor | None]) -> _Graph:
        """The graph of the gradients where these results have one."""
        there = tuple(grad is not None for grad in grads)
        if there not in self._backward:
            graph = traced_backward(self._traced, inputs, reads, grads)
            self._backward[there] = self._compiler.shared(graph, (self._alike, there))
        return self._backward[there]


class _Call:
    """One call of a block: what goes in, and in which way it is run.

    Raises:
        UntraceableError: What it is given cannot be followed.
    """

    def __init__(
        self,
        compiler: Compiler,
        block: nn.Module,
        inner: Forward,
        at_hand: AtHand,
        args: tuple,
        kwargs: dict[str, Any],
    ) -> None:
        self._compiler, self._block, self._inner, self._at_hand = compiler, block, inner, at_hand
        self._positional = len(args)
        self._recall: Callable[[], None] | None = None
        try:
            self.inputs, self._form = take_apart({**dict(enumerate(args)), **kwargs})
            self._key = self._form.key()
        except UnseenError as error:
            raise UntraceableError(f"they are given a {error.what}") from error

    def run(self, keeping: Keeping, recall: Callable[[], None]) -> Any:
        """What the block gives back; `recall` comes before its gradients.

        Raises:
            UntraceableError: It cannot be run as a graph; nothing has been computed.
        """
        self._recall = recall
        with self._at_hand(self._block, False):
            slots = _slots(self._block)
            reads = [slot.tensor for slot in slots]
            tensors = _alike(self.inputs), _alike(reads)
            wanted = tuple(t.requires_grad for t in (*self.inputs, *reads))
            key = self._key, tensors, wanted, _state(self._block), torch.is_grad_enabled()
            self.way = self._compiler.way(self._block, key, lambda: self._traced(slots, reads, tensors))
            trained = [t for t in reads if t.requires_grad]
            with keeping(self.inputs):
                out = _Run.apply(self, reads, *self.inputs, *trained)
            return self.way.result.filled(out)

    def _traced(self, slots: list[_Slot], reads: list[Tensor], tensors: Any) -> _Way:
        results: list[Form] = []

        def body(inputs: list[Tensor], reads: list[Tensor]) -> list[Tensor]:
            given = self._form.filled(inputs)
            args = [given.pop(i) for i in range(self._positional)]
            with _holding(slots, reads):
                found, form = take_apart(self._inner(*args, **given), known=self._form.kept, shared=False)
            results.append(form)
            return found

        forward = traced_forward(body, self.inputs, reads)
        way = _Way(self._compiler, forward, self._form, results[0], tensors)
        if torch.is_grad_enabled() and any(t.requires_grad for t in (*self.inputs, *reads)):
            # Here it can still be left alone, should its backward not be one to be traced.
            way.backward(self.inputs, reads, _like_results(forward))
        return way

    def gradients(self, inputs: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Of the inputs that require one, then of what is trained."""
        assert self._recall is not None
        self._recall()
        with self._at_hand(self._block, True):
            reads = [slot.tensor for slot in _slots(self._block)]
            # As the graph was traced: what follows a block may give them in any layout.
            laid_out = [None if g is None else g.detach().contiguous() for g in grads]
            graph = self.way.backward(inputs, reads, laid_out)
            return list(graph(_plain(inputs), _plain(reads), laid_out))


class _Run(torch.autograd.Function):
    """Runs the graphs of a call; keeps its inputs."""

    @staticmethod
    def forward(ctx: Any, call: _Call, reads: list[Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = tensors[: len(call.inputs)]
        ctx.call, ctx.wanted = call, [t.requires_grad for t in tensors]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        call.inputs = [None] * len(inputs)  # type: ignore[list-item]
        return tuple(call.way.forward(_plain(inputs), _plain(reads)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found = iter(ctx.call.gradients(ctx.saved_tensors, grads))
        return None, None, *(next(found) if wanted else None for wanted in ctx.wanted)


def _plain(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.detach() for t in tensors]


def _like_results(graph: fx.GraphModule) -> list[Tensor | None]:
    """Gradients such as most calls have, without values: one for each result that can have one."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    metas = [node.meta["val"] for node in output.args[0]]
    return [torch.empty(m.shape, dtype=m.dtype, device=m.device) if m.is_floating_point() else None for m in metas]


class _Slot:
    """A tensor that modules compute with, and where they hold it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.places: list[tuple[dict[str, Any], str, int | None]] = []

    def put(self, tensor: Tensor) -> None:
        """Let the modules compute with another one."""
        for store, name, at in self.places:
            held = store[name]
            store[name] = tensor if at is None else (*held[:at], tensor, *held[at + 1 :])


def _slots(block: nn.Module) -> list[_Slot]:
    """All that a block computes with: what stands in for weights, `given` or `cast`, instead of these."""
    modules = list(block.modules())
    cast = {id(t) for module in modules if getattr(module, "cast", None) for t in module.cast_from}
    found: dict[int, _Slot] = {}

    def add(tensor: Tensor | None, store: dict[str, Any], name: str, at: int | None = None) -> None:
        if tensor is not None:
            found.setdefault(id(tensor), _Slot(tensor)).places.append((store, name, at))

    for module in modules:
        own = vars(module)
        for name in ("given", "cast"):
            for at, tensor in enumerate(own.get(name) or ()):
                add(tensor, own, name, at)
        if own.get("given") is None:
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    add(None if id(tensor) in cast else tensor, store, name)
    return list(found.values())


@contextlib.contextmanager
def _holding(slots: Sequence[_Slot], tensors: Sequence[Tensor]) -> Iterator[None]:
    try:
        for slot, tensor in zip(slots, tensors, strict=True):
            slot.put(tensor)
        yield
    finally:
        for slot in slots:
            slot.put(slot.tensor)


def _alike(tensors: Sequence[Tensor]) -> tuple:
    return tuple((t.shape, t.stride(), t.dtype, t.device) for t in tensors)


def _state(block: nn.Module) -> tuple:
    """What else decides the operations of a block: whether its adapters act, how strongly, and dropout."""
    found = []
    for module in block.modules():
        scaling = getattr(module, "scaling", None)
        if scaling is not None:
            found.append((module.training, module.disable_adapters, tuple(scaling.items())))
    return tuple(found)
