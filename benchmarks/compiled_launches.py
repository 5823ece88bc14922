"""Kernels of a step with compiled blocks, as Inductor makes them: `dev.py run benchmarks/compiled_launches.py`.

One block of each kind is compiled for the CPU, in the small model. What its two graphs run, generated kernels and calls
of library functions, times the blocks of that kind at full size, takes the place of what these launch in dry_run.json.
Triton may draw the lines between kernels elsewhere. Counts go to compiled_launches.json, the table to docs/evidence.md.
Names of models count these alone.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._inductor.utils import run_and_get_code

from benchmarks.compiled_step import Network, Stage
from benchmarks.dry_run import WIDELY
from benchmarks.full_size import Case, Counting
from masklora.autograd.compiled import Compiler
from masklora.host.swap.block_swap import BlockSwap

RESULTS = Path(__file__).with_suffix(".json")
SIDE = 16
# Of a block: its class, and the names of its weights, by which two of a class are told apart.
Kind = tuple[str, tuple[str, ...]]
Told = Callable[[nn.Module], None]
# Lines that run a kernel in the Python that Inductor writes around its own.
_KERNEL = re.compile(r"^\s+(?:\w+ = )?(?:cpp_fused\w*|extern_kernels\.\w+|torch\.ops\.[\w.]+)\(", re.MULTILINE)


def kind_of(block: nn.Module) -> Kind:
    """Equal for blocks of the same operations, whatever their sizes."""
    own = (name.replace(".base_layer", "") for name, _ in block.named_parameters() if ".lora_" not in name)
    return type(block).__name__, tuple(sorted(own))


class Watch(BlockSwap):
    """Swaps nothing; `entered` is told which block is about to run, and `left` after it."""

    def __init__(
        self, entered: Callable[[nn.Module], None], left: Callable[[nn.Module], None] = lambda _: None
    ) -> None:
        super().__init__()
        self._entered, self._left = entered, left

    @contextlib.contextmanager
    def holding(self, block: nn.Module, again: bool) -> Iterator[None]:
        """Around each pass of a block."""
        self._entered(block)
        yield
        self._left(block)


class _Apart(Counting):
    """A training at full size whose blocks' launches are counted apart."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.inside: collections.Counter[Kind] = collections.Counter()

    def _swap(self) -> BlockSwap:
        return Watch(self._subtract, self._add)

    def _launches(self) -> int:
        return self.counted.launches.total()

    def _subtract(self, block: nn.Module) -> None:
        self.inside[kind_of(block)] -= self._launches()

    def _add(self, block: nn.Module) -> None:
        self.inside[kind_of(block)] += self._launches()


def launches_at_full_size(name: str) -> tuple[int, dict[Kind, tuple[int, int]]]:
    """Launches of a step with recomputed blocks: all, and by kind the number of blocks and what they launch."""
    training = _Apart(Case(name))
    with training.running():
        blocks = collections.Counter(kind_of(block) for block, _ in training.trainable.blocks)
        training.inside.clear()
        total = training.step()["launches"]
        return total, {kind: (number, training.inside[kind]) for kind, number in blocks.items()}


def compiled_kernels(name: str) -> dict[Kind, int]:
    """Kernels that forward and backward of one compiled block run, by kind."""
    ran: dict[Kind, list[_Counted]] = {}
    now: list[Kind] = []
    unique: dict[str, _Counted] = {}

    def count(graph: torch.fx.GraphModule) -> _Counted:
        return unique.setdefault(graph.code, _Counted(graph, lambda one: ran[now[0]].append(one)))

    def entered(block: nn.Module) -> None:
        now[:] = [kind_of(block)]
        ran.setdefault(now[0], [])

    def refuse(sentence: str) -> None:
        raise RuntimeError(sentence)

    stage = Stage(Network(name, SIDE))
    stage.trainable.swap = Watch(entered)
    stage.compilers["counted"] = Compiler(tell=refuse, compile=count)
    blocks = collections.Counter(kind_of(block) for block, _ in stage.trainable.blocks)
    with stage.running("counted"):
        stage.step()
    # Blocks of a kind may differ in what asks for a gradient: the first block's input asks for none.
    return {kind: round(sum(one.kernels() for one in of_kind) / blocks[kind]) for kind, of_kind in ran.items()}


class _Counted:
    """A graph that runs as it is, and is compiled once for its kernels."""

    def __init__(self, graph: torch.fx.GraphModule, ran: Callable[[_Counted], None]) -> None:
        self._graph, self._ran, self._given = graph, ran, ()
        self._kernels: int | None = None

    def __call__(self, *given: Any) -> Any:
        self._given = given
        self._ran(self)
        return self._graph(*given)

    def kernels(self) -> int:
        """What the compiled graph runs."""
        if self._kernels is None:
            torch._dynamo.reset()
            compiled = torch.compile(self._graph, dynamic=False, fullgraph=True)
            _, codes = run_and_get_code(compiled, *self._given)
            self._kernels = sum(kernels_in(code) for code in codes)
            self._given = ()
        return self._kernels


def kernels_in(code: str) -> int:
    """Calls of generated kernels and of library functions in what Inductor wrote."""
    return len(_KERNEL.findall(code.partition("def call(")[2]))


def row_of(name: str) -> dict[str, Any]:
    """The figures of a model: launches with recomputed and with compiled blocks, and of each kind of block."""
    total, kinds = launches_at_full_size(name)
    compiled = compiled_kernels(name)
    listed = [
        {"kind": kind[0], "blocks": n, "recomputed": launched / n, "compiled": compiled[kind]}
        for kind, (n, launched) in kinds.items()
    ]
    saved = sum(one["blocks"] * (one["recomputed"] - one["compiled"]) for one in listed)
    return {"recomputed": total, "compiled": round(total - saved), "blocks": listed}


def line_of(name: str, row: dict[str, Any]) -> str:
    """Of the table in docs/evidence.md."""
    of_blocks = "; ".join(
        f"{one['blocks']} {one['kind']}: {one['recomputed']:.0f} → {one['compiled']}" for one in row["blocks"]
    )
    return f"| {name} | {row['recomputed'] / 1000:.1f} k | {row['compiled'] / 1000:.1f} k | {of_blocks} |"


def main() -> None:
    """Count the named models, or all; the others keep the counts that they have."""
    logging.getLogger("torch.__trace").handlers.clear()
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name in sys.argv[1:] or WIDELY:
        known[name] = row_of(name)
        known = {one: known[one] for one in WIDELY if one in known}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(line_of(name, known[name]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
