"""The training step at full size, counted without data: what it takes, and what must not be in it."""

import dataclasses
import json

import pytest
import torch

from benchmarks.dry_run import RESULTS, TABLE, VARIANTS, WIDELY, cases, table_of
from benchmarks.full_size import Case
from harness.counted_steps import CountingProcess, StepFailed
from harness.damage import ALL
from harness.models import small_model
from harness.small import small_models
from masklora.host.model.trainable import TrainableModel
from masklora.host.swap.block_swap import block_bytes, slot_bytes
from masklora.host.swap.choosing import in_order

ROWS = json.loads(RESULTS.read_text(encoding="utf-8"))
TRIED = list(ROWS) if ALL else [f"{name}, per block" for name in WIDELY]
SMALL = Case("z_image", dtype=torch.float32, small=True, side=256, tokens=77)


@pytest.fixture(scope="module")
def process():
    process = CountingProcess()
    yield process
    process.close()


def beside_the_weights(row):
    return sum(row["bytes"].values()) - row["bytes"]["weights"]


@pytest.mark.parametrize("name", TRIED)
def test_a_step_at_full_size_takes_what_is_written_down_and_waits_for_nothing(process, name):
    """A tensor on another device than the model's is an error of its own, and so is a value that the host reads."""
    found, known = process.step(cases(list(small_models()))[name]), ROWS[name]
    assert found["reads"] == []
    assert beside_the_weights(found) == pytest.approx(beside_the_weights(known), rel=0.03)
    assert found["launches"] == pytest.approx(known["launches"], rel=0.03)
    assert found["flops"] == pytest.approx(known["flops"], rel=0.03)


@pytest.mark.parametrize("name", ["z_image", "sd15", "wan", "flux"] if ALL else ["z_image"])
def test_what_is_counted_without_data_is_what_real_tensors_take(process, name):
    case = dataclasses.replace(SMALL, model=name)
    found, real = process.step(case), process.step(case, device=torch.device("cpu"))
    assert found["bytes"].keys() == real["bytes"].keys()
    for kind, size in real["bytes"].items():
        assert found["bytes"][kind] == pytest.approx(size, rel=0.02)
    assert found["flops"] == real["flops"]
    # The optimizer of a GPU has kernels for many tensors at once.
    before = "launches before the optimizer"
    assert found[before] == pytest.approx(real[before], rel=0.02)


def test_the_table_is_that_of_the_counts_and_has_the_models_that_most_people_train():
    assert TABLE.read_text(encoding="utf-8") == table_of(ROWS)
    assert set(VARIANTS) <= {row.split(", ")[1] for row in ROWS}
    assert set(ROWS) == set(cases(list(small_models())))


def test_a_tensor_on_the_cpu_in_the_step_is_an_error(process):
    with pytest.raises(StepFailed, match=r"two different devices|Unhandled FakeTensor Device"):
        process.step(SMALL, fault="a tensor on the CPU")


def test_a_value_that_the_host_reads_is_an_error(process):
    with pytest.raises(StepFailed, match="DataDependentOutputException"):
        process.step(SMALL, fault="a value that the host reads")


def test_a_tensor_that_is_brought_to_the_host_is_counted(process):
    found = process.step(SMALL, fault="a tensor brought to the host")
    assert len(found["reads"]) == 1 and "while making forward" in found["reads"][0]


def test_a_cast_copy_of_a_weight_that_is_kept_for_backward_is_seen(process):
    """As autograd would keep it: a second model in memory."""
    case = dataclasses.replace(SMALL, dtype=torch.bfloat16, stored=torch.float8_e4m3fn, checkpointing="off")
    plain, kept = process.step(case), process.step(case, fault="a kept cast copy")
    assert beside_the_weights(kept) > 1.1 * beside_the_weights(plain)


def test_a_swapped_block_that_stays_on_the_device_is_seen(process):
    """Never more than the other weights and two slots; all else takes what it takes without swap."""
    model = TrainableModel(small_model(SMALL.model))
    blocks = [block_bytes(block) for block in in_order(model.network, model.blocks)]
    case = dataclasses.replace(SMALL, swapped=1.0)
    plain, swapped = process.step(SMALL), process.step(case)
    assert swapped["reads"] == [] and swapped["flops"] == plain["flops"]
    assert beside_the_weights(swapped) == beside_the_weights(plain)
    # Small tensors stay where they are.
    most = 1.03 * (plain["bytes"]["weights"] - sum(blocks) + slot_bytes(blocks))
    assert swapped["bytes"]["weights"] <= most
    assert process.step(case, fault="a block that stays resident")["bytes"]["weights"] > 1.2 * most
