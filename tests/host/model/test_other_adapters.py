"""Adapters of every kind in ComfyUI's own networks: in training as in its loader."""

import contextlib

import comfy.lora
import comfy.sd
import pytest
import torch

from benchmarks.gradients import MODES, Problem, measure
from harness.casting import CastRun
from harness.damage import ALL
from harness.models import small_model, small_side, small_text
from harness.quantised import LAYOUTS, dequantised_model, quantised_model
from masklora.adapters import to_comfyui
from masklora.autograd.compiled import Compiler
from masklora.dataset.geometry import Geometry
from masklora.host.model.blocks import counted_paths
from masklora.host.model.layer_names import layer_names
from masklora.host.model.trainable import TrainableModel
from masklora.runs.lora_file import cast_tensors
from masklora.settings import AdapterSettings, ExportSettings

SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))
FAMILIES = ("sd15", "flux", "z_image", "wan")
# Layers outside of the blocks, and some of the targets.
FULL = {
    "sd15": r"time_embed\.0|\.out\.0$",
    "flux": r"img_in|attn\.qkv",
    "z_image": r"x_embedder|qkv",
    "wan": "head|\\.q$",
}
KINDS = {
    "lokr": {"algorithm": "lokr", "lokr_factor": 4},
    "lokr whole": {"algorithm": "lokr", "lokr_factor": 16, "rank": 64, "alpha": 40.0},
    "loha": {"algorithm": "loha"},
    "full": {"full_layers": "", "algorithm": "lora"},
    "ranks": {"algorithm": "lora", "rank_by_layer": "blocks 0: 6, others 2"},
    "lora": {"algorithm": "lora"},
    "rslora": {"algorithm": "rslora"},
    "tlora": {"algorithm": "tlora", "least_rank": 1},
    "dora": {"algorithm": "dora"},
}
CASES = [(family, kind) for family in FAMILIES for kind in KINDS]
if not ALL:
    usual = {
        "sd15": ["lokr", "dora"],
        "flux": ["lokr whole", "loha", "full", "ranks"],
        "z_image": ["lokr"],
        "wan": ["full", "loha"],
    }
    CASES = [(family, kind) for family, kinds in usual.items() for kind in kinds]


def settings_of(family, kind):
    chosen = {"rank": 4, "alpha": 2.0, **KINDS[kind]}
    if "full_layers" in chosen:
        chosen["full_layers"] = FULL[family]
    # As U-Nets have them.
    return AdapterSettings(convolutions=family == "sd15", targets="all" if family == "sd15" else "default", **chosen)


def drawn(trainable, settings):
    adapters = trainable.make_adapters(settings, seed=0)
    generator = torch.Generator().manual_seed(4)
    for p in adapters.parameters().values():
        if not p.any() or settings.algorithm == "loha":
            # As much as the weights themselves, beside which float32 rounds.
            p.data.normal_(0.0, 0.3, generator=generator)
    for name, p in adapters.parameters().items():
        if name.endswith("magnitude"):
            p.data *= 1 + 0.1 * torch.randn(p.shape, generator=generator)
    # Of ranks that noise levels open, a file has all.
    adapters.set_training(False)
    return adapters


