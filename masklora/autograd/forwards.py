"""The one place where the `forward` of somebody's module is replaced for a while."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn

Forward = Callable[..., Any]
_ABSENT = object()


class _Replacement:
    """A forward of ours on an instance, and what it stands in for; `inspect.signature` reads the latter's."""

    def __init__(self, forward: Forward, inner: Forward, before: Any) -> None:
        self.forward, self.__wrapped__, self.before = forward, inner, before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)


@contextlib.contextmanager
def replaced_forwards(
    modules: Iterable[nn.Module], make: Callable[[nn.Module, Forward], Forward | None]
) -> Iterator[None]:
    """Each of `modules` has the forward that `make` gives it while the context lasts.

    The modules' class stays what it was (hosts test it with isinstance) and hooks run around the new forward. At
    the end, also after an error, the instances hold exactly what they held before: nothing, or the same object.

    Args:
        modules: Any of them may already have a forward of another pack or of ours.
        make: Given a module and what its `forward` is now (that of the instance, else the class's, bound), the new
            one, which is to call the latter; None leaves the module alone.
    """
    done: list[tuple[nn.Module, Any]] = []
    try:
        for module in modules:
            before = module.__dict__.get("forward", _ABSENT)
            inner = module.forward
            forward = make(module, inner)
            if forward is not None:
                done.append((module, before))
                module.forward = _Replacement(forward, inner, before)  # type: ignore[method-assign]
        yield
    finally:
        for module, before in reversed(done):
            if before is _ABSENT:
                module.__dict__.pop("forward", None)
            else:
                module.forward = before


def has_foreign_forward(module: nn.Module) -> bool:
    """Whether somebody else has put a `forward` on this instance, under or over ours."""
    forward = module.__dict__.get("forward", _ABSENT)
    while isinstance(forward, _Replacement):
        forward = forward.before
    return forward is not _ABSENT


def is_altered(module: nn.Module) -> bool:
    """Whether somebody else reads or changes what goes into or comes out of this instance, by forward or by hook."""
    return has_foreign_forward(module) or bool(module._forward_hooks or module._forward_pre_hooks)


def positional_names(cls: type[nn.Module]) -> list[str]:
    """The names of what instances of `cls` can be called with by place."""
    parameters = list(inspect.signature(cls.forward).parameters.values())[1:]
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def own_forward(module: nn.Module) -> Forward | None:
    """The forward of ours that is all that happens when `module` is called; None where there is more, or none."""
    forward = module.__dict__.get("forward")
    if not isinstance(forward, _Replacement) or module._forward_hooks or module._forward_pre_hooks:
        return None
    return None if module._backward_hooks or module._backward_pre_hooks else forward.forward
