"""Whether a training fits into a card, and what would make it: told, warned of or refused before it starts."""

import dataclasses

import pytest
import torch

from harness.training import make_cache, make_request
from masklora.errors import ConfigError
from masklora.host.estimating import Question, estimated, judged, made_up_text, training_of
from masklora.host.memory import plan as planning
from masklora.host.memory import remedies
from masklora.host.memory.cards import nominal_tflops
from masklora.host.memory.plan import NEARLY, MemoryPlan, plan_memory
from masklora.host.memory.remedies import Remedy, remedies_for
from masklora.host.resolving import resolve
from masklora.host.swap import kept_inputs
from masklora.host.swap.block_swap import block_bytes
from masklora.host.swap.choosing import in_order, saved_bytes
from masklora.host.training import train_lora
from masklora.settings import OFFLOADED
from masklora.training.job import Hooks

GIB = 2**30
PLAN = MemoryPlan(
    weights=6 * GIB,
    adapters=GIB,
    gradients=GIB,
    optimizer=GIB,
    captions=GIB,
    kept=GIB,
    work=GIB,
    card=0,
    device="cuda:0",
)
REMEDIES = [
    Remedy("batch_size 1", GIB, "batch_size"),
    Remedy("rank 8", 2 * GIB, "rank"),
    Remedy("resolution 512", 5 * GIB, "resolution"),
]


def on_card(gib):
    return dataclasses.replace(PLAN, card=int(gib * GIB))


class Counting(Hooks):
    steps = 0

    def on_step(self, report):
        self.steps += 1


@pytest.mark.parametrize(("card", "level"), [(0, "note"), (24, "note"), (13.4, "note"), (13.3, "warning")])
def test_what_fits_is_told_and_what_nearly_fills_the_card_is_warned_of(card, level):
    (found,) = judged(on_card(card), REMEDIES)
    assert found.level == level and "12.00 GiB at the peak" in found.text
    assert ("of the card's" in found.text) == bool(card)


def test_a_step_that_could_not_be_counted_is_warned_of_and_never_refused():
    (found,) = judged(dataclasses.replace(on_card(1), fault="KeyError: 'x'"), [])
    assert found.level == "warning" and "could not be counted (KeyError: 'x')" in found.text


def test_what_needs_more_than_the_card_is_refused_with_the_widgets_to_change():
    with pytest.raises(ConfigError, match=r"^batch_size, rank, resolution: .*12\.00 GiB.*over_memory to go on"):
        judged(on_card(11), REMEDIES)
    (found,) = judged(on_card(11), REMEDIES, over_memory="go on")
    assert found.level == "warning" and "is more than the card's 11.00 GiB" in found.text


@pytest.mark.parametrize(
    ("card", "advice"),
    [
        (11.5, "One of these is enough: batch_size 1 saves 1.00 GiB; rank 8 saves 2.00 GiB; resolution 512 saves"),
        (8, "One of these is enough: resolution 512 saves 5.00 GiB"),
        (6, "Together these may be enough: batch_size 1 saves 1.00 GiB; rank 8 saves 2.00 GiB; resolution 512"),
        (3, "All of these together are not enough"),
    ],
)
def test_the_cheapest_changes_that_make_it_fit_are_told(card, advice):
    (found,) = judged(on_card(card), REMEDIES, over_memory="go on")
    assert advice in found.text


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 3060 Ti", 32),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 0),
        ("NVIDIA GeForce RTX 4090 D", 0),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("cpu", 0),
    ],
)
def test_the_nominal_speed_is_that_of_this_card_and_of_no_relative(name, tflops):
    assert nominal_tflops(name) == tflops


def test_the_least_time_of_a_step_is_told_where_the_card_is_known():
    known = dataclasses.replace(PLAN, flops=int(330e12), tflops=165)
    assert "A step takes 2 s or more: it has 330 TFLOP, and the card nominally does 165" in known.to_text()
    assert "A step takes" not in dataclasses.replace(known, tflops=0).to_text()


@pytest.fixture(scope="module")
def bench():
    request = make_request("flux", make_cache("flux"), batch_size=2, checkpointing="off")
    trainable, settings = resolve(request)
    adapters = trainable.make_adapters(settings.adapter, seed=0)
    return request, training_of(trainable, adapters, settings, request.cache)


def changed(training, **changes):
    return dataclasses.replace(training, step=dataclasses.replace(training.step, **changes))


