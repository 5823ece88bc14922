"""Blocks that run as compiled graphs: the gradients of every family, and what is left uncompiled with a word."""

import functools
import gc
import logging
from collections import OrderedDict

import pytest
import torch
from comfy.quant_ops import QuantizedTensor
from torch import nn

from benchmarks.gradients import Problem
from harness.casting import CastRun
from harness.damage import ALL
from harness.quantised import LAYOUTS, quantised_model
from harness.small import tried
from masklora.adapters import thin
from masklora.autograd import traced
from masklora.autograd.compiled import Compiler, _Graph
from masklora.autograd.containers import UnseenError, take_apart

FAMILIES = tried() if ALL else ["flux"]
LAYOUTS_TRIED = list(LAYOUTS) if ALL else ["int8 convrot"]
# Its text passes such blocks before the step too, in inference mode.
SOME_LEFT = {"anima"}


def as_it_is(graph):
    return graph


class Told(Compiler):
    """Remembers what it said."""

    def __init__(self, compile=as_it_is):
        self.lines = []
        super().__init__(tell=self.lines.append, compile=compile)


@functools.cache
def problem(family, **kwargs):
    return Problem(family, dtype=torch.float32, **kwargs)


@pytest.fixture
def in_steps(monkeypatch):
    """Adapters compute operation by operation uncompiled too, as graphs have it: then both round alike."""
    monkeypatch.setattr(thin, "frozen_linear", lambda layer: None)


