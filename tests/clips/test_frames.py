"""Which frames of a clip are learned: laws of numbers from times."""

import itertools

import numpy as np
import pytest

from masklora.clips.frames import choose_frames
from masklora.errors import ConfigError
from masklora.settings import CHUNKINGS

FPS = 24.0
# Clips of many lengths, at a steady rate.
LENGTHS = (1, 2, 3, 4, 5, 8, 17, 48, 81, 100)


def steady(count, fps=FPS):
    return np.arange(count) / fps


def chosen(times, **given):
    settings = {"rate": 0.0, "frames": 17, "step": 4, "chunking": "head"} | given
    return choose_frames(times, **settings)


@pytest.mark.parametrize("count", LENGTHS)
def test_the_whole_clip_at_its_own_rate_is_itself(count):
    for rate in (0.0, FPS):
        assert chosen(steady(count), chunking="whole", step=1, rate=rate) == [tuple(range(count))]


@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("step", [1, 4, 8])
def test_every_chunk_has_a_length_that_the_vae_takes_and_ascending_numbers_inside(chunking, step):
    for count in LENGTHS:
        for frames in (1, 2, 5, 16, 17, 200):
            for rate in (0.0, 7.0, 12.0, 24.0, 60.0):
                given = {"rate": rate, "frames": frames, "step": step, "chunking": chunking, "chunks": 3}
                chunks = chosen(steady(count), **given)
                assert chunks
                for chunk in chunks:
                    assert len(chunk) % step == 1 % step
                    assert chunking == "whole" or len(chunk) <= frames
                    assert all(a <= b for a, b in itertools.pairwise(chunk))
                    assert chunk[0] >= 0 and chunk[-1] < count


def test_a_clip_shorter_than_frames_gives_its_largest_length():
    assert [len(c) for c in chosen(steady(12), frames=81)] == [9]
    assert [len(c) for c in chosen(steady(4), frames=81)] == [1]
    assert [len(c) for c in chosen(steady(12), frames=81, chunking="slide")] == [9]


def test_slide_is_back_to_back_and_leaves_the_rest_out():
    assert chosen(steady(20), frames=6, step=1, chunking="slide") == [
        tuple(range(6)),
        tuple(range(6, 12)),
        tuple(range(12, 18)),
    ]
    chunks = chosen(steady(100), chunking="slide")
    assert [number for chunk in chunks for number in chunk] == list(range(85))


def test_uniform_has_its_first_chunk_at_the_start_and_its_last_at_the_end():
    chunks = chosen(steady(100), chunking="uniform", chunks=4)
    assert [chunk[0] for chunk in chunks] == [0, 28, 55, 83]
    assert chunks[-1][-1] == 99
    assert chosen(steady(100), chunking="uniform", chunks=1) == chosen(steady(100))
    # A chunk is never given twice, however many are asked of a short clip.
    assert chosen(steady(18), chunking="uniform", chunks=9) == [tuple(range(17)), tuple(range(1, 18))]


def test_half_the_rate_takes_every_second_frame_and_twice_the_rate_shows_each_twice():
    assert chosen(steady(40), rate=12, step=1, chunking="whole") == [tuple(range(0, 40, 2))]
    assert chosen(steady(5), rate=48, step=1, chunking="whole") == [(0, 0, 1, 1, 2, 2, 3, 3, 4, 4)]
    assert chosen(steady(10, 30), rate=24, step=1, chunking="whole") == [(0, 1, 2, 3, 5, 6, 7, 8)]


@pytest.mark.parametrize("rate", [0.0, 6.0, 8.0, 12.0, 24.0, 48.0])
@pytest.mark.parametrize("count", [10, 50, 400])
def test_jitter_below_a_tenth_of_a_frame_changes_nothing(rate, count):
    generator = np.random.default_rng(count)
    for _ in range(20):
        times = steady(count) + generator.uniform(-0.0999, 0.0999, count) / FPS
        times -= times[0]
        for chunking in CHUNKINGS:
            given = {"rate": rate, "chunking": chunking, "chunks": 3, "step": 1}
            assert chosen(times, **given) == chosen(steady(count), **given)


@pytest.mark.parametrize("fps", [23.976, 24, 25, 29.97, 30, 50, 59.94, 60])
@pytest.mark.parametrize("share", [1 / 3, 0.5, 0.6, 2 / 3, 0.75, 0.8, 5 / 6, 1, 2])
def test_times_rounded_to_milliseconds_give_the_frames_of_exact_ones(fps, share):
    exact = steady(600, fps)
    given = {"rate": fps * share, "step": 1, "chunking": "whole"}
    (numbers,) = chosen(exact, **given)
    assert numbers == tuple(int(i / share + 1e-6) for i in range(len(numbers)))
    assert len(numbers) == round(600 * share)
    assert chosen(np.round(exact, 3), **given) == [numbers]


def test_dropped_frames_are_shown_longer():
    times = np.delete(steady(20), [4, 5, 11])
    generator = np.random.default_rng(0)
    jittered = times + np.concatenate([[0], generator.uniform(-0.09, 0.09, len(times) - 1) / FPS])
    expected = [(0, 2, 3, 4, 6, 8, 9, 11, 13, 15)]
    assert chosen(times, rate=12, step=1, chunking="whole") == expected
    assert chosen(jittered, rate=12, step=1, chunking="whole") == expected


def test_any_times_give_the_frame_that_is_shown():
    times = np.array([0.0, 0.5, 0.53, 0.61, 2.0, 2.1])
    (numbers,) = chosen(times, rate=10, step=1, chunking="whole")
    wanted = np.arange(len(numbers)) / 10
    assert numbers == tuple(int(np.flatnonzero(times <= t + 1e-9)[-1]) for t in wanted)


def test_start_and_end_are_left_out():
    assert chosen(steady(48), start=0.5, end=0.5, step=1, chunking="whole") == [tuple(range(12, 36))]
    # A frame that has begun before is of what is left out.
    assert chosen(steady(10, 10), start=0.15, step=1, chunking="whole") == [tuple(range(2, 10))]
    assert chosen(steady(48), start=0.5, rate=12, step=1, chunking="whole") == [tuple(range(12, 48, 2))]


@pytest.mark.parametrize(
    ("given", "widget"),
    [
        ({"start": 3.0}, "clip_start"),
        ({"end": 2.0}, "clip_end"),
        ({"start": 0.5, "end": 1.8}, "clip_end"),
        ({"start": -1.0}, "clip_start"),
        ({"rate": -1.0}, "clip_rate"),
        ({"rate": float("nan")}, "clip_rate"),
        ({"frames": 0}, "clip_frames"),
        ({"chunks": 0, "chunking": "uniform"}, "clip_chunks"),
        ({"chunking": "all"}, "clip_chunking"),
    ],
)
def test_settings_that_leave_nothing_name_their_widget(given, widget):
    with pytest.raises(ConfigError, match=widget):
        chosen(steady(48), **given)


def test_an_end_that_leaves_one_frame_leaves_it():
    assert chosen(steady(1)) == [(0,)]
    assert chosen(np.zeros(1), rate=16) == [(0,)]
    assert chosen(steady(48), start=47 / FPS, step=1) == [(47,)]
