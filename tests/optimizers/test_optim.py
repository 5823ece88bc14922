"""Optimizers step, learning-rate curves are functions of the step, state comes back exactly."""

import importlib.metadata
import importlib.util
import math
import sys

import pytest
import torch

from harness.toy import same
from masklora.errors import ConfigError, RunError
from masklora.files import pack, unpack
from masklora.optimizers.library import BUILDERS, state_numbers
from masklora.optimizers.optim import (
    Ema,
    Part,
    StepGate,
    apply_learning_rate,
    check_optimizer,
    copy_named,
    learning_rate_factor,
    make_optimizer,
    optimizer_state,
    parameter_groups,
    restore_optimizer,
    result_weights,
)
from masklora.settings import OPTIMIZERS, SCHEDULES, OptimizerSettings

HERE = [name for name in OPTIMIZERS if name != "adamw8bit"]


def make_params():
    g = torch.Generator().manual_seed(0)
    shapes = {"a.lora_A.default.weight": (4, 9), "a.lora_B.default.weight": (7, 4), "a.magnitude": (7,)}
    return {name: torch.nn.Parameter(torch.randn(*shape, generator=g)) for name, shape in shapes.items()}


def make(params, name, *, rate=1e-2, **settings):
    settings = OptimizerSettings(optimizer=name, **settings)
    rate = 1.0 if name == "prodigy" else rate
    return make_optimizer(parameter_groups(params, settings, learning_rate=rate), settings)


def take_steps(params, optimizer, count, *, first=0):
    for step in range(first, first + count):
        g = torch.Generator().manual_seed(step)
        for p in params.values():
            p.grad = torch.randn(p.shape, generator=g) + p.detach()
        optimizer.step()


def values(params):
    return {name: p.detach().clone() for name, p in params.items()}


@pytest.mark.parametrize("name", HERE)
def test_every_optimizer_walks_towards_the_minimum(name):
    params = make_params()
    optimizer = make(params, name, rate=5e-2, weight_decay=0.0)
    before = sum(p.detach().square().sum().item() for p in params.values())
    for _ in range(200):
        for p in params.values():
            p.grad = 2 * p.detach()
        optimizer.step()
    assert sum(p.square().sum().item() for p in result_weights(params, optimizer, None).values()) < 0.7 * before


@pytest.mark.parametrize("name", HERE)
def test_optimizers_print_nothing(name, capsys):
    make(make_params(), name, weight_decay=0.1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", HERE)
def test_weight_decay_reaches_the_optimizer(name):
    assert all(g["weight_decay"] == 0.123 for g in make(make_params(), name, weight_decay=0.123).param_groups)


@pytest.mark.parametrize("name", HERE)
def test_state_written_as_tensors_and_json_comes_back_exactly(name):
    import json

    straight = make_params()
    optimizer = make(straight, name)
    take_steps(straight, optimizer, 6)
    halves = make_params()
    optimizer = make(halves, name)
    take_steps(halves, optimizer, 3)
    tensors, packed = pack(optimizer_state(optimizer))
    packed = json.loads(json.dumps(packed, allow_nan=False))
    resumed = make_params()
    copy_named({n: p.data for n, p in resumed.items()}, values(halves))
    optimizer = make(resumed, name)
    restore_optimizer(optimizer, unpack(packed, tensors))
    take_steps(resumed, optimizer, 3, first=3)
    assert same(values(straight), values(resumed))


def test_state_of_another_adapter_is_refused():
    params = make_params()
    state = optimizer_state(make(params, "adamw"))
    with pytest.raises(RunError, match="optimizer state"):
        restore_optimizer(make(params, "adamw", lora_plus_ratio=4.0), state)


def test_adamw_is_fused_on_the_processor_too():
    assert make(make_params(), "adamw").param_groups[0]["fused"] is True


def test_adafactor_moves_a_zero_matrix_by_the_learning_rate():
    p = {"x.lora_B.weight": torch.nn.Parameter(torch.zeros(6, 3))}
    optimizer = make(p, "adafactor", rate=1e-3, weight_decay=0.0)
    p["x.lora_B.weight"].grad = torch.ones(6, 3)
    optimizer.step()
    assert torch.allclose(p["x.lora_B.weight"].detach(), torch.full((6, 3), -1e-3), rtol=1e-3)


def test_lion_takes_its_paper_s_betas_unless_others_are_chosen():
    assert make(make_params(), "lion").param_groups[0]["betas"] == (0.9, 0.99)
    assert make(make_params(), "lion", betas=(0.95, 0.98)).param_groups[0]["betas"] == (0.95, 0.98)


@pytest.mark.parametrize(
    ("optimizer", "module", "package"),
    [
        ("adamw8bit", "bitsandbytes", "bitsandbytes"),
        ("prodigy", "prodigyopt", "prodigyopt"),
        ("lion", "lion_pytorch", "lion-pytorch"),
        ("schedule-free adamw", "schedulefree", "schedulefree"),
        *((name, "pytorch_optimizer", "pytorch-optimizer") for name in BUILDERS),
    ],
)
def test_an_optimizer_without_its_package_says_what_to_do_before_anything_is_made(
    optimizer, module, package, monkeypatch
):
    # As Python answers for a module that is not there.
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"optimizer: {optimizer} needs the package {package}.*choose adamw"):
        check_optimizer(OptimizerSettings(optimizer=optimizer))


