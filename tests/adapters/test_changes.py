"""Changes that are no product of two factors: their laws, PEFT's own layers, files, and ComfyUI's loader."""

import contextlib

import comfy.lora
import pytest
import torch
from peft import LoHaConfig, LoKrConfig
from peft.mapping import inject_adapter_in_model
from torch import nn

from harness.damage import ALL
from masklora.adapters import (
    AdapterSet,
    Factors,
    Layers,
    from_file,
    from_weights,
    stem_aliases,
    to_comfyui,
    to_diffusers,
)
from masklora.autograd.compiled import Compiler
from masklora.autograd.traced import _tracing
from masklora.errors import AdapterError
from masklora.settings import AdapterSettings

KINDS = ("lokr", "loha", "full")
# For a LoKr: a first factor of 4×4 at most and a whole second one, and a second one of two factors.
CASES = [("lokr", 9, 4), ("lokr", 2, 4), ("lokr", 2, 0), ("loha", 3, 0), ("full", 3, 0)]
CPU = torch.device("cpu")


class Network(nn.Module):
    """A linear layer with a bias and one without, and convolutions with strides, borders and groups."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(24, 16)
        self.b = nn.Linear(16, 12, bias=False)
        self.c = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.d = nn.Conv2d(8, 8, 3, padding=1, groups=2, padding_mode="circular")
        self.e = nn.Conv2d(8, 6, 1, bias=False)

    def forward(self, x, picture):
        return self.b(self.a(x).tanh()).sum((0, 1)), self.c(picture), self.d(picture), self.e(picture)


PATHS = list("abcde")


def adapted(kind, rank, factor, *, drawn=True, dtype=torch.float32):
    torch.manual_seed(0)
    model = Network()
    settings = AdapterSettings(
        algorithm="lora" if kind == "full" else kind, rank=rank, alpha=0.7 * rank, lokr_factor=factor
    )
    layers = Layers(PATHS, full=PATHS if kind == "full" else ())
    adapters = AdapterSet(model, settings, targets=layers, seed=0, device=CPU)
    generator = torch.Generator().manual_seed(3)
    for p in adapters.parameters().values():
        if drawn and not p.any():
            p.data.normal_(0, 0.1, generator=generator)
    model.to(dtype)
    for p in adapters.parameters().values():
        p.data = p.data.to(dtype)
    return model, adapters


def given(dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 3, 24, generator=generator).to(dtype), torch.randn(2, 8, 6, 6, generator=generator).to(dtype)


def answered(model, adapters, dtype=torch.float32):
    with adapters.injected(), torch.no_grad():
        return torch.cat([part.flatten() for part in model(*given(dtype))])


@pytest.mark.parametrize(("kind", "rank", "factor"), CASES)
def test_the_model_is_unchanged_at_first_and_while_adapters_are_disabled(kind, rank, factor):
    model, adapters = adapted(kind, rank, factor, drawn=False)
    with torch.no_grad():
        base = torch.cat([part.flatten() for part in model(*given())])
    assert torch.equal(answered(model, adapters), base)
    model, adapters = adapted(kind, rank, factor)
    assert (answered(model, adapters) - base).norm() > 1e-3 * base.norm()
    with adapters.disabled():
        assert torch.equal(answered(model, adapters), base)
    # And afterwards the network is its own.
    assert {type(module) for module in model.modules()} <= {Network, nn.Linear, nn.Conv2d}


@pytest.mark.parametrize(("kind", "rank", "factor"), CASES)
def test_the_result_is_that_of_the_summed_weight(kind, rank, factor):
    model, adapters = adapted(kind, rank, factor, dtype=torch.float64)
    found = answered(model, adapters, torch.float64)
    for path, change in adapters.factors().items():
        layer = model.get_submodule(path)
        layer.weight.data += change.delta().double().reshape(layer.weight.shape)
        if layer.bias is not None and "diff_b" in change.parts:
            layer.bias.data += change.scale * change.parts["diff_b"].double()
    with torch.no_grad():
        wanted = torch.cat([part.flatten() for part in model(*given(torch.float64))])
    assert (found - wanted).norm() <= 1e-6 * wanted.norm()


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("kind", "rank", "factor"), CASES)
def test_gradients_equal_finite_differences_in_float64(kind, rank, factor, traced):
    model, adapters = adapted(kind, rank, factor, dtype=torch.float64)
    parameters = adapters.parameters()
    x, picture = given(torch.float64)
    x.requires_grad_()

    def loss():
        return sum(part.square().mean() for part in model(x, picture))

    with adapters.injected():
        if traced:
            with _tracing():
                value = loss()
        else:
            value = loss()
        tensors = [x, *parameters.values()]
        grads = torch.autograd.grad(value, tensors)
        generator = torch.Generator().manual_seed(8)
        for tensor, grad in zip(tensors, grads, strict=True):
            direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            start, found = tensor.detach().clone(), 0.0
            with torch.no_grad():
                for step, weight in ((1, 4 / 5), (2, -1 / 5), (3, 4 / 105), (4, -1 / 280)):
                    for sign in (1, -1):
                        tensor.copy_(start + sign * step * 3e-3 * direction)
                        found += sign * weight * float(loss())
                tensor.copy_(start)
            assert float((grad * direction).sum()) == pytest.approx(found / 3e-3, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(("kind", "rank", "factor"), CASES if ALL else CASES[1::2] + CASES[-1:])
def test_as_a_graph_they_have_the_same_gradients_and_say_nothing(kind, rank, factor):
    model, adapters = adapted(kind, rank, factor)
    x, picture = given()
    tensors, said = [x.requires_grad_(), *adapters.parameters().values()], []
    compiler = Compiler(tell=said.append, compile=lambda graph: graph)

    def gradients():
        return torch.autograd.grad(sum(part.square().mean() for part in model(x, picture)), tensors)

    with adapters.injected():
        wanted = gradients()
        ways = {"at_hand": lambda block, again: contextlib.nullcontext(), "hindrance": lambda block, arguments: ""}
        with compiler.compiled([model], **ways):
            found = gradients()
    assert said == [] and compiler._graphs
    assert all(torch.allclose(f, w, rtol=1e-4, atol=1e-6) and w.any() for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize(("kind", "rank", "factor"), [case for case in CASES if case[0] != "full"])
def test_the_numbers_are_those_of_pefts_own_layers(kind, rank, factor):
    model, adapters = adapted(kind, rank, factor)
    found = answered(model, adapters)
    config = {
        "lokr": lambda: LoKrConfig(r=rank, alpha=0.7 * rank, decompose_factor=factor or -1, target_modules=PATHS),
        "loha": lambda: LoHaConfig(r=rank, alpha=0.7 * rank, target_modules=PATHS),
    }[kind]()
    inject_adapter_in_model(config, model, adapter_name="default")
    for name, value in adapters.parameters().items():
        path, _, part = name.rpartition(".")
        getattr(model.get_submodule(path), part)["default"].data.copy_(value)
    with torch.no_grad():
        # Their convolutions leave out how a layer's borders are filled.
        layers = {path: model.get_submodule(path) for path in "abce"}
        x, picture = given()
        theirs = layers["b"](layers["a"](x).tanh()).sum((0, 1)), layers["c"](picture), layers["e"](picture)
    sizes = [12, 2 * 12 * 9, 2 * 8 * 36, 2 * 6 * 36]
    b, c, _, e = found.split(sizes)
    for own, wanted in zip((b, c, e), theirs, strict=True):
        assert torch.allclose(own, wanted.flatten(), rtol=1e-5, atol=1e-5)


def loaded(model, tensors, strength, caplog):
    """The weights and biases as ComfyUI's loader makes them of these tensors; nothing may be left over."""
    to_load = {"lora_unet_" + path.replace(".", "_"): f"{path}.weight" for path in PATHS}
    with caplog.at_level("WARNING"):
        patches = comfy.lora.load_lora(dict(tensors), to_load)
    assert not caplog.records
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    for key, patch in patches.items():
        weights[key] = comfy.lora.calculate_weight([(strength, patch, 1.0, None, None)], weights[key], key)
    assert not caplog.records
    return weights


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize(("kind", "rank", "factor"), CASES)
def test_comfyui_applies_the_same_change_at_any_strength(kind, rank, factor, strength, caplog):
    model, adapters = adapted(kind, rank, factor)
    plain = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = loaded(model, to_comfyui(adapters.factors()), strength, caplog)
    learned = {path: wrapper.learned for path, wrapper in zip(adapters.targets, adapters.wrappers, strict=True)}
    for name in plain:
        path, _, part = name.rpartition(".")
        wanted = learned[path].weight() if part == "weight" else learned[path].bias(torch.float32)
        wanted = torch.zeros_like(plain[name]) if wanted is None else strength * wanted.detach()
        assert (found[name] - plain[name] - wanted).norm() <= 1e-5 * wanted.norm() + 1e-7, name


