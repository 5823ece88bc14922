import collections
import enum
import functools
import gc
import logging
import random
import re
import threading
import types
import uuid
import weakref
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from harness.nests import KINDS, Frozen, Modulation, Pair, Plain, Slotted, random_nest, tensors_in
from masklora.autograd.containers import take_apart
from masklora.autograd.recompute import checkpoint_blocks, checkpointed
from masklora.autograd.saved_tensors import saved_tensor_scope
from masklora.errors import ConfigError


class Colour(enum.Enum):
    RED = (1, "red")


def leaves(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(count)]


def mixed(tensors, weight, *, writes):
    """New tensors, each of which depends on all."""
    tensors = list(tensors)
    total = sum((i + 1) * torch.sin(t) for i, t in enumerate(tensors)) @ weight
    if writes:
        for t in tensors:
            t.mul_(1.5)
            total = total + t.tanh()
            t.add_(total.sigmoid())
    return lambda i: total.cos() * (i + 1) + tensors[i % len(tensors)]


def body_of(seed, *, writes, depth=3):
    """A computation that gives back another nest."""

    def body(nest, weight, extra=None):
        new = mixed([*tensors_in(nest), *tensors_in(extra)], weight, writes=writes)
        numbers = iter(range(10_000))
        return [new(0), random_nest(random.Random(seed), lambda: new(next(numbers)), depth=depth)]

    return body


def loss_of(result):
    return sum(((i + 1) * t.square()).sum() for i, t in enumerate(tensors_in(result)))


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_gradients_through_any_nest_are_those_without_checkpointing(seed, writes):
    given = leaves(200, seed)
    weight = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(7)).requires_grad_()
    found = []
    for way in ("plain", "checkpointed"):
        # A leaf may not be written to in place.
        next_leaf = iter([t * 1.0 for t in given]).__next__
        nest, extra = (random_nest(random.Random(f"{seed} {i}"), next_leaf, depth=4) for i in (0, 1))
        nest = [nest, next_leaf()]
        body = body_of(seed, writes=writes)
        with saved_tensor_scope(mutates=writes and way == "plain"):
            if way == "plain":
                result = body(nest, weight, extra=extra)
            else:
                result = checkpointed(body, (nest, weight), {"extra": extra}, parameters=[], mutates=writes)
            grads = torch.autograd.grad(loss_of(result), [*given, weight], allow_unused=True)
        found.append(grads)
    used = [g is not None for g in found[0]]
    assert [g is not None for g in found[1]] == used
    for plain, ours in zip(*found, strict=True):
        if plain is not None:
            assert (plain - ours).norm() <= 1e-12 * plain.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_any_container_has_new_tensors_and_the_same_everything_else(kind):
    a, b = leaves(2)
    other = object()
    nest = KINDS[kind]([a, other], b)
    before = list(tensors_in(nest))
    tensors, form = take_apart({"nest": nest})
    assert {id(t) for t in tensors} == {id(t) for t in before}
    copy = form.filled([2 * t for t in tensors])["nest"]
    assert type(copy) is type(nest)
    assert copy is not nest
    assert [torch.equal(c, 2 * t) for c, t in zip(tensors_in(copy), before, strict=True)] == [True] * len(before)
    assert all(x is y for x, y in zip(tensors_in(nest), before, strict=True)), "the caller's was changed"
    again = form.filled(tensors)["nest"]
    assert all(x is y for x, y in zip(tensors_in(again), before, strict=True))


def test_what_a_container_class_remembers_is_still_known_to_a_copy():
    tensor = torch.ones(2)
    nest = (collections.defaultdict(list, a=tensor), collections.deque([tensor], maxlen=3), Slotted(tensor, "own"))
    _, form = take_apart(nest)
    lists, queue, slotted = form.filled([tensor])
    assert lists["new"] == []
    assert queue.maxlen == 3
    assert not hasattr(slotted, "unset")


def test_torch_s_own_named_results_are_seen_into():
    named = torch.randn(3, 4, requires_grad=True).max(dim=1)
    tensors, form = take_apart(named)
    copy = form.filled([t + 1 for t in tensors])
    assert type(copy) is type(named)
    assert torch.equal(copy.values, named.values + 1)


