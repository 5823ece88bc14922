"""What a checkpoint holds: the weights go on from it as if nothing had been between."""

from dataclasses import replace

import pytest
import torch

from harness.toy import ToyNet, open_run, same
from masklora.optimizers.optim import Part
from masklora.settings import OptimizerSettings
from masklora.training.weights import Weights

ADAMW = OptimizerSettings(learning_rate=1e-2, clip_norm=0.5)
TOTAL = 6


def take(weights, net, *, steps):
    for _ in range(steps):
        weights.begin()
        noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(weights.taken))
        weights.backward(net(noisy, torch.full((2,), 0.5), torch.ones(2, 5)).square().mean())
        weights.clip()
        weights.update(TOTAL)
        weights.settle()


def made(optim):
    torch.manual_seed(1)
    net = ToyNet().eval()
    return Weights(net, optim, micros=2), net


def saved(folder, weights):
    with open_run(folder) as run:
        adapter = weights.result()
        run.save_checkpoint(weights.step, adapter=adapter, state=weights.state(adapter), keep_last=1)
        return run.load_checkpoint()


@pytest.mark.parametrize(
    "optim",
    [
        ADAMW,
        replace(ADAMW, ema_decay=0.9),
        replace(ADAMW, optimizer="lion"),
        replace(ADAMW, optimizer="schedule-free adamw", weight_decay=0.01),
    ],
    ids=lambda optim: f"{optim.optimizer} {optim.ema_decay}",
)
def test_what_is_restored_goes_on_bit_for_bit(optim, tmp_path):
    straight, net = made(optim)
    take(straight, net, steps=TOTAL)
    first, net = made(optim)
    take(first, net, steps=2)
    second, net = made(optim)
    assert second.restore(saved(tmp_path, first)) is True
    assert second.step == 2
    take(second, net, steps=TOTAL - 2)
    assert same(straight.result(), second.result())
    assert straight.taken == second.taken == 2 * TOTAL


def test_a_checkpoint_of_an_earlier_version_goes_on_with_the_micro_batch_that_is_due(tmp_path):
    weights, net = made(ADAMW)
    take(weights, net, steps=3)
    checkpoint = saved(tmp_path, weights)
    checkpoint.state["generator"] = torch.Generator().get_state()
    del checkpoint.state["taken"]
    for processes in (1, 3):
        later = Weights(ToyNet().eval(), ADAMW, micros=2 * processes, processes=processes)
        later.restore(checkpoint)
        # It had one process, however many there are now.
        assert (later.step, later.taken) == (3, 6)


def test_a_lost_optimizer_state_is_told_and_the_weights_are_taken(tmp_path):
    weights, net = made(ADAMW)
    take(weights, net, steps=2)
    checkpoint = saved(tmp_path, weights)
    checkpoint.state["optimizer"] = None
    fresh, _ = made(ADAMW)
    assert fresh.restore(checkpoint) is False
    assert same(fresh.result(), weights.result()) and fresh.step == 2


def test_the_result_is_worn_for_a_while_and_the_weights_in_training_come_back(tmp_path):
    weights, net = made(replace(ADAMW, ema_decay=0.9))
    take(weights, net, steps=3)
    live = {name: p.detach().clone() for name, p in net.params.items()}
    with pytest.raises(KeyError), weights.wearing_result():
        assert same({name: p.detach() for name, p in net.params.items()}, weights.result())
        assert not same(live, weights.result())
        raise KeyError
    assert same(live, {name: p.detach() for name, p in net.params.items()})


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion", "prodigy", "schedule-free adamw"])
def test_a_part_stays_as_it_is_after_its_stop_and_the_rest_goes_on(optimizer):
    net = ToyNet().eval()
    settings = replace(ADAMW, optimizer=optimizer, weight_decay=0.1)
    weights = Weights(net, settings, parts=[Part("second.", settings.learning_rate, stop=2)])
    ended = []
    for step in range(4):
        before = {name: p.detach().clone() for name, p in net.params.items()}
        ended += [(step, part.prefix) for part in weights.begin()]
        weights.backward(net(torch.ones(2, 4, 8, 8), torch.full((2,), 0.5), torch.ones(2, 5)).square().mean())
        weights.clip()
        weights.update(TOTAL)
        weights.settle()
        for name, p in net.params.items():
            if name.startswith("first.") or name.endswith("lora_A.weight"):
                continue
            assert torch.equal(p, before[name]) == (step >= 2), (step, name)
        assert not torch.equal(net.params["first.lora_B.weight"], before["first.lora_B.weight"])
    assert ended == [(2, "second.")]