@pytest.fixture(scope="module", autouse=True)
def released():
    yield
    problem.cache_clear()


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    """pytest listens to every logger, and torch then describes each tensor that it traces."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted) and any(g.any() for g in wanted.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_traced_blocks_are_bit_for_bit_those_of_recomputed_ones(family, in_steps):
    """The base model of the prior is asked through them too."""
    subject, compiler = problem(family, prior=True), Told()
    # Some networks have blocks for a second picture, which nobody gives here.
    asked = set()
    watches = [b.register_forward_pre_hook(lambda one, _: asked.add(one)) for b, _ in subject.trainable.blocks]
    wanted = subject.gradients("per block")
    for watch in watches:
        watch.remove()
    # A second session runs what the first has traced.
    for _ in range(2):
        assert_equal(subject.gradients("per block", compiler), wanted)
    assert set(compiler._ways) == asked
    assert not compiler.lines or family in SOME_LEFT


def test_calls_with_equal_values_are_one_way_though_the_values_are_made_anew():
    """As U-Nets tell each block its place, and some networks the sizes of what they are given."""

    def key(number, other=None):
        size = torch.zeros(2, number).shape
        return take_apart({"block": tuple(["input", number, other]), "size": size, "x": torch.zeros(1)})[1].key()

    assert key(1) == key(1) and key(1) != key(2) and key(1, 1) != key(1, True) and key(1, (1,)) != key(1, 1)


def test_a_container_that_may_remember_more_than_it_holds_is_named():
    with pytest.raises(UnseenError) as told:
        take_apart({"x": OrderedDict(a=torch.zeros(1))})[1].key()
    assert told.value.what == "type 'OrderedDict'"


def test_blocks_that_compute_alike_share_their_graphs():
    compiler = Told()
    problem("flux").gradients("per block", compiler)
    ways = [way for each in compiler._ways.values() for way in each.values()]
    assert len({way.forward for way in ways}) == 2 < len(ways)


def test_another_size_is_another_way_and_both_stay_right(in_steps):
    subject, compiler = Problem("flux", dtype=torch.float32), Told()
    for side in (8, 16, 8):
        for name in ("latent", "noise", "w"):
            drawn = torch.randn(2, *getattr(subject, name).shape[1:-2], side, side, generator=torch.manual_seed(1))
            setattr(subject, name, drawn.abs() if name == "w" else drawn)
        assert_equal(subject.gradients("per block", compiler), subject.gradients("per block"))
    assert not compiler.lines and {len(ways) for ways in compiler._ways.values()} == {2}


@pytest.mark.parametrize("layout", LAYOUTS_TRIED)
def test_frozen_weights_of_every_layout_give_the_gradients_that_they_give_uncompiled(layout):
    compiler = Told()
    plain, compiled = (CastRun("flux", quantised_model("flux", LAYOUTS[layout])) for _ in range(2))
    wanted, found = plain.gradients("per block"), compiled.gradients("per block", compiler)
    assert not compiler.lines and compiler._ways
    for a, b in zip((found[0], *found[1]), (wanted[0], *wanted[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert not any("given" in vars(module) for module in compiled.trainable.network.modules())


def test_weights_that_are_cast_are_not_kept_between_forward_and_backward():
    run, compiler = CastRun("flux", quantised_model("flux", LAYOUTS["int8 convrot"])), Told()
    sizes = {m.weight.shape for m in run.network.modules() if isinstance(getattr(m, "weight", None), QuantizedTensor)}

    def plain_weights():
        gc.collect()
        return {id(t): t for t in gc.get_objects() if type(t) is torch.Tensor and t.shape in sizes}

    before = plain_weights()
    with run.trainable.session(run.adapters, checkpointing="per block", compiler=compiler):
        result = run.predict()
        assert result.requires_grad and compiler._ways and not plain_weights().keys() - before.keys()


def test_dropout_draws_as_it_did_and_a_person_is_told():
    subject, compiler = Problem("flux", dtype=torch.float32, dropout=0.3), Told()
    torch.manual_seed(0)
    wanted = subject.gradients("per block")
    torch.manual_seed(0)
    assert_equal(subject.gradients("per block", compiler), wanted)
    assert any("draws random numbers" in line for line in compiler.lines)


def test_another_packs_layer_acts_and_a_person_is_told(in_steps):
    subject, compiler = problem("flux"), Told()
    block = subject.trainable.blocks[0][0]
    layer = next(m for m in block.modules() if isinstance(m, nn.Linear))
    hook = layer.register_forward_hook(lambda module, given, out: out * 1.5)
    try:
        wanted = subject.gradients("per block")
        assert_equal(subject.gradients("per block", compiler), wanted)
    finally:
        hook.remove()
    assert compiler.lines == [
        "compile: blocks of the kind DoubleStreamBlock run uncompiled: another pack has a part in them."
    ]
    assert block not in compiler._ways and len(compiler._ways) == len(subject.trainable.blocks) - 1


@pytest.mark.parametrize("fault", ["reads a value", "reads another tensor"])
def test_what_a_graph_cannot_hold_runs_uncompiled(fault, in_steps, monkeypatch):
    subject, compiler = problem("flux"), Told()
    other = torch.full((1,), 1.25)

    def changed(self, x, *args, **kwargs):
        return plain(self, x, *args, **kwargs) * (1 + 0 * float(x.sum()) if fault == "reads a value" else other)

    plain = thin.ThinLinear.forward
    monkeypatch.setattr(thin.ThinLinear, "forward", changed)
    wanted = subject.gradients("per block")
    assert_equal(subject.gradients("per block", compiler), wanted)
    assert compiler.lines and not compiler._graphs


def test_hidden_and_routed_tokens_give_the_gradients_that_they_give_uncompiled(in_steps):
    subject, compiler = Problem("flux", dtype=torch.float32), Told()
    unmasked = subject.gradients("per block")
    subject.plan_tokens()
    wanted = subject.gradients("per block")
    assert_equal(subject.gradients("per block", compiler), wanted)
    assert compiler.lines and all("tokens are hidden from them" in line for line in compiler.lines)
    # Batches without a mask may come too.
    subject.plan, ways = None, compiler._ways
    assert not ways and any(not torch.equal(unmasked[name], wanted[name]) for name in wanted)
    subject.gradients("per block", compiler)
    assert set(ways) == {block for block, _ in subject.trainable.blocks} and len(compiler.lines) == 2


def test_what_torch_cannot_compile_runs_as_traced_and_a_person_is_told_once(in_steps):
    tries = []

    def failing(graph):
        def run(*given):
            tries.append(graph)
            raise RuntimeError("no C++ compiler\nat all")

        return run

    subject, compiler = problem("flux", prior=True), Told(failing)
    assert_equal(subject.gradients("per block", compiler), subject.gradients("per block"))
    assert compiler.lines == ["compile: torch cannot compile the blocks here, which run uncompiled: no C++ compiler"]


def test_too_little_memory_is_no_reason_to_run_uncompiled():
    def failing(graph):
        def run(*given):
            raise torch.OutOfMemoryError("out of memory")

        return run

    with pytest.raises(torch.OutOfMemoryError):
        problem("flux", prior=True).gradients("per block", Told(failing))


def test_of_more_ways_than_there_may_be_the_first_stay_compiled(in_steps, monkeypatch):
    subject, compiler = problem("flux"), Told()
    plain, options = subject.trainable._transformer_options, {"step": 0}
    monkeypatch.setattr(subject.trainable, "_transformer_options", lambda: {**plain(), **options})
    monkeypatch.setattr("masklora.autograd.compiled._MOST_WAYS", 1)
    wanted = subject.gradients("per block")
    for options["step"] in (0, 1):
        assert_equal(subject.gradients("per block", compiler), wanted)
    assert len(compiler.lines) == 2 and all("the first 1 are compiled" in line for line in compiler.lines)
    asked = []
    monkeypatch.setattr(_Graph, "__call__", lambda graph, *given: asked.append(graph) or graph._run(*given))
    for options["step"], graphs in ((0, 2 * len(subject.trainable.blocks)), (1, 0)):
        asked.clear()
        subject.gradients("per block", compiler)
        assert len(asked) == graphs


def test_a_graph_that_kept_its_in_place_writes_would_have_no_gradient_and_is_left(in_steps, monkeypatch):
    """That the writes are made out of place is what lets these blocks be traced."""
    monkeypatch.setattr(traced, "functionalize", lambda function, remove: function)
    subject, compiler = problem("flux"), Told()
    wanted = subject.gradients("per block")
    assert_equal(subject.gradients("per block", compiler), wanted)
    assert len(compiler.lines) == 2 and all("modified by an inplace operation" in line for line in compiler.lines)


@pytest.mark.skipif(not ALL, reason="torch compiles for half a minute")
@pytest.mark.parametrize("family", ["flux", "sd15", "z_image"])
def test_compiled_gradients_differ_by_rounding_only(family):
    from masklora.autograd.compiled import inductor

    subject, compiler = problem(family, prior=True), Told(inductor)
    wanted, found = subject.gradients("per block"), subject.gradients("per block", compiler)
    assert not compiler.lines
    for name in wanted:
        assert (found[name] - wanted[name]).norm() <= 1e-5 * wanted[name].norm() + 1e-9