def test_what_holds_no_tensor_stays_the_same_object():
    class State:
        def __init__(self):
            self.names = ["a"]

    kept = (
        State(),
        len,
        State,
        nn.Linear(2, 2).requires_grad_(False),
        torch.float16,
        torch.device("cpu"),
        torch.Size([1]),
    )
    kept += (
        Pair(1, 2),
        Frozen(1, "b"),
        np.zeros(3),
        functools.partial(len, "a"),
        lambda: 0,
        types.MappingProxyType({}),
    )
    kept += (threading.RLock(), re.compile("a"), Path("a"), uuid.uuid4(), Decimal(1), datetime.now(timezone.utc))
    kept += (logging.getLogger("a"), slice(2), ..., np.float32(1), Colour.RED, random.Random(1), ValueError("a"))
    tensors, form = take_apart({"x": torch.ones(2), "kept": list(kept)}, matters=lambda t: t.requires_grad)
    copy = form.filled(tensors)["kept"]
    assert all(a is b for a, b in zip(copy, kept, strict=True))
    tensors, form = take_apart(Plain(kept=kept, x=torch.ones(2)), matters=lambda t: t.requires_grad)
    assert all(a is b for a, b in zip(form.filled(tensors).kept, kept, strict=True))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("make", [Plain, types.SimpleNamespace, lambda one, other: Slotted(one, other)])
def test_a_tensor_among_very_many_other_things_is_seen(make, first):
    hidden, weight = leaves(2)
    parts = [{"deep": [hidden]}, [[number] for number in range(30_000)]]
    one, other = parts if first else reversed(parts)
    nest = make(one=one, other=other)
    out = checkpointed(lambda n: next(tensors_in(n)) * weight, (nest,), {}, parameters=[weight], mutates=False)
    assert torch.equal(torch.autograd.grad(out.sum(), hidden)[0], weight.detach())


def test_more_behind_a_function_than_can_be_looked_through_is_refused_and_not_taken_for_harmless():
    (hidden,) = leaves(1)
    many = [[number] for number in range(30_000)]
    behind = types.SimpleNamespace(many=many, last=types.SimpleNamespace(at=types.SimpleNamespace(here=hidden)))
    far = lambda x: x * behind.last.at.here  # noqa: E731
    with pytest.raises(ConfigError, match="checkpointing"):
        checkpointed(lambda f, x: f(x), (far, hidden.detach()), {}, parameters=[], mutates=False)
    numbers = list(range(200_000))
    x = leaves(1, seed=4)[0]
    out = checkpointed(lambda f, y: f(y), (lambda y: y * len(numbers), x), {}, parameters=[], mutates=False)
    assert torch.autograd.grad(out.sum(), x)[0].unique().item() == 200_000


def test_sets_are_seen_into():
    a, b = leaves(2)
    tensors, form = take_apart({"set": {a, b}, "frozen": frozenset([a]), "words": frozenset("ab")})
    copy = form.filled([t + 1 for t in tensors])
    assert {float(t.sum()) for t in copy["set"]} == {float((t + 1).sum()) for t in (a, b)}
    assert torch.equal(*copy["frozen"], a + 1)
    assert copy["words"] == frozenset("ab")


def test_what_is_shared_and_what_is_circular_stays_so():
    tensor = torch.ones(2, requires_grad=True)
    shared, parent = [tensor], Plain(tensor=tensor)
    parent.child = Plain(parent=parent)
    tensors, form = take_apart([shared, shared, parent, tensor])
    assert len(tensors) == 1
    first, second, copy, last = form.filled([torch.zeros(2)])
    assert first is second
    assert copy.child.parent is copy is not parent
    assert copy.tensor is first[0] is last


def test_a_write_to_a_shared_tensor_is_seen_in_all_its_places():
    x, weight = leaves(1)[0], torch.eye(4, dtype=torch.float64)

    def body(a, b):
        a.mul_(3.0)
        return b @ weight

    plain = torch.autograd.grad((3 * x).square().sum(), x)[0]
    value = x * 1.0
    out = checkpointed(body, (value, {"again": value}["again"]), {}, parameters=[], mutates=True)
    assert torch.allclose(torch.autograd.grad(out.square().sum(), x)[0], plain, rtol=1e-12)