def test_too_old_a_library_of_optimizers_is_named_with_the_version_that_is_needed(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "3.10.1")
    with pytest.raises(ConfigError, match=r"optimizer: came needs pytorch-optimizer 4\.1 or later, and 3\.10\.1 is"):
        check_optimizer(OptimizerSettings(optimizer="came"))


@pytest.mark.parametrize("name", BUILDERS)
def test_the_state_of_a_library_s_optimizer_is_what_is_counted_before(name):
    g = torch.Generator().manual_seed(0)
    shapes = [(4, 9), (7, 4), (7,), (4, 6, 3, 3), (8, 4, 1, 1), (9, 9)]
    params = {f"{n}.lora_A": torch.nn.Parameter(torch.randn(*shape, generator=g)) for n, shape in enumerate(shapes)}
    optimizer = make(params, name)
    take_steps(params, optimizer, 3)
    tensors, _ = pack(optimizer_state(optimizer)["state"])
    assert sum(t.numel() for t in tensors.values() if t.ndim) == state_numbers(name, shapes)
    assert {t.dtype for t in tensors.values()} == {torch.float32}


def test_muon_makes_steps_of_matrices_orthogonal_and_leaves_all_else_to_adamw():
    params = make_params() | {"c.lora_A": torch.nn.Parameter(torch.randn(4, 6, 3, 3))}
    optimizer = make(params, "muon", rate=1e-2, weight_decay=0.0, lora_plus_ratio=2.0)
    found = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, p in params.items():
        assert found[id(p)]["use_muon"] == (p.ndim == 2)
        assert found[id(p)]["lr"] == (2e-2 if "lora_B" in name else 1e-2)
    before = values(params)
    take_steps(params, optimizer, 1)
    step = before["a.lora_B.default.weight"] - params["a.lora_B.default.weight"].detach()
    # Five rounds of Newton and Schulz leave singular values about 1, here of 0.2·√7·0.02.
    singular = torch.linalg.svdvals(step) / (0.2 * 7**0.5 * 2e-2)
    assert (singular > 0.6).all() and (singular < 1.3).all()
    moved = (before["a.magnitude"] - params["a.magnitude"].detach()).abs()
    assert torch.allclose(moved, torch.full_like(moved, 1e-2), rtol=1e-3)


def test_soap_knows_no_side_that_is_wider_than_the_rank_whatever_is_learned_beside_it():
    params = make_params() | {"b.diff": torch.nn.Parameter(torch.randn(9, 12))}
    optimizer = make(params, "soap", lora_plus_ratio=2.0)
    take_steps(params, optimizer, 2)
    sides = {name: [len(q) for q in optimizer.state[p]["Q"] if len(q)] for name, p in params.items()}
    assert sides == {"a.lora_A.default.weight": [4], "a.lora_B.default.weight": [4], "a.magnitude": [], "b.diff": [9]}
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert all(rates[id(p)] == (2e-2 if "lora_B" in name else 1e-2) for name, p in params.items())


