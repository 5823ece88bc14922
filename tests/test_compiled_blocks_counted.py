"""What is told of compiled blocks: kernels as Inductor makes them, and the stored figures."""

import json

import pytest
import torch
from torch._inductor.utils import run_and_get_code

from benchmarks import compiled_launches, compiled_step
from benchmarks.dry_run import RESULTS, WIDELY

EVIDENCE = compiled_launches.RESULTS.parents[1] / "docs" / "evidence.md"


def stored(benchmark):
    return json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))


def test_a_product_is_a_kernel_and_what_follows_it_element_by_element_is_another():
    x, y = torch.randn(64, 64), torch.randn(64, 64)
    compiled = torch.compile(lambda x, y: torch.relu(x @ y + 1) * 2, dynamic=False)
    _, (code,) = run_and_get_code(compiled, x, y)
    assert compiled_launches.kernels_in(code) == 2


def test_the_stored_launches_add_up_and_are_no_more_than_without_compiling():
    rows, counted = stored(compiled_launches), json.loads(RESULTS.read_text(encoding="utf-8"))
    assert list(rows) == list(WIDELY)
    for name, row in rows.items():
        saved = sum(one["blocks"] * (one["recomputed"] - one["compiled"]) for one in row["blocks"])
        assert row["compiled"] == round(row["recomputed"] - saved) < row["recomputed"]
        assert row["recomputed"] == pytest.approx(counted[f"{name}, per block"]["launches"], rel=0.03)


@pytest.mark.parametrize("benchmark", [compiled_launches, compiled_step])
def test_the_evidence_tells_the_stored_figures(benchmark):
    evidence = EVIDENCE.read_text(encoding="utf-8").splitlines()
    for name, found in stored(benchmark).items():
        assert benchmark.line_of(name, found) in evidence