def test_what_a_block_writes_to_its_containers_stays_inside():
    x = leaves(1)[0]
    options, record = {"count": 0, "deep": {"list": [1]}}, Modulation(x * 1.0, 2.0)
    shift = record.shift

    def body(x, options, record):
        assert options["count"] == 0
        options["count"] += 1
        options["deep"]["list"].append(2)
        record.shift, shift = None, record.shift
        return x * shift

    out = checkpointed(body, (x, options, record), {}, parameters=[], mutates=False)
    out.sum().backward()
    assert options == {"count": 0, "deep": {"list": [1]}}
    assert record.shift is shift


def hidden_in_a_closure(t):
    return lambda: t


def hidden_in_a_default(t):
    def function(x=t):
        return x

    return function


class Keeper:
    def __init__(self, tensor):
        self.tensor = tensor

    def give(self):
        return self.tensor


def future(t):
    made = torch.futures.Future()
    made.set_result(t)
    return made


def trained_layer(t):
    layer = nn.Linear(2, 2)
    layer.weight.requires_grad_()
    return layer


HIDDEN = {
    "generator": lambda t: (x for x in [t]),
    "iterator": lambda t: iter([t]),
    "map": lambda t: map(str, [1]),
    "zip": lambda t: zip([1], [2], strict=True),
    "closure": hidden_in_a_closure,
    "default": hidden_in_a_default,
    "closure of a closure": lambda t: hidden_in_a_closure({"deep": [hidden_in_a_closure(t)]}),
    "partial": lambda t: functools.partial(print, t),
    "method": lambda t: Keeper(t).give,
    "the tensor's own method": lambda t: t.add,
    "proxy": lambda t: types.MappingProxyType({"t": t}),
    "weak reference": weakref.ref,
    "extension's object": future,
    "array of objects": lambda t: np.array([{"t": t}, None], dtype=object),
    "layer that is trained": trained_layer,
    "key": lambda t: {t: 1},
    "attribute's closure": lambda t: Plain(function=hidden_in_a_closure(t)),
}


@pytest.mark.parametrize("place", [lambda v: v, lambda v: {"options": [v]}, lambda v: Modulation(v, torch.ones(1))])
@pytest.mark.parametrize("kind", HIDDEN)
def test_what_cannot_be_seen_into_is_refused(kind, place):
    x = leaves(1)[0]
    kept = x * 1.0
    with pytest.raises(ConfigError, match=r'given a .*\(at .*thing.*checkpointing "off"'):
        checkpointed(lambda x, thing: x, (x,), {"thing": place(HIDDEN[kind](kept))}, parameters=[], mutates=False)


@pytest.mark.parametrize("kind", [k for k in HIDDEN if k not in ("key", "layer that is trained")])
def test_a_result_that_cannot_be_seen_into_is_refused(kind):
    x = leaves(1)[0]
    kept = []

    def body(x):
        kept.append(x * 2)
        return x, {"thing": HIDDEN[kind](kept[-1])}

    with pytest.raises(ConfigError, match=r"gives back a .*thing"):
        checkpointed(body, (x,), {}, parameters=[], mutates=False)


def test_what_a_block_was_given_it_may_give_back():
    x = leaves(1)[0]
    constant = torch.ones(2)
    function, layer = hidden_in_a_closure(constant), nn.Linear(2, 2).requires_grad_(False)
    out, f, m = checkpointed(lambda *a: a, (x, function, layer), {}, parameters=[], mutates=False)
    assert (f, m) == (function, layer)
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], torch.ones_like(x))


def test_complex_tensors_have_gradients_and_integers_pass():
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    table, rows = torch.view_as_complex(x * 2.0), torch.tensor([2, 0])

    def body(table, rows):
        return table[rows] * 1j, rows

    out, same = checkpointed(body, (table, rows), {}, parameters=[], mutates=False)
    assert torch.equal(same, rows)
    (found,) = torch.autograd.grad(out.imag.square().sum(), x, retain_graph=True)
    (plain,) = torch.autograd.grad((table[rows] * 1j).imag.square().sum(), x)
    assert torch.equal(found, plain)


def test_tensors_of_inference_mode_pass():
    with torch.inference_mode():
        sigmas = torch.tensor([1.0, 2.0])
    x = leaves(1)[0]
    out = checkpointed(
        lambda x, options: x * float(options["s"][1]), (x,), {"options": {"s": sigmas}}, parameters=[], mutates=True
    )
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], torch.full_like(x, 2.0))


