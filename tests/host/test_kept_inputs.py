"""Inputs of blocks that wait in main memory: every number is what it is without, however late copies come."""

import contextlib
import functools
import gc
import logging

import pytest
import torch
from comfy.model_management import InterruptProcessingException

from harness.casting import CastRun, equal
from harness.damage import ALL, many
from harness.late_copies import LateCopies, Overwritten
from harness.models import small_model
from harness.small import tried
from masklora.autograd.compiled import Compiler
from masklora.host.memory.counts import Counts
from masklora.host.swap import kept_inputs
from masklora.host.swap.block_swap import BlockSwap
from masklora.host.swap.choosing import in_order
from masklora.host.swap.kept_inputs import KeptInputs
from masklora.settings import OFFLOADED

WIDELY = ["flux", "wan", *(["sd15", "sdxl", "z_image", "qwen_image"] if ALL else [])]
OTHERS = [name for name in tried() if name not in WIDELY] if ALL else ["krea2"]


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    """All of a small model's tensors are smaller than what is worth a copy."""
    monkeypatch.setattr(kept_inputs, "_LITTLE", 2**10)


class Run(CastRun):
    """A few steps on a small model, with the inputs of its blocks in main memory where there are copies."""

    def __init__(self, name, copies=None, *, swap=None, compiler=None):
        super().__init__(name, small_model(name), dtype=torch.float32)
        self.mode, self.compiler = "per block" if copies is None else OFFLOADED, compiler
        self.blocks, device = in_order(self.network, self.trainable.blocks), self.trainable.device
        self.trainable.inputs = KeptInputs(device, copies)
        if swap is not None:
            self.trainable.swap = BlockSwap(self.blocks, device=device, copies=swap)


@functools.cache
def without(name, steps=2):
    return Run(name).train(steps)


@pytest.fixture(scope="module", autouse=True)
def released():
    yield
    without.cache_clear()


@pytest.mark.parametrize("name", WIDELY)
def test_losses_gradients_and_what_is_learned_are_bit_for_bit_those_of_kept_ones(name):
    """Every step has a schedule of its own, and takes the main memory of the first one."""
    steps = many(2, 100)
    with LateCopies() as copies:
        run = Run(name, copies)
        found = run.train(steps)
    assert equal(found, without(name, steps)) and all(t.isfinite().all() for t in found)
    # Each block's inputs go out; all but the last one's come back, while another block works.
    blocks = copies.given
    assert 2 < blocks <= len(run.blocks) and copies.asked == steps * (2 * blocks - 1)
    assert copies.memory == [] and not copies.too_late


@pytest.mark.parametrize("name", OTHERS)
def test_so_they_are_in_every_family(name):
    with LateCopies(late=1.0) as copies:
        assert equal(Run(name, copies).train(), without(name)) and copies.asked > 0


@pytest.mark.parametrize("pinned", [True, False])
def test_so_they_are_beside_swapped_blocks_and_where_memory_cannot_be_pinned(pinned):
    told = []
    with LateCopies(1, pinned=pinned) as copies, LateCopies(2) as swap:
        run = Run("flux", copies, swap=swap)
        run.trainable.inputs.tell = told.append
        assert equal(run.train(), without("flux")) and copies.asked > 0 and swap.asked > 0
    assert len(told) == (not pinned) and all("which is slower" in one for one in told)


@pytest.mark.skipif(not ALL, reason="the blocks are traced twice")
@pytest.mark.parametrize("name", ["flux", "wan"])
def test_so_they_are_where_blocks_run_as_traced_graphs(name, monkeypatch):
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])
    told = []
    with LateCopies(late=1.0) as copies:
        found = Run(name, copies, compiler=Compiler(tell=told.append, compile=lambda graph: graph)).train(3)
    plain = Run(name, compiler=Compiler(tell=told.append, compile=lambda graph: graph)).train(3)
    assert equal(found, plain) and not told and copies.asked > 0


def test_several_passes_before_their_backwards_take_main_memory_each_and_use_it_again():
    """As samples whose texts are of unequal length make them."""
    found = []
    for copies in (None, LateCopies(late=1.0)):
        with copies or contextlib.nullcontext():
            run, given = Run("flux", copies), []
            with run.session():
                for _ in range(2):
                    (run.predict().square().mean() + run.predict().mean()).backward()
                    given.append(copies and copies.given)
        found.append([p.grad for p in run.parameters])
    assert equal(*found) and given == [2 * len(run.blocks)] * 2


def test_a_pass_without_gradients_moves_nothing():
    with LateCopies() as copies:
        run = Run("flux", copies)
        with run.session(), torch.no_grad():
            run.predict()
    assert copies.asked == copies.given == 0


class WaitsForNoCopy(LateCopies):
    def wait(self, mark):
        pass


