"""What a family is stands in its file alone: no other code asks for its name, its classes or its network's settings."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest
import torch

from harness.models import small_model
from masklora.errors import FamilyError
from masklora.host.families import Slot, families, find_family
from masklora.host.model.blocks import find_blocks

ROOT = Path(__file__).resolve().parents[3]
# Settings of networks whose names are ordinary words of this code too.
ORDINARY = {"dtype", "depth", "dim", "image_size", "context", "model_type"}


def elsewhere():
    for path in [*(ROOT / "masklora").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]:
        if "families" not in path.parts:
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def asked_for(tree):
    """Texts that code compares with, looks up or reads from something by name."""
    for node in ast.walk(tree):
        sides = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            sides = [node.slice]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in READERS:
            sides = node.args
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        for side in sides:
            for part in side.elts if isinstance(side, (ast.Tuple, ast.List, ast.Set)) else [side]:
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value, node.lineno


READERS = {"get", "pop", "getattr", "hasattr", "startswith", "endswith", "issubset", "setdefault"}


@pytest.fixture(scope="module")
def forbidden():
    found = set()
    for family in families():
        found |= {family.name, family.title, *family.configs}
        found |= set(small_model(family.name).model.model_config.unet_config)
    return found - ORDINARY


@pytest.mark.parametrize("family", [f.name for f in families()])
def test_a_family_s_file_is_read_in_one_sitting(family):
    lines = (ROOT / "masklora" / "host" / "families" / f"{family}.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40


@pytest.mark.parametrize("family", families(), ids=lambda f: f.name)
def test_every_layer_that_a_family_s_file_names_is_in_its_network(family):
    network = small_model(family.name).model.diffusion_model
    paths = [path for path, _ in network.named_modules()]
    for pattern in filter(None, (family.text_layer, family.text_taps, family.pooled_layer)):
        assert any(re.fullmatch(pattern, path) for path in paths), pattern
    found = find_blocks(network, family)
    for kind in family.blocks:
        blocks = [block for block, one in found if one is kind]
        for layer in (*kind.tails, *kind.cross, *kind.gate_layers):
            assert any(layer in dict(block.named_modules()) for block in blocks), (kind, layer)


def test_a_network_without_the_blocks_that_its_family_names_is_refused():
    family = families()[0]
    with pytest.raises(FamilyError, match=f"{family.title} network has no blocks .*update both"):
        find_blocks(torch.nn.Sequential(torch.nn.Linear(2, 2)), family)


WRONG = {
    "layer 'nowhere'": {"gate_layers": ("nowhere",)},
    "layer 'elsewhere'": {"cross": ("elsewhere",)},
    "parameter 'imgg'": {"image": Slot("imgg")},
    "parameter 'pee'": {"rotary": (Slot("pee", axis=2),)},
    "parameter 99": {"gates": (Slot(99),)},
}


@pytest.mark.parametrize(("told", "changes"), WRONG.items(), ids=WRONG)
def test_layers_and_parameters_that_the_blocks_do_not_have_are_named(told, changes):
    network = small_model("flux").model.diffusion_model
    family = find_family("Flux", network)
    first, *others = family.blocks
    wrong = dataclasses.replace(family, blocks=(dataclasses.replace(first, **changes), *others))
    with pytest.raises(FamilyError, match=f"DoubleStreamBlock of this FLUX.1 network has no {told}.*update both"):
        find_blocks(network, wrong)


def test_the_search_finds_a_question_for_a_family(forbidden):
    source = 'if a == "flux" or b["hidden_size"] or c.get("context_in_dim") or d in ("sdxl", 3): pass'
    assert {word for word, _ in asked_for(ast.parse(source))} & forbidden == {
        "flux",
        "hidden_size",
        "context_in_dim",
        "sdxl",
    }


def test_no_code_asks_for_a_family_or_a_setting_of_its_network(forbidden):
    wrong = [
        f"{name}:{line} {word}" for name, tree in elsewhere() for word, line in asked_for(tree) if word in forbidden
    ]
    assert wrong == []