def test_the_savings_are_those_of_the_changed_training(bench):
    request, training = bench
    plan = plan_memory(training)
    found = {r.widget: r for r in remedies_for(training, plan)}
    assert list(found) == ["checkpointing", "batch_size", "crop", "model", "rank"]
    per_block = plan_memory(changed(training, checkpointing="per block"))
    assert found["checkpointing"].saving == plan.total - per_block.total and found["checkpointing"].work > 1.1
    train = {"batch_size": 1, "gradient_accumulation": 2, "checkpointing": "off"}
    single = make_request("flux", request.cache, **train)
    trainable, settings = resolve(single)
    alone = training_of(trainable, trainable.make_adapters(settings.adapter, seed=0), settings, request.cache)
    assert found["batch_size"].saving == pytest.approx(plan.total - plan_memory(alone).total, rel=0.05)
    assert found["batch_size"].work == pytest.approx(1.0) and found["crop"].work < 0.95
    half = dataclasses.replace(single, adapter=dataclasses.replace(single.adapter, rank=single.adapter.rank // 2))
    trainable, settings = resolve(dataclasses.replace(half, train=request.train))
    lower = training_of(trainable, trainable.make_adapters(settings.adapter, seed=0), settings, request.cache)
    assert found["rank"].saving == pytest.approx(plan.total - plan_memory(lower).total, rel=0.2)


def test_full_layers_and_a_rank_save_what_a_training_without_them_takes_less(bench):
    """Also of the kinds of which only a part is as large as the rank."""
    _, training = bench

    def planned(**adapter):
        settings = dataclasses.replace(training.settings.adapter, **adapter)
        adapters = training.trainable.make_adapters(settings, seed=0)
        of_kind = dataclasses.replace(training.settings, adapter=settings)
        numbers = sum(p.numel() for p in adapters.parameters().values())
        plan = dataclasses.replace(PLAN, adapters=4 * numbers, gradients=4 * numbers, optimizer=8 * numbers)
        changed = dataclasses.replace(training, adapters=adapters, settings=of_kind)
        return plan.trained, remedies._lower_rank(changed, plan), remedies._no_full_layers(changed, plan)

    trained, _, full = planned(full_layers="qkv")
    assert full.saving == pytest.approx(trained - planned(exclude="qkv")[0], rel=1e-3)
    assert planned()[2] is None
    for kind in ({"algorithm": "loha"}, {"algorithm": "lokr", "lokr_factor": 2}):
        trained, lower, _ = planned(**kind, rank=16)
        assert lower.text == "rank 8"
        assert lower.saving == pytest.approx(trained - planned(**kind, rank=8)[0], rel=1e-3)
    assert planned(algorithm="lokr", rank=1024)[1].saving == 0
    assert planned(rank_by_layer="others 16")[1] is None


def test_what_changes_save_beside_swapped_blocks_is_what_they_save_without(bench):
    """Of the weights, only those count that are left on the device."""
    _, training = bench
    plan = plan_memory(training)
    half = dataclasses.replace(plan, weights=plan.weights // 2)
    wanted = {r.widget: r.saving for r in remedies_for(training, plan)}
    narrow = plan_memory(changed(training, stored=torch.float8_e4m3fn))
    wanted["model"] -= (plan.weights - narrow.weights) // 2
    found = {r.widget: r.saving for r in remedies_for(training, half)}
    assert found == {widget: pytest.approx(saving, abs=1) for widget, saving in wanted.items()}


def test_as_many_swapped_blocks_are_told_as_make_it_fit():
    request = make_request("flux", make_cache("flux"))
    trainable, settings = resolve(request)
    training = training_of(trainable, trainable.make_adapters(settings.adapter, seed=0), settings, request.cache)
    sizes = [block_bytes(block) for block in in_order(trainable.network, trainable.blocks)]

    def told(training, card):
        training = dataclasses.replace(training, card=card)
        return {r.widget: r for r in remedies_for(training, plan_memory(training))}.get("swap_blocks")

    whole = plan_memory(training).total
    for count, lacking in ((3, saved_bytes(sizes, 3)), (4, saved_bytes(sizes, 3) + 1000)):
        found = told(training, int((whole - lacking) / NEARLY) + 1)
        assert found.text.startswith(f"swap_blocks {count}, of 4") and found.saving == saved_bytes(sizes, count)
    assert told(training, None) is None
    assert told(changed(training, checkpointing="off"), whole // 2) is None


def test_inputs_that_wait_in_main_memory_are_told_where_blocks_are_recomputed_and_the_card_copies(monkeypatch):
    monkeypatch.setattr(kept_inputs, "_LITTLE", 2**10)
    request = make_request("flux", make_cache("flux"), batch_size=16)
    trainable, settings = resolve(request)
    here = training_of(trainable, trainable.make_adapters(settings.adapter, seed=0), settings, request.cache)

    def told(training):
        return {r.widget: r for r in remedies_for(training, plan_memory(training))}.get("checkpointing")

    there = dataclasses.replace(here, card=2**30)
    offloaded = changed(there, checkpointing=OFFLOADED)
    saving = plan_memory(there).total - plan_memory(offloaded).total
    found = told(there)
    assert found.saving == saving > 0 and found.work == 1 and found.text == 'checkpointing "per block, offloaded"'
    assert told(offloaded) is told(here) is None
    # On the CPU nothing is moved.
    assert plan_memory(changed(here, checkpointing=OFFLOADED)) == plan_memory(here)


def test_dora_is_not_told_to_take_weights_that_it_refuses():
    request = make_request("flux", None)
    for algorithm in ("lora", "dora"):
        adapter = dataclasses.replace(request.adapter, algorithm=algorithm)
        _, found = estimated(Question(request.model, size=(64, 64), adapter=adapter))
        assert ("fp8" in found[-1].text) == (algorithm == "lora")


def test_masks_that_leave_nothing_out_save_nothing(bench):
    _, training = bench
    for masks in (None, 1.0):
        whole = dataclasses.replace(training, masks=masks)
        assert "crop" not in {r.widget for r in remedies_for(whole, plan_memory(whole))}
    cropped = dataclasses.replace(training, cropped=True)
    assert "crop" not in {r.widget for r in remedies_for(cropped, plan_memory(cropped))}


def test_a_made_up_text_is_one_that_the_model_takes(bench):
    trainable = bench[1].trainable
    text = made_up_text(trainable, tokens=7)
    assert trainable.text_fault(text) is None and text["cond"].shape[1] == 7
    assert text["pooled_output"].dtype == torch.float32


def test_a_made_up_text_is_counted_for_a_model_that_reads_no_pooled_one():
    model = make_request("sd3", None).model
    model.model.diffusion_model.y_embedder = None
    plan, _ = estimated(Question(model, size=(128, 128)))
    assert not plan.fault


def test_an_estimate_is_the_plan_of_the_training_and_takes_no_memory_for_adapters(bench):
    request, training = bench
    asked = Question(request.model, request.cache, adapter=request.adapter, train=request.train)
    plan, (told, savings) = estimated(asked)
    assert plan == plan_memory(training) and told.level == "note" and "checkpointing per block saves" in savings.text
    sized, _ = estimated(dataclasses.replace(asked, cache=None, size=(128, 128)))
    assert sized.total > plan.total and not sized.fault


def test_an_estimate_for_another_card_warns_and_refuses_nothing():
    request = make_request("sd3", None, batch_size=2)
    asked = Question(request.model, size=(64, 64), adapter=request.adapter, train=request.train, card=1)
    plan, (told,) = estimated(asked)
    assert plan.too_large and told.level == "warning" and "a card of" in told.text


def test_settings_that_a_training_would_refuse_are_refused_here():
    request = make_request("sd15", None)
    asked = Question(request.model, loss=dataclasses.replace(request.loss, routes="0.5: 2..-3"))
    with pytest.raises(ConfigError, match=r"^routes: "):
        estimated(asked)


def test_a_size_that_the_model_does_not_take_is_told_by_its_widgets():
    with pytest.raises(ConfigError, match=r"^width, height: 4096×4096 is too large"):
        estimated(Question(make_request("sd3", None).model, size=(4096, 4096)))


def test_a_training_that_the_card_cannot_hold_ends_before_its_first_step_unless_told_to_go_on(
    bench, tmp_path, monkeypatch
):
    monkeypatch.setattr(planning, "card_memory", lambda device: 2**20)
    told, hooks, request = [], Counting(), bench[0]

    def trained(over_memory):
        train = dataclasses.replace(request.train, over_memory=over_memory)
        return train_lora(
            dataclasses.replace(request, train=train), runs=tmp_path / "runs", hooks=hooks, report=told.append
        )

    with pytest.raises(ConfigError, match=r"^checkpointing, batch_size, .*over_memory to go on"):
        trained("refuse")
    assert not hooks.steps
    assert trained("go on").result.steps == request.train.steps == hooks.steps > 0
    assert any(one.level == "warning" and "is more than the card's" in one.text for one in told)
