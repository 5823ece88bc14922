"""Writes in place never change what autograd saved, and a graph never gets another tensor's values."""

import gc

import pytest
import torch
from torch.autograd.graph import allow_mutation_on_saved_tensors
from torch.utils._python_dispatch import TorchDispatchMode

from masklora.autograd.saved_tensors import saved_tensor_scope


def scope():
    return saved_tensor_scope(mutates=True)


def leaf(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


class CountClones(TorchDispatchMode):
    """Keeps the shapes of all clones that are made."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.clone.default:
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def by(x, out):
    return torch.autograd.grad(out, x)[0]


def test_without_writes_gradients_are_the_same_bit_for_bit_and_nothing_is_copied():
    x, w = leaf(6, 4), leaf(4, 4, seed=1)

    def gradients():
        h = torch.nn.functional.silu(x @ w)
        return torch.autograd.grad((h.softmax(-1) * h).sum(), (x, w))

    plain = gradients()
    with CountClones() as clones, scope():
        found = gradients()
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    assert clones.shapes == []


def square_then(write):
    """The gradient of the sum of squares of a copy of x, to which `write` writes afterwards, and 2 x."""
    x = leaf(4, 6)
    with scope():
        h = x.clone()
        out = (h**2).sum()
        with torch.no_grad():
            write(h)
        return by(x, out), 2 * x.detach()


WRITES = {
    "in place": lambda h: h.mul_(3),
    "augmented": lambda h: h.__iadd__(1),
    "to an item": lambda h: h.__setitem__((0, slice(2, 4)), 7.0),
    "to a mask": lambda h: h.__setitem__(h > 0, 0.0),
    "by index": lambda h: h.index_add_(0, torch.tensor([1]), torch.ones(1, 6, dtype=h.dtype)),
    "copy": lambda h: h.copy_(torch.zeros_like(h)),
    "out": lambda h: torch.add(h, 1, out=h),
    "for each": lambda h: torch._foreach_mul_([h], 2),
    "through a view": lambda h: h.view(-1)[5:9].zero_(),
    "through a transposed view": lambda h: h.T.add_(1),
    "through detach": lambda h: h.detach().fill_(0),
    "through data": lambda h: h.data.fill_(0),
    "through numbers of another type": lambda h: h.view(torch.int64).fill_(0),
    "twice": lambda h: h.mul_(3).add_(1),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_is_written_after_saving_does_not_reach_the_gradient(write):
    found, expected = square_then(write)
    assert torch.equal(found, expected)


def written_through_another_view(context):
    x = leaf(6)
    with context:
        h = x.clone()
        out = (h[2:] ** 2).sum()
        with torch.no_grad():
            h.mul_(3)
        found = by(x, out)
    return torch.equal(found[2:], 2 * x.detach()[2:])


def test_a_view_is_kept_where_its_base_is_written():
    assert written_through_another_view(scope())
    assert not written_through_another_view(allow_mutation_on_saved_tensors()), "torch's own would do"


def rounds_with_wrong_gradients(context, rounds=3000):
    """Of so many tensors, each gone before the next is made, those whose gradient is not that of their square."""
    x = leaf(rounds, 8)
    with context:
        outs = []
        for row in x:
            h = row.clone()
            outs.append((h**2).sum())
            with torch.no_grad():
                h.mul_(3)
            del h
        found = by(x, torch.stack(outs).sum())
    return int((found != 2 * x.detach()).any(1).sum())


def test_a_tensor_at_the_address_of_one_that_is_gone_keeps_its_own_values():
    assert rounds_with_wrong_gradients(scope()) == 0
    assert rounds_with_wrong_gradients(allow_mutation_on_saved_tensors()) > 0, "torch's own would do"


def test_each_view_is_copied_once_and_only_where_something_is_written():
    x = leaf(4, 6)
    with CountClones() as clones, scope():
        h, other = x * 1, x * 2
        out = (h**2).sum() + (h**3).sum() + (h[:2] ** 2).sum() + (other**2).sum()
        with torch.no_grad():
            h.mul_(3)
            h.mul_(3)
        found = by(x, out)
    assert sorted(clones.shapes) == [(2, 6), (4, 6)]
    expected = 2 * x + 3 * x**2 + 8 * x
    expected[:2] += 2 * x[:2]
    assert torch.allclose(found, expected.detach(), rtol=1e-14)


def test_views_of_one_shape_keep_their_own_order():
    x, w = leaf(3, 3), leaf(3, 3, seed=1)
    with scope():
        h = w.detach().clone()
        out = (x * h).sum() + (x**2 * h.T).sum()
        h.zero_()
        found = by(x, out)
    assert torch.allclose(found, (w + 2 * x * w.T).detach(), rtol=1e-14)


def test_views_as_other_types_are_kept_apart():
    x = leaf(2)
    with scope():
        h = torch.zeros(2, dtype=torch.float64)
        out = (x * h).sum() + x[h.view(torch.int64)].sum()
        h.fill_(1)
        found = by(x, out)
    assert found.tolist() == [2, 0]


def test_a_complex_view_and_its_conjugate_are_kept_apart():
    x, w = leaf(3).detach().to(torch.complex128).requires_grad_(), torch.complex(leaf(3), leaf(3, seed=1)).detach()
    with scope():
        h = w.clone()
        out = (x * h).real.sum() + 2 * (x * h.conj()).imag.sum()
        h.zero_()
        found = by(x, out)
    assert torch.allclose(found, w.conj() + 2j * w, rtol=1e-14)


def test_what_backward_no_longer_needs_is_not_copied():
    x = leaf(4)
    with CountClones() as clones, scope():
        h = x * 1
        by(x, (h**2).sum())
        gc.collect()
        with torch.no_grad():
            h.mul_(3)
    assert clones.shapes == []


def test_empty_tensors_and_those_that_are_resized():
    x = leaf(0, 3)
    with scope():
        h = x * 1
        out = (h**2).sum()
        with torch.no_grad():
            h.mul_(2)
        assert by(x, out).shape == (0, 3)
    x = leaf(3)
    with scope():
        h = torch.empty(3, dtype=torch.float64).copy_(x.detach())
        out = (x * h).sum()
        h.resize_(4096).zero_()
        assert torch.equal(by(x, out), x.detach())


def test_backward_after_the_scope_is_an_error():
    x = leaf(3)
    with scope():
        out = ((x * 1) ** 2).sum()
    with pytest.raises(RuntimeError, match="before the scope ends"):
        out.backward()


def test_a_scope_inside_another_guards_what_either_has_saved():
    x = leaf(3)
    with scope():
        h = x.clone()
        out = (h**2).sum()
        with scope():
            inner = (h**3).sum()
            with torch.no_grad():
                h.zero_()
            assert torch.allclose(by(x, inner), 3 * x.detach() ** 2, rtol=1e-14)
        assert torch.equal(by(x, out), 2 * x.detach())


def test_without_the_promise_to_write_torch_refuses():
    x = leaf(3)
    with saved_tensor_scope(mutates=False):
        h = x * 1
        out = (h**2).sum()
        with torch.no_grad():
            h.zero_()
        with pytest.raises(RuntimeError, match="inplace operation"):
            by(x, out)


def random_program(x, seed, keep):
    """Twenty random steps, each of them saving (through `keep`), writing in place, or both, on views of all kinds."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        return int(torch.randint(n, (1,), generator=generator))

    def view(t):
        return [t, t[draw(3) :], t[:, : 1 + draw(4)], t.T, t.view(-1)[draw(5) :: 2]][draw(5)]

    h = x.clone()
    total = x.new_zeros(())
    for _ in range(20):
        kind = draw(5)
        part = view(h)
        if kind == 0:
            part *= 0.5 + part.new_tensor(0.1 * draw(5))
        elif kind == 1:
            part += keep(view(h)).cos().mean()
        elif kind == 2:
            total = total + (keep(part).sin() * keep(part)).sum()
        elif kind == 3:
            h = h + keep(h).tanh() * keep(h)
        else:
            part.sub_(keep(part).sigmoid().mean())
    return total + keep(h).square().sum()


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_have_the_gradient_that_they_have_on_copies(seed):
    x = leaf(4, 5, seed=seed)
    expected = by(x, random_program(x, seed, keep=torch.clone))
    with scope():
        found = by(x, random_program(x, seed, keep=lambda t: t))
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)