@pytest.mark.parametrize(("name", "betas"), [("soap", (0.95, 0.95)), ("adopt", (0.9, 0.9999))])
def test_betas_are_the_paper_s_unless_others_are_chosen(name, betas):
    assert make(make_params(), name).param_groups[0]["betas"] == betas
    assert make(make_params(), name, betas=(0.8, 0.98)).param_groups[0]["betas"] == (0.8, 0.98)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_eight_bit_adamw_can_be_made():
    assert make(make_params(), "adamw8bit").param_groups[0]["lr"] == 1e-2


def test_lora_plus_gives_b_matrices_their_own_rate_and_keeps_it_through_the_schedule():
    settings = OptimizerSettings(lora_plus_ratio=16.0, schedule="linear")
    params = make_params()
    optimizer = make_optimizer(parameter_groups(params, settings, learning_rate=1e-3), settings)
    others, b = optimizer.param_groups
    assert [p is params["a.lora_B.default.weight"] for p in b["params"]] == [True]
    assert len(others["params"]) == 2
    assert apply_learning_rate(optimizer, 5, total=10, settings=settings) == pytest.approx(5e-4)
    assert b["lr"] == pytest.approx(8e-3)


def test_lora_plus_without_b_matrices_is_one_group():
    params = {"m": torch.nn.Parameter(torch.zeros(2))}
    settings = OptimizerSettings(lora_plus_ratio=16.0)
    assert len(parameter_groups(params, settings, learning_rate=1e-3)) == 1


@pytest.mark.parametrize(
    ("settings", "widget"),
    [
        ({"optimizer": "prodigy", "lora_plus_ratio": 4.0}, "lora_plus_ratio"),
        ({"optimizer": "schedule-free adamw", "schedule": "cosine"}, "schedule"),
        ({"optimizer": "schedule-free adamw", "ema_decay": 0.9}, "ema_decay"),
        ({"optimizer": "schedule-free adamw", "betas": (0.0, 0.99)}, "beta1"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"schedule": "stairs"}, "schedule"),
        ({"betas": (1.0, 0.99)}, "beta1"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"eps": 0.0}, "eps"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"min_lr_ratio": 2.0}, "min_lr_ratio"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings, widget):
    settings = OptimizerSettings(**settings)
    with pytest.raises(ConfigError, match=widget):
        make_optimizer(parameter_groups(make_params(), settings, learning_rate=1e-3), settings)


def test_nothing_to_train_is_refused():
    with pytest.raises(ConfigError, match="no trainable parameters"):
        parameter_groups({}, OptimizerSettings(), learning_rate=1e-3)


@pytest.mark.parametrize("rate", [0.0, -1e-4, math.nan, math.inf])
def test_a_senseless_learning_rate_is_refused(rate):
    with pytest.raises(ConfigError, match="learning_rate"):
        parameter_groups(make_params(), OptimizerSettings(), learning_rate=rate)


@pytest.mark.parametrize("rate", [-1e-4, math.nan, math.inf])
def test_senseless_settings_of_a_rate_are_refused_too(rate):
    settings = OptimizerSettings(learning_rate=rate)
    with pytest.raises(ConfigError, match=r"^learning_rate: expected "):
        make_optimizer(parameter_groups(make_params(), settings, learning_rate=1e-3), settings)


def curve(total=100, **settings):
    settings = OptimizerSettings(**settings)
    return [learning_rate_factor(step, total=total, settings=settings) for step in range(total + 1)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_warms_up_linearly_to_the_peak_and_stays_in_range(name):
    factors = curve(schedule=name, warmup_steps=10, min_lr_ratio=0.1)
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1.0
    assert all(0.1 - 1e-12 <= f <= 1.0 for f in factors[10:])


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "constant"])
def test_every_falling_schedule_ends_at_the_floor(name):
    assert curve(schedule=name, min_lr_ratio=0.2, power=2.0)[-1] == pytest.approx(0.2)


def test_known_points_of_the_curves():
    assert curve(schedule="linear")[25] == pytest.approx(0.75)
    assert curve(schedule="cosine")[50] == pytest.approx(0.5)
    assert curve(schedule="cosine")[25] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert curve(schedule="polynomial", power=3.0)[50] == pytest.approx(0.125)
    restarts = curve(schedule="cosine with restarts", restarts=3)
    assert [i for i, f in enumerate(restarts) if f == 1.0] == [0, 25, 50, 75]
    assert set(curve(schedule="constant", min_lr_ratio=0.5)) == {1.0}