@pytest.mark.parametrize(("kind", "rank", "factor"), CASES)
def test_a_file_goes_on_as_it_was_whatever_the_alpha(kind, rank, factor):
    _, first = adapted(kind, rank, factor)
    tensors = to_comfyui(first.factors())
    read = from_file(tensors, aliases=stem_aliases(PATHS), file="x.safetensors")
    _, second = adapted(kind, rank, factor, drawn=False)
    for wrapper in second.wrappers:
        wrapper.learned.scale *= 3
        wrapper.scaling = {"default": wrapper.learned.scale}
    second.load(read)
    for path, change in second.factors().items():
        wanted = first.factors()[path]
        assert torch.allclose(change.delta(), wanted.delta(), rtol=1e-5, atol=1e-6)
        if "diff_b" in change.parts:
            biases = [one.scale * one.parts["diff_b"] for one in (change, wanted)]
            assert torch.allclose(*biases, rtol=1e-6)


def test_a_lokr_with_factors_of_its_factors_is_continued_where_they_are_whole_here():
    _, first = adapted("lokr", 2, 4)
    _, second = adapted("lokr", 9, 4, drawn=False)
    second.load(first.factors())
    for path, change in second.factors().items():
        assert "lokr_w2" in change.parts
        assert torch.allclose(change.delta(), first.factors()[path].delta(), rtol=1e-5, atol=1e-6)
    with pytest.raises(AdapterError, match=r"a has lokr weights of the sizes .* Set rank and lokr_factor"):
        first.load(second.factors())