def test_random_numbers_are_the_same_again_and_drawn_once():
    x = leaves(1)[0]
    found = []
    for wrap in (lambda f, x: f(x), lambda f, x: checkpointed(f, (x,), {}, parameters=[], mutates=False)):
        torch.manual_seed(3)
        out = wrap(lambda x: (x * torch.rand_like(x)).square(), x)
        after = torch.rand(2)
        found.append((*torch.autograd.grad(out.sum(), x), after, torch.rand(2)))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-14)


class Block(nn.Module):
    def __init__(self, *, writes):
        super().__init__()
        self.layer, self.writes = nn.Linear(8, 8), writes
        self.layer.weight.requires_grad_()

    def forward(self, x, mod, options=None):
        if self.writes:
            x += mod.shift
        return x + self.layer(x * mod.scale) * options["gate"], mod


def watched(tensor, refs):
    refs.append(weakref.ref(tensor))
    return tensor


@pytest.mark.parametrize("writes", [False, True])
def test_the_inputs_of_a_block_are_let_go_once_its_backward_is_done_while_the_loss_lives(writes):
    blocks = [Block(writes=writes) for _ in range(3)]
    refs = []
    with checkpoint_blocks(blocks, mutates=writes):
        x, vec = torch.randn(2, 8), torch.randn(2, 8, requires_grad=True)
        for block in blocks:
            mod = Modulation(watched(vec * 2, refs), watched(vec + 1, refs))
            options = {"gate": watched(vec.sin(), refs), "places": watched(torch.arange(3), refs)}
            x, back = block(watched(x, refs), mod, options=options)
            assert type(back) is Modulation
        del mod, options, back
        loss = x.square().sum()
        del x
        assert any(r() is not None for r in refs)
        loss.backward()
        gc.collect()
        assert [r() for r in refs if r() is not None] == []
    assert vec.grad is not None
    assert loss > 0


@pytest.mark.parametrize("writes", [False, True])
def test_what_is_kept_for_backward_is_kept_once(writes):
    size = 64 * 1024
    block = nn.Linear(4, 4)
    x = torch.randn(size, requires_grad=True)

    def places():
        gc.collect()
        return {
            t.untyped_storage().data_ptr() for t in gc.get_objects() if type(t) is torch.Tensor and t.numel() == size
        }

    def body(x):
        y = x.sin().cos().exp()
        return y.tanh() if not writes else y.mul_(2.0)

    before = places()
    inner = x * 2
    y = checkpointed(body, (inner,), {}, parameters=block.parameters(), mutates=writes)
    places_of_input = {inner.untyped_storage().data_ptr(), y.untyped_storage().data_ptr()}
    assert places() - before == places_of_input
    del inner
    # autograd holds the input now, in a form that Python does not list.
    assert places() - before <= places_of_input
    y.sum().backward()


def test_a_graph_that_is_retained_can_be_run_again_and_another_cannot():
    block = Block(writes=True)
    vec = torch.randn(2, 8, requires_grad=True)
    with checkpoint_blocks([block], mutates=True):
        out, _ = block(torch.randn(2, 8), Modulation(vec * 1.0, vec), options={"gate": 1.0})
        wanted = [vec, block.layer.weight]
        first = torch.autograd.grad(out.square().sum(), wanted, retain_graph=True)
        second = torch.autograd.grad(out.square().sum(), wanted)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(out.square().sum(), wanted)


def test_a_gradient_of_a_gradient_is_refused_and_not_wrong():
    x = leaves(1)[0]
    out = checkpointed(torch.sin, (x,), {}, parameters=[], mutates=False)
    (first,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()


def test_arguments_reach_the_repeating_context_by_name_wherever_they_stand():
    seen = []

    def repeating(block, arguments):
        seen.append(arguments)
        return saved_tensor_scope(mutates=False)

    block, vec = Block(writes=False), torch.randn(2, 8, requires_grad=True)
    with checkpoint_blocks([block], mutates=False, repeating=repeating):
        out, _ = block(torch.randn(2, 8), Modulation(vec, vec), options={"gate": 1.0})
        out.sum().backward()
    assert [sorted(a) for a in seen] == [["mod", "options", "x"]]
