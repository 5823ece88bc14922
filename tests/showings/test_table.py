"""The table of pictures ranks by the picture, not by the noise that happened to be drawn."""

import time

import numpy as np
import pytest

from masklora.showings.record import Shown
from masklora.showings.table import RECENT, picture_table


def steps_of(hard, *, times=20, levels=None, seed=0, batch=4):
    """Showings in which a picture's loss is `hard` times what its noise level gives: [(step, shown)].

    Losses fall a hundredfold over the noise levels, as those of ε models do; `levels` gives a picture others.
    """
    random = np.random.default_rng(seed)
    showings = []
    for _ in range(times):
        for number, factor in enumerate(hard):
            level = (levels or {}).get(number, random.random)()
            loss = factor * np.exp(-4.6 * level) * random.lognormal(0, 0.2)
            showings.append(Shown(f"{number}.png", float(level), float(loss), 0.3))
    random.shuffle(showings)
    showings = [Shown(*one) for one in showings]
    return [(i // batch + 1, showings[i : i + batch]) for i in range(0, len(showings), batch)]


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_that_is_predicted_twice_as_badly_comes_first_with_about_two(seed):
    rows = picture_table(steps_of([1.0] * 20 + [2.0], seed=seed))
    assert rows[0].name == "20.png"
    assert rows[0].relative == pytest.approx(2.0, rel=0.25)
    assert all(row.relative == pytest.approx(1.0, rel=0.3) for row in rows[1:])


def test_a_picture_that_was_shown_with_little_noise_only_is_no_worse_for_that():
    random = np.random.default_rng(7)
    steps = steps_of([1.0] * 20, levels={3: lambda: random.uniform(0, 0.2)})
    rows = {row.name: row for row in picture_table(steps)}
    # Its plain mean says that it is by far the worst.
    assert rows["3.png"].loss > 1.5 * max(row.loss for name, row in rows.items() if name != "3.png")
    assert rows["3.png"].relative == pytest.approx(1.0, rel=0.25)


def test_worse_pictures_come_first_and_what_cannot_be_compared_last():
    steps = [*steps_of([0.5, 1.0, 1.5] * 5), (99, [Shown("no weight.png", 0.5, None, 0.0)])]
    rows = picture_table(steps, names=["held out.png", "0.png"])
    numbers = [row.relative for row in rows if row.relative is not None]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) == 15
    last = {row.name: row for row in rows[15:]}
    assert (last["held out.png"].showings, last["held out.png"].coverage) == (0, None)
    assert (last["no weight.png"].showings, last["no weight.png"].loss, last["no weight.png"].coverage) == (
        1,
        None,
        0.0,
    )


def test_the_recent_showings_count_and_all_are_counted():
    early = [(n, [Shown("a", 0.5, 9.0, 1.0), Shown("b", 0.5, 1.0, 1.0)]) for n in range(50)]
    late = [(50 + n, [Shown("a", 0.5, 1.0, 0.5), Shown("b", 0.5, 1.0, 1.0)]) for n in range(RECENT)]
    rows = {row.name: row for row in picture_table([*early, *late])}
    assert rows["a"].showings == 70
    assert (rows["a"].loss, rows["a"].relative, rows["a"].coverage) == (1.0, 1.0, 0.5)


def test_one_picture_alone_is_compared_with_nothing():
    (row,) = picture_table([(n, [Shown("a", 0.1 * n, 1.0, 1.0)]) for n in range(9)])
    assert (row.loss, row.relative, row.showings) == (1.0, None, 9)
    assert picture_table([]) == []


def test_losses_of_zero_divide_by_nothing():
    rows = picture_table([(n, [Shown("a", 0.1 * n, 0.0, 1.0), Shown("b", 0.1 * n, 0.0, 1.0)]) for n in range(9)])
    assert [row.relative for row in rows] == [None, None]


def test_a_large_set_takes_a_moment():
    random = np.random.default_rng(1)
    names = [f"{n}.png" for n in range(4000)]
    shown = [Shown(names[i % 4000], float(random.random()), 1.0, 1.0) for i in range(80_000)]
    began = time.process_time()
    assert len(picture_table([(n, shown[n * 8 : n * 8 + 8]) for n in range(10_000)])) == 4000
    assert time.process_time() - began < 5