def test_a_full_layer_goes_on_from_any_change_but_a_dora():
    _, full = adapted("full", 3, 0, drawn=False)
    for kind, rank, factor in CASES[:4]:
        _, other = adapted(kind, rank, factor)
        full.load(other.factors())
        for path, change in full.factors().items():
            assert torch.allclose(change.delta(), other.factors()[path].delta())
            assert not change.parts.get("diff_b", torch.zeros(1)).any()
    lora = Factors(torch.randn(3, 24), torch.randn(16, 3), 1.5)
    full.load({"a": lora})
    assert torch.allclose(full.factors()["a"].delta(), lora.delta())
    with pytest.raises(AdapterError, match=r"DoRA magnitudes .* full_layers"):
        full.load({"a": Factors(lora.down, lora.up, 1.5, torch.ones(16, 1))})
    with pytest.raises(AdapterError, match="full weights of the sizes diff 16×20"):
        full.load({"a": Factors(torch.randn(3, 20), lora.up, 1.5)})


def test_another_algorithm_is_told_with_the_layer():
    _, lokr = adapted("lokr", 9, 4)
    _, loha = adapted("loha", 3, 0)
    _, full = adapted("full", 3, 0)
    with pytest.raises(AdapterError, match="a has loha weights in the file, and algorithm is lokr"):
        lokr.load(loha.factors())
    with pytest.raises(AdapterError, match="a has LoRA weights in the file, and algorithm is loha"):
        loha.load({"a": Factors(torch.randn(3, 24), torch.randn(16, 3), 1.5)})
    lora = AdapterSet(Network(), AdapterSettings(rank=2, alpha=2.0), targets=["a"], seed=0, device=CPU)
    for other, remedy in ((lokr, "Set algorithm to lokr"), (full, "Name it in full_layers")):
        with pytest.raises(AdapterError, match=f"start_from: a has .* {remedy}"):
            lora.load({"a": other.factors()["a"]})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lokr_w2": None}, "lacks a part of its lokr"),
        ({"lokr_w2": None, "lokr_w2_a": (2, 2)}, "lacks a part of its lokr"),
        ({"lora_down.weight": (2, 24)}, "weights of two kinds"),
        ({"hada_w1_a": (2, 2)}, "lacks a part of its lokr, or has parts of others"),
        ({"lokr_t2": (2, 2)}, "is not a LoRA key that can be continued"),
        ({"oft_blocks": (2, 2, 2)}, "is not a LoRA key that can be continued"),
        ({"alpha": (2,)}, "alpha of 2 values"),
    ],
)
def test_a_file_that_is_none_is_an_error_that_names_it(changes, told):
    parts = {"lokr_w1": (4, 4), "lokr_w2": (4, 6), **changes}
    tensors = {f"lora_unet_a.{name}": torch.ones(shape) for name, shape in parts.items() if shape}
    with pytest.raises(AdapterError, match=f"x.safetensors: lora_unet_a.*{told}"):
        from_file(tensors, aliases=stem_aliases(PATHS), file="x.safetensors")


def test_diffusers_gets_none_of_them():
    for kind, rank, factor in CASES[2:]:
        _, adapters = adapted(kind, rank, factor)
        with pytest.raises(AdapterError, match=f"format: diffusers reads no {kind} weights, which a has"):
            to_diffusers(adapters.factors(), names={path: [(path, 0, 0)] for path in PATHS}, prefix="transformer")


@pytest.mark.parametrize(("kind", "rank", "factor"), CASES)
def test_a_checkpoint_tells_the_same_without_its_model(kind, rank, factor):
    _, adapters = adapted(kind, rank, factor)
    weights = {name: p.detach() for name, p in adapters.parameters().items()}
    kept = from_weights(weights, {path: adapters.scaling(path) for path in adapters.targets})
    found, wanted = to_comfyui(kept), to_comfyui(adapters.factors())
    assert list(found) == list(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(("kind", "rank", "factor"), CASES)
def test_dropout_is_drawn_while_trained_alone(kind, rank, factor):
    model = Network()
    algorithm = "lora" if kind == "full" else kind
    settings = AdapterSettings(algorithm=algorithm, rank=rank, alpha=1.0, lokr_factor=factor, dropout=0.5)
    layers = Layers(PATHS, full=PATHS if kind == "full" else ())
    adapters = AdapterSet(model, settings, targets=layers, seed=0, device=CPU)
    for p in adapters.parameters().values():
        p.data.normal_(0, 0.1)
    assert not torch.equal(answered(model, adapters), answered(model, adapters))
    adapters.set_training(False)
    assert torch.equal(answered(model, adapters), answered(model, adapters))