def test_a_warm_up_longer_than_the_run_does_not_fail():
    assert max(curve(total=5, schedule="cosine", warmup_steps=50)) == pytest.approx(6 / 50)


def test_the_moving_average_follows_and_forgets_the_start():
    p = torch.nn.Parameter(torch.zeros(3))
    ema = Ema({"p": p}, 0.5)
    with torch.no_grad():
        p.fill_(1.0)
    ema.update(0)
    assert torch.allclose(ema.shadow["p"], torch.full((3,), 0.9))
    for step in range(1, 60):
        ema.update(step)
    assert torch.allclose(ema.shadow["p"], torch.ones(3))


def test_the_moving_average_is_float32_and_its_own_memory():
    p = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    ema = Ema({"p": p}, 0.9)
    assert ema.shadow["p"].dtype == torch.float32
    with pytest.raises(RunError, match="another adapter"):
        ema.load({"q": torch.zeros(3)})
    with pytest.raises(RunError, match="another adapter"):
        ema.load({"p": torch.zeros(4)})


def test_result_weights_of_schedule_free_are_the_averaged_point_and_change_nothing():
    params = make_params()
    optimizer = make(params, "schedule-free adamw")
    take_steps(params, optimizer, 4)
    before = values(params)
    result = result_weights(params, optimizer, None)
    assert same(values(params), before)
    optimizer.eval()
    for name, p in params.items():
        assert torch.allclose(result[name], p.detach(), atol=1e-7)
        assert not torch.equal(result[name], before[name])


@pytest.mark.parametrize("name", HERE)
def test_a_raised_gate_keeps_bad_gradients_out_of_the_weights(name):
    params = make_params()
    optimizer = make(params, name, weight_decay=0.0)
    gate = StepGate(torch.device("cpu"))
    gate.observe(torch.tensor(1.0))
    assert gate.bad.item() == 0
    gate.observe(torch.tensor(math.nan), torch.tensor(1.0))
    before = values(params)
    for p in params.values():
        p.grad = torch.full_like(p, math.nan)
    gate.close(optimizer)
    optimizer.step()
    assert same(values(params), before)


def test_a_raised_gate_stays_up_and_fused_adamw_skips_later_good_steps_too():
    params = make_params()
    optimizer = make(params, "adamw")
    take_steps(params, optimizer, 2)
    gate = StepGate(torch.device("cpu"))
    gate.observe(torch.tensor(math.inf))
    before, moments = values(params), optimizer_state(optimizer)["state"][0]["exp_avg"].clone()
    for _ in range(3):
        gate.observe(torch.tensor(0.5))
        gate.close(optimizer)
        take_steps(params, optimizer, 1)
    assert same(values(params), before)
    assert torch.equal(optimizer_state(optimizer)["state"][0]["exp_avg"], moments)


def test_a_lowered_gate_changes_nothing():
    gated, plain = make_params(), make_params()
    optimizers = make(gated, "adamw"), make(plain, "adamw")
    gate = StepGate(torch.device("cpu"))
    gate.close(optimizers[0])
    take_steps(gated, optimizers[0], 3)
    take_steps(plain, optimizers[1], 3)
    assert same(values(gated), values(plain))


@pytest.mark.parametrize("ratio", [1.0, 16.0])
def test_parts_have_their_own_rates_behind_those_of_the_rest(ratio):
    params = {**{f"b.{name}": p for name, p in make_params().items()}, **make_params()}
    settings = OptimizerSettings(lora_plus_ratio=ratio)
    groups = parameter_groups(params, settings, learning_rate=1e-3, parts=[Part("b.", 1e-4)])
    by_parameter = {id(p): group["initial_lr"] for group in groups for p in group["params"]}
    for name, p in params.items():
        rate = (1e-4 if name.startswith("b.") else 1e-3) * (ratio if "lora_B" in name else 1.0)
        assert by_parameter[id(p)] == pytest.approx(rate), name
    assert len(by_parameter) == len(params)
    # The rate that is told.
    assert groups[0]["initial_lr"] == 1e-3