class WaitsForNoCopyOut(LateCopies):
    """Where a copy to main memory is not waited for before its source is given to others."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.out = set()

    def copy(self, pairs, *, after):
        mark = super().copy(pairs, after=after)
        held = {memory.untyped_storage()._cdata for memory in self.memory}
        if pairs[0][0].untyped_storage()._cdata in held:
            self.out.add(mark)
        return mark

    def wait(self, mark):
        if mark not in self.out:
            super().wait(mark)


class WaitsForNoReader(LateCopies):
    def copy(self, pairs, *, after):
        return super().copy(pairs, after=None)


class WaitsForAnEarlierReader(LateCopies):
    def record(self):
        """Where it was asked the last time."""
        self.before, mark = super().record(), getattr(self, "before", 0)
        return mark


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("faulty", [WaitsForNoCopy, WaitsForNoCopyOut, WaitsForNoReader, WaitsForAnEarlierReader])
def test_a_removed_wait_for_what_makes_reads_or_frees_memory_is_an_error(faulty):
    with faulty(late=1.0) as copies, pytest.raises(Overwritten):
        Run("flux", copies).train(1)
    # What the failed step held ends in errors of its own.
    gc.collect()


@pytest.mark.parametrize(("error", "when"), [(RuntimeError, 2), (InterruptProcessingException, 3)])
def test_after_an_error_or_a_cancel_in_the_middle_nothing_is_held_and_all_goes_on(error, when):
    """In forward and in backward, with a copy on its way."""
    with LateCopies(late=1.0) as copies:
        run = Run("flux", copies)
        hook = failing(run.network.single_blocks[-1 if when == 2 else 0].linear1, error, when)
        with pytest.raises(error):
            run.train()
        hook.remove()
        assert copies.memory == [] and not run.trainable.inputs._kept
        for p, start in zip(run.parameters, Run("flux").parameters, strict=True):
            p.data.copy_(start)
            p.grad = None
        assert equal(run.train(), without("flux"))


def failing(layer, error, when):
    """The layer fails at that call."""
    done = []

    def count(*_):
        done.append(1)
        if len(done) == when:
            raise error

    return layer.register_forward_pre_hook(count)


def test_in_backward_the_inputs_of_two_blocks_at_most_are_on_the_device_and_after_a_step_none():
    """Counted as bytes: the step holds less by all that is in main memory but two blocks' share."""
    taken = []
    for offloaded in (False, True):
        counts, copies = Counts(torch.device("cpu")), LateCopies()
        with copies, counts:
            run = Run("wan", copies if offloaded else None)
            with run.session():
                run.step()
                before = counts.begin()
                run.step()
                gc.collect()
                taken.append(counts.highest - before)
                moved = sorted(memory.nbytes for memory in copies.memory)
                # The gradients of the first step are those of the second.
                assert counts.total == before
    assert len(moved) > 2 and taken[0] - taken[1] >= sum(moved[:-2])


def test_what_all_blocks_are_given_is_moved_once_at_most():
    """Texts, rotary tables and masks are no block's own."""
    sent = []

    class Noting(LateCopies):
        def copy(self, pairs, *, after):
            sent.append([here.nbytes for _, here in pairs])
            return super().copy(pairs, after=after)

    with Noting() as copies:
        run = Run("wan", copies)
        with run.session():
            out, size = run.predict(), 4 * 16 * 128
    assert out.requires_grad and len(sent) == len(run.blocks) and size in sent[0] and len(sent[0]) > 1
    assert all(sizes == [size] for sizes in sent[1:])


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("offloaded", [True, False])
def test_an_input_that_is_written_to_after_its_block_is_an_error_with_and_without(offloaded, moved, monkeypatch):
    """Torch itself does not watch what goes another way than its own; both those that are moved and that stay."""
    monkeypatch.setattr(kept_inputs, "_LITTLE", 2**10 if moved else 2**30)
    with LateCopies() as copies:
        run = Run("wan", copies if offloaded else None)

        def write(block, args, out):
            with torch.no_grad():
                args[0].mul_(2)

        hook = run.blocks[1].register_forward_hook(write)
        with run.session(), pytest.raises(RuntimeError, match=r"in.?place"):
            run.step()
        hook.remove()


def test_a_graph_can_be_gone_through_twice_and_not_after_its_session():
    with LateCopies(late=1.0) as copies:
        run = Run("flux", copies)
        with run.session():
            loss = run.predict().square().mean()
            found = [torch.autograd.grad(loss, run.parameters, retain_graph=True) for _ in range(2)]
            other = run.predict().mean()
        assert equal(*found) and copies.memory == []
        for graph in (loss, other):
            with pytest.raises(RuntimeError, match="before the session ends"):
                torch.autograd.grad(graph, run.parameters)
