"""CAME, Muon, SOAP and ADOPT, which come from the package pytorch-optimizer.

Of the two packages that have several of these it is the one with all of them; adv-optm has neither CAME nor SOAP. Its
state is tensors and numbers, which come back exactly (tests/optimizers/test_optim.py).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..errors import ConfigError
from ..settings import OptimizerSettings

PACKAGE = "pytorch-optimizer"
OLDEST = (4, 1)
# Of each one's paper; they hold while the widgets are at their defaults.
CAME_THIRD_BETA = 0.9999
MUON_MOMENTUM = 0.95
SOAP_BETAS = (0.95, 0.95)
ADOPT_BETAS = (0.9, 0.9999)
ADOPT_EPS = 1e-6

Groups = list[dict[str, Any]]


def library(optimizer: str) -> Any:
    """The package's module.

    Raises:
        ConfigError: It is not installed, or too old.
    """
    try:
        module = importlib.import_module("pytorch_optimizer")
        version = importlib.metadata.version(PACKAGE)
    except ImportError as error:
        raise ConfigError(
            f"optimizer: {optimizer} needs the package {PACKAGE}, which is not installed in ComfyUI's Python "
            f"({error}). Install it there, or choose adamw."
        ) from error
    oldest = ".".join(map(str, OLDEST))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        raise ConfigError(
            f"optimizer: {optimizer} needs {PACKAGE} {oldest} or later, and {version} is installed in "
            "ComfyUI's Python. Update it there, or choose adamw."
        )
    return module


def _betas(settings: OptimizerSettings, usual: tuple[float, float]) -> tuple[float, float]:
    return usual if settings.betas == OptimizerSettings().betas else settings.betas


def came(groups: Groups, settings: OptimizerSettings) -> Optimizer:
    """CAME, arXiv 2307.02047: second moments by row and column, as Adafactor's, and trust in the step."""
    betas = (*settings.betas, CAME_THIRD_BETA)
    return library("came").CAME(groups, betas=betas, weight_decay=settings.weight_decay)


def muon(groups: Groups, settings: OptimizerSettings) -> Optimizer:
    """Muon: the momentum of each factor is made orthogonal, A and B each by themselves.

    Only matrices are: what a convolution has as factors, and DoRA's magnitudes, take AdamW's steps. Steps are scaled
    as in arXiv 2502.16982, to be as long as AdamW's, so that both have one learning rate.
    """
    usual = OptimizerSettings()
    momentum = MUON_MOMENTUM if settings.betas[0] == usual.betas[0] else settings.betas[0]
    parted: Groups = []
    for group in groups:
        matrices = [p for p in group["params"] if p.ndim == 2]
        others = [p for p in group["params"] if p.ndim != 2]
        decay = {**group, "weight_decay": settings.weight_decay}
        if matrices:
            parted.append({**decay, "params": matrices, "use_muon": True, "momentum": momentum})
        if others:
            own = {"use_muon": False, "betas": settings.betas, "eps": settings.eps}
            parted.append({**decay, "params": others, **own})
    return library("muon").Muon(parted, use_adjusted_lr=True)


def soap(groups: Groups, settings: OptimizerSettings) -> Optimizer:
    """SOAP, arXiv 2409.11321: Adam along the axes of the gradient's own statistics, on each one's narrower side alone.

    Of a LoRA's factors that is the rank. A matrix of statistics for a side as wide as the layer would be larger than
    the LoRA; the paper leaves out what is too wide as well. Whole weights beside them do not widen what theirs is.
    """
    parted: Groups = []
    for group in groups:
        by_side: defaultdict[int, list[Any]] = defaultdict(list)
        for parameter in group["params"]:
            by_side[_narrower(parameter.shape)].append(parameter)
        parted += [{**group, "params": own, "max_precondition_dim": side} for side, own in by_side.items()]
    made = library("soap").SOAP(
        parted, betas=_betas(settings, SOAP_BETAS), eps=settings.eps, weight_decay=settings.weight_decay
    )
    made.register_step_post_hook(_laid_out_as_in_files)
    return made


def _laid_out_as_in_files(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Bases come from LAPACK column by column, and from a file row by row, and products of these differ in bits."""
    for state in optimizer.state.values():
        if state.get("Q"):
            state["Q"] = [basis.contiguous() if isinstance(basis, Tensor) else basis for basis in state["Q"]]


def adopt(groups: Groups, settings: OptimizerSettings) -> Optimizer:
    """ADOPT, arXiv 2411.02853: Adam that converges whatever beta2 is."""
    eps = ADOPT_EPS if settings.eps == OptimizerSettings().eps else settings.eps
    return library("adopt").ADOPT(
        groups,
        betas=_betas(settings, ADOPT_BETAS),
        eps=eps,
        weight_decay=settings.weight_decay,
        weight_decouple=True,
    )


BUILDERS: dict[str, Callable[[Groups, OptimizerSettings], Optimizer]] = {
    "came": came,
    "muon": muon,
    "soap": soap,
    "adopt": adopt,
}


def _narrower(shape: Sequence[int]) -> int:
    """The smaller of the first two sides: of a factor its rank; 1 where there is one side."""
    return min(shape[:2]) if len(shape) > 1 else 1


def state_numbers(optimizer: str, shapes: Sequence[Sequence[int]]) -> int | None:
    """How many float32 numbers one of these keeps of parameters of these shapes; None of another optimizer."""
    if optimizer not in BUILDERS:
        return None
    return sum(_STATES[optimizer](tuple(shape)) for shape in shapes)


def _of_came(shape: tuple[int, ...]) -> int:
    numbers = math.prod(shape)
    if len(shape) < 2:
        return 2 * numbers
    return numbers + 2 * (numbers // shape[-1] + numbers // shape[-2])


def _of_soap(shape: tuple[int, ...]) -> int:
    sides = [side for side in shape if side <= _narrower(shape)] if len(shape) > 1 else []
    return 2 * math.prod(shape) + 2 * sum(side * side for side in sides)


_STATES: dict[str, Callable[[tuple[int, ...]], int]] = {
    "came": _of_came,
    "muon": lambda shape: math.prod(shape) * (1 if len(shape) == 2 else 2),
    "soap": _of_soap,
    "adopt": lambda shape: 2 * math.prod(shape),
}