def answer(trainable, family):
    generator = torch.Generator().manual_seed(1)
    side = small_side(trainable.family)
    noisy = torch.randn(2, trainable.channels, side, side, generator=generator)
    texts = [small_text(family, tokens=20, seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        conditioning = trainable.collate(texts, [SQUARE] * 2, noisy.shape[1:])
        return trainable.denoise(noisy, torch.tensor([0.3, 0.8]), conditioning)


def weakened(adapters, strength):
    """What was learned takes part at this strength."""
    for wrapper in adapters.wrappers:
        wrapper.scaling["default"] *= strength
        if hasattr(wrapper, "learned"):
            wrapper.learned.scale *= strength


@contextlib.contextmanager
def placed(trainable, changed):
    """Some of the model's weights are others; gives how many."""
    weights = trainable.model.state_dict()
    before = {key: weights[key].clone() for key in changed}
    for key, weight in changed.items():
        weights[key].copy_(weight)
    try:
        yield len(before)
    finally:
        for key, weight in before.items():
            weights[key].copy_(weight)


def decomposed(trainable, adapters, strength):
    """{key: weight} of a DoRA by its definition, W + strength·(m·V/‖V‖ − W) with V = W + s·B·A in float64."""
    values, found = {name: p.detach().double() for name, p in adapters.parameters().items()}, {}
    for path in adapters.targets:
        key = f"diffusion_model.{path}.weight"
        weight = trainable.model.state_dict()[key].double()
        down, up = (values[f"{path}.lora_{part}"].flatten(1) for part in "AB")
        rows = weight.flatten(1) + adapters.scaling(path) * up @ down
        rows *= (values[f"{path}.magnitude"].flatten() / rows.norm(dim=1))[:, None]
        found[key] = weight + strength * (rows.reshape(weight.shape) - weight)
    return found


@contextlib.contextmanager
def patched(trainable, tensors, strength, caplog):
    """The model's weights are what ComfyUI's loader makes of a file's tensors; no key may be left over."""
    with caplog.at_level("WARNING"):
        loaded, _ = comfy.sd.load_lora_for_models(trainable.patcher, None, dict(tensors), strength, 0.0)
        weights = trainable.model.state_dict()
        changed = {
            key: comfy.lora.calculate_weight(patches, weights[key].clone(), key)
            for key, patches in loaded.patches.items()
        }
    assert not [record for record in caplog.records if "lora key" in record.message or "ERROR" in record.message]
    with placed(trainable, changed) as count:
        yield count


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_comfyuis_loader_makes_the_output_of_the_training(family, kind, caplog):
    trainable = TrainableModel(small_model(family))
    adapters = drawn(trainable, settings_of(family, kind))
    base = answer(trainable, family)
    tensors = to_comfyui(adapters.factors(), names=layer_names(trainable.model, trainable.family).kohya)
    found = {}
    with trainable.session(adapters):
        found[1.0] = answer(trainable, family)
    if kind == "dora":
        # PEFT has it at full strength alone.
        with placed(trainable, decomposed(trainable, adapters, 1.0)):
            assert (answer(trainable, family) - found[1.0]).norm() <= 1e-5 * (found[1.0] - base).norm()
        with placed(trainable, decomposed(trainable, adapters, 0.5)):
            found[0.5] = answer(trainable, family)
    else:
        weakened(adapters, 0.5)
        with trainable.session(adapters):
            found[0.5] = answer(trainable, family)
    changes = {strength: (out - base).norm() for strength, out in found.items()}
    assert changes[1.0] > 0.05 * base.norm() and not torch.allclose(found[1.0], found[0.5])
    stored = cast_tensors(tensors, dtype=ExportSettings().dtype)
    for strength, out in found.items():
        with patched(trainable, tensors, strength, caplog) as count:
            assert (answer(trainable, family) - out).norm() <= 1e-5 * changes[strength]
        assert count == len({key.split(".")[0] for key in tensors}) + sum(k.endswith("diff_b") for k in tensors)
        with patched(trainable, stored, strength, caplog):
            assert (answer(trainable, family) - out).norm() <= 1e-2 * changes[strength]
    assert torch.equal(answer(trainable, family), base)


def test_blocks_are_counted_as_they_lie_in_the_model():
    """On a U-Net, too, where those of one kind lie between those of another."""
    unet, flux = (TrainableModel(small_model(family)) for family in ("sd15", "flux"))
    wanted = ["input_blocks.1.0", "input_blocks.1.1.transformer_blocks.0", "input_blocks.3.0", "middle_block.0"]
    found = counted_paths(unet.network, unet.blocks)
    assert found[:4] == wanted and found[-1] == "output_blocks.3.1.transformer_blocks.0" and len(found) == 12
    named = [f"{kind}_blocks.{number}" for kind in ("double", "single") for number in (0, 1)]
    assert counted_paths(flux.network, flux.blocks) == named
    adapters = unet.make_adapters(AdapterSettings(rank=4, alpha=4.0, rank_by_layer="blocks 1: 6"), seed=0)
    ranks = {path: len(learned.down) for path, learned in adapters.factors().items()}
    assert {path for path, rank in ranks.items() if rank == 6} == {path for path in ranks if f"{wanted[1]}." in path}


HALF = [(*case, s) for case in CASES for s in (1.0, 0.5)] if ALL else [("flux", "lokr", 1.0), ("wan", "full", 0.5)]


# A DoRA at half strength is no training's.
@pytest.mark.parametrize(("family", "kind", "strength"), [c for c in HALF if c[1:] != ("dora", 0.5)])
def test_a_model_that_computes_in_bfloat16_learns_what_its_file_does(family, kind, strength, caplog):
    """To a hundredth of the change, beside what bfloat16 alone makes of the base model's answer."""
    trainable = TrainableModel(small_model(family), dtype=torch.bfloat16)
    adapters = drawn(trainable, settings_of(family, kind))
    tensors = to_comfyui(adapters.factors(), names=layer_names(trainable.model, trainable.family).kohya)
    weakened(adapters, strength)
    with trainable.session(adapters):
        found = answer(trainable, family)
        with adapters.disabled():
            rounded = answer(trainable, family)
    exact = TrainableModel(small_model(family))
    base = answer(exact, family)
    with patched(exact, cast_tensors(tensors, dtype=ExportSettings().dtype), strength, caplog):
        wanted = answer(exact, family)
    change, noise = (wanted - base).norm(), (rounded - base).norm()
    assert change > 5 * noise
    assert (found - wanted).norm() <= 1e-2 * change + 2 * noise


EXACT = [("flux", "lokr")]
EXACT += [("flux", kind) for kind in ("lokr whole", "loha", "full", "ranks")] if ALL else []
EXACT += [("sd15", "lokr"), ("sd15", "loha"), ("wan", "lokr")] if ALL else []


@pytest.mark.parametrize(("family", "kind"), EXACT)
def test_gradients_are_exact_in_every_checkpointing_mode(family, kind):
    chosen = {**KINDS[kind], **({"full_layers": FULL[family]} if kind == "full" else {})}
    chosen.pop("rank", None), chosen.pop("alpha", None)
    row = measure(family, dtype=torch.float64, targets="all" if family == "sd15" else "default", **chosen)
    for mode in MODES:
        assert row[f"{mode}: against off"] <= 1e-12, row
    truths = [key for key in row if key.endswith(("plain autograd", "finite differences"))]
    assert len(truths) >= len(MODES) and all(row[key] <= 1e-9 for key in truths), row


# A small layer alone is traced in the usual run, see test_changes.py.
@pytest.mark.parametrize("kind", ["lokr", "loha", "full"] if ALL else [])
def test_compiled_blocks_have_the_same_gradients_and_say_nothing(kind):
    chosen = {**KINDS[kind], **({"full_layers": FULL["flux"]} if kind == "full" else {})}
    subject, said = Problem("flux", dtype=torch.float32, **chosen), []
    compiler = Compiler(tell=said.append, compile=lambda graph: graph)
    wanted = subject.gradients("per block")
    found = subject.gradients("per block", compiler)
    assert said == []
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, name


@pytest.mark.parametrize("layout", list(LAYOUTS) if ALL else ["fp8 e4m3"])
@pytest.mark.parametrize("kind", ["lokr", "loha", "full"])
def test_on_quantised_layers_they_learn_what_they_learn_on_the_dequantised(layout, kind):
    chosen = {**KINDS[kind], **({"full_layers": FULL["flux"]} if kind == "full" else {})}
    stored = quantised_model("flux", LAYOUTS[layout])
    out, grads = CastRun("flux", stored, **chosen).gradients("per block")
    wanted_out, wanted = CastRun("flux", dequantised_model("flux", stored), **chosen).gradients("off")
    assert (out - wanted_out).norm() <= 1e-5 * wanted_out.norm()
    assert all((g - w).norm() <= 1e-5 * w.norm() + 1e-12 for g, w in zip(grads, wanted, strict=True))
    assert all(g.any() for g in grads)
