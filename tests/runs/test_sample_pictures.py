"""When sample pictures are drawn, the folder that keeps them, and the picture of what the loss saw."""

import dataclasses

import numpy as np
import pytest
import torch

from harness.toy import Recorder, toy_job, train_toy
from masklora.errors import ConfigError
from masklora.runs.sample_pictures import (
    MOST_PROMPTS,
    MOST_STEPS,
    MOST_STRENGTHS,
    SampleFolder,
    SampleSettings,
    look_of,
    split_prompts,
    split_steps,
    split_strengths,
)
from masklora.settings import check
from masklora.viewing.training_sample import Seen, draw_seen, false_colours


def test_whatever_changes_the_pictures_changes_their_look_and_how_often_they_are_drawn_does_not():
    usual = dataclasses.asdict(SampleSettings(prompts=("a", "b")))
    assert look_of(usual | {"every": 7}) == look_of(usual)
    changes = {"prompts": ["a"], "seed": 1, "cfg": 1.0, "steps": 5, "sampler": "dpmpp_2m", "negative": "c", "width": 64}
    looks = {look_of(usual | {name: value}) for name, value in changes.items()}
    assert len(looks | {look_of(usual)}) == len(changes) + 1


class Notes:
    """A sampler that notes what it was asked."""

    def __init__(self, every=0, fail=None, there=True):
        self.every, self.asked, self.fail, self.there = every, [], fail, there

    def start(self, folder, *, step):
        self.asked.append(("base", step))

    def draw(self, step):
        self.asked.append(step)
        if self.fail is not None:
            raise self.fail

    def has(self, step):
        return self.there


def drawn(tmp_path, sampler, hooks=None, **options):
    job = dataclasses.replace(toy_job(steps=10, **options), sampler=sampler)
    return train_toy(tmp_path, job, hooks or Recorder())


@pytest.mark.parametrize(("every", "steps"), [(0, [10]), (4, [4, 8, 10]), (5, [5, 10]), (1, list(range(1, 11)))])
def test_pictures_come_before_every_so_many_steps_and_at_the_end(tmp_path, every, steps):
    sampler = Notes(every)
    drawn(tmp_path, sampler)
    assert sampler.asked == [("base", 0), *steps]


def test_a_stopped_run_is_drawn_where_it_ends_and_goes_on_from_there(tmp_path):
    sampler = Notes(4)
    drawn(tmp_path, sampler, Recorder(stop_at=6))
    assert sampler.asked == [("base", 0), 4, 6]
    again = Notes(4)
    drawn(tmp_path, again)
    assert again.asked == [("base", 6), 8, 10]


def test_a_finished_run_draws_nothing(tmp_path):
    drawn(tmp_path, None)
    sampler = Notes(1)
    assert drawn(tmp_path, sampler).loaded and sampler.asked == []


def test_what_fails_is_told_and_the_result_is_the_same(tmp_path):
    hooks = Recorder()
    plain = drawn(tmp_path / "plain", None)
    failing = drawn(tmp_path / "failing", Notes(5, fail=RuntimeError("no room")), hooks)
    assert failing.completed
    assert all(torch.equal(plain.adapter[name], value) for name, value in failing.adapter.items())
    assert sum("no room" in text for text in hooks.messages) == 2


def test_a_cancel_is_no_failure(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path, Notes(5, fail=KeyboardInterrupt()))


@pytest.mark.parametrize(("every", "step", "later"), [(4, 4, [8, 10]), (5, 5, [10]), (0, 10, [])])
@pytest.mark.parametrize("there", [False, True])
def test_pictures_in_whose_midst_a_process_ended_are_drawn_when_the_run_goes_on(tmp_path, every, step, later, there):
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path, Notes(every, fail=KeyboardInterrupt()))
    again = Notes(every, there=there)
    assert drawn(tmp_path, again).steps == 10
    assert again.asked == [("base", step), *([] if there else [step]), *later]


def test_the_job_s_first_sample_is_seen_in_every_step(tmp_path):
    hooks = Recorder()
    seen = []
    hooks.on_seen = seen.append
    drawn(tmp_path, None)
    assert seen == []
    drawn(tmp_path / "seen", None, hooks)
    assert len(seen) == 10
    assert seen[0].latent.shape[-2:] == seen[0].weights.shape and seen[0].name


def test_prompts_are_the_lines_with_something_in_them():
    assert split_prompts(" a cat \n\n\tb\r\n") == ("a cat", "b")
    for text in ("", " \n ", "x\n" * (MOST_PROMPTS + 1), "x" * 5000):
        with pytest.raises(ConfigError, match="prompts"):
            split_prompts(text)


@pytest.mark.parametrize("change", [{"width": 32}, {"height": 4096}, {"every": -1}, {"steps": 0}, {"cfg": 101.0}])
def test_numbers_out_of_range_are_refused_by_their_widget(change):
    check(SampleSettings())
    with pytest.raises(ConfigError, match=next(iter(change))):
        check(SampleSettings(**change))


@pytest.fixture
def folder(tmp_path):
    made = SampleFolder(tmp_path)
    made.begin(SampleSettings(prompts=("a", "b")), step=0)
    return made


def test_a_folder_tells_what_it_holds_and_nothing_else(folder):
    folder.write(100, 1, b"x")
    folder.write(100, 0, b"y")
    folder.write(0, 0, b"z")
    (folder.path / "step_000100_0.png.tmp").write_bytes(b"")
    (folder.path / "notes.txt").write_text("")
    assert folder.pictures() == {0: [0], 100: [0, 1]}
    assert folder.read(100, 1) == b"x" and folder.read(100, 2) is None
    assert folder.settings()["prompts"] == ["a", "b"]


def test_a_link_out_of_the_folder_is_not_read(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    folder.file(5, 0).symlink_to(secret)
    assert folder.read(5, 0) is None


def test_a_folder_that_is_a_link_is_not_read(tmp_path):
    elsewhere = SampleFolder(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    elsewhere.begin(SampleSettings(prompts=("a",)), step=0)
    elsewhere.write(1, 0, b"x")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples").symlink_to(elsewhere.path, target_is_directory=True)
    linked = SampleFolder(tmp_path / "run")
    assert linked.pictures() == {} and linked.read(1, 0) is None


def test_many_steps_are_thinned_evenly_and_the_first_and_last_stay(folder):
    marks = [folder.mark()]
    for step in range(0, 10 * (MOST_STEPS + 60), 10):
        folder.write(step, 0, b"x")
        folder.thin()
        marks.append(folder.mark())
    # The page asks for the pictures whenever this has changed.
    assert len(set(marks)) == len(marks)
    steps = list(folder.pictures())
    assert len(steps) == MOST_STEPS
    assert steps[0] == 0 and steps[-1] == 10 * (MOST_STEPS + 59)
    assert max(np.diff(steps)) <= 20 + 10


def test_another_pace_keeps_the_pictures_and_another_seed_puts_them_aside(folder, tmp_path):
    folder.write(3, 0, b"x")
    folder.begin(SampleSettings(prompts=("a", "b"), every=7), step=3)
    assert folder.pictures() == {3: [0]}
    folder.begin(SampleSettings(prompts=("a", "b"), seed=1), step=3)
    assert folder.pictures() == {} and (tmp_path / "samples-1" / "step_000003_0.png").is_file()


def test_pictures_at_other_strengths_lie_beside_and_change_nothing_for_a_training(folder):
    folder.write(0, 0, b"base")
    folder.write(100, 0, b"full")
    marks = [folder.mark()]
    for strength in (0.6, -0.5, 0.0):
        folder.write(100, 0, str(strength).encode(), strength)
        marks.append(folder.mark())
    folder.write(200, 1, b"later", 0.6)
    assert len({*marks, folder.mark()}) == 5
    assert folder.pictures() == {0: [0], 100: [0]}
    assert folder.pictures(0.6) == {100: [0], 200: [1]}
    assert folder.strengths() == [-0.5, 0.0, 0.6, 1.0]
    assert [folder.read(100, 0, one) for one in (1.0, 0.6, -0.5)] == [b"full", b"0.6", b"-0.5"]
    assert (folder.path / "step_000100_0_x0.60.png").is_file() and (folder.path / "step_000100_0.png").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "step_000100_0_x1.00.png",
        "step_000100_0_x-0.00.png",
        "step_000100_0_x9.00.png",
        "step_000100_0_x-4.01.png",
        "step_000100_0_x0.6.png",
        "step_000100_0_x0.600.png",
        "step_000100_0_xnan.png",
        "step_000100_0_x0.60.png.tmp",
        "step_000100_00_x0.60.png",
        "step_0000100_0.png",
        "step_000000_0_x0.60.png",
        "step_000100_\u0660_x0.60.png",
    ],
)
def test_a_name_that_is_not_as_it_is_written_is_no_picture(folder, name):
    (folder.path / name).write_bytes(b"x")
    assert folder.pictures() == folder.pictures(0.6) == {} and folder.strengths() == [] and folder.mark() == ""


def test_a_step_that_is_dropped_goes_at_every_strength(folder):
    for step in (2, 4):
        for strength in (1.0, 0.5):
            folder.write(step, 0, b"x", strength)
    folder.write(6, 0, b"x", 0.5)
    assert folder.begin(SampleSettings(prompts=("a", "b")), step=None) is None
    assert folder.pictures(0.5) == {2: [0], 4: [0], 6: [0]}
    folder.begin(SampleSettings(prompts=("a", "b")), step=2)
    assert folder.pictures() == folder.pictures(0.5) == {2: [0]}
    assert sorted(one.name for one in folder.path.glob("*.png")) == ["step_000002_0.png", "step_000002_0_x0.50.png"]


def test_copies_and_what_is_put_aside_hold_every_strength(folder, tmp_path):
    for step in (2, 4):
        folder.write(step, 1, b"x", 0.5)
    (tmp_path / "other").mkdir()
    folder.copy_to(tmp_path / "other", until=2)
    assert SampleFolder(tmp_path / "other").pictures(0.5) == {2: [1]}
    aside = folder.begin(SampleSettings(prompts=("a", "b"), seed=1), step=None)
    assert aside == tmp_path / "samples-1" and (aside / "step_000004_1_x0.50.png").is_file()
    assert folder.pictures(0.5) == {}


MANY = ", ".join(f"0.{n}" for n in range(MOST_STRENGTHS + 1))


def test_strengths_are_numbers_with_commas_each_once_in_their_order():
    assert split_strengths(" 1, 0.60,.5;-2.\n+4 0.6 -0.0 0") == (1.0, 0.6, 0.5, -2.0, 4.0, 0.0)
    assert str(split_strengths("-0")[0]) == "0.0"


@pytest.mark.parametrize(
    "text",
    ["", " , ", "a", "1e0", "nan", "inf", "0.625", "4.01", "-5", "\u0660", "1.0.0", "9" * 5000, MANY],
)
def test_strengths_that_are_none_are_refused_by_their_widget(text):
    with pytest.raises(ConfigError, match="strengths: expected 1 to 8 numbers from -4 to 4") as told:
        split_strengths(text)
    assert len(str(told.value)) < 250


def test_steps_are_whole_numbers_each_once_in_their_order():
    assert split_steps("") == split_steps(" , ") == ()
    assert split_steps("500, 250;500") == (500, 250)
    for text in ("a", "2.0", "-1", "\u0662", "1" * 10):
        with pytest.raises(ConfigError, match="steps: expected whole numbers"):
            split_steps(f"250, {text}")


def test_the_seen_sample_shows_its_colours_and_darkens_what_the_loss_leaves_out():
    latent = torch.zeros(4, 6, 8)
    latent[0, :, 4:] = 1.0
    weights = torch.zeros(6, 8)
    weights[:, :4] = 1.0
    picture = draw_seen(Seen("cat", latent, weights), lambda one: torch.full((6, 8, 3), 0.5), side=64)
    cell = 8
    assert picture.shape == (6 * cell, 2 * 8 * cell + 4, 3)
    right = picture[:, 8 * cell + 4 :]
    assert abs(int(picture[4, 4, 0]) - 128) <= 1 and abs(int(right[4, 4, 0]) - 128) <= 1
    assert right[4, 7 * cell + 4, 0] < 30


def test_of_a_clip_one_latent_frame_is_seen_the_last_one_beyond_it():
    latent = torch.arange(3.0)[None, :, None, None].expand(4, 3, 6, 8)
    weights = torch.zeros(3, 6, 8)
    weights[1], weights[2, :, :4] = 1.0, 1.0
    seen = Seen("walk", latent, weights)
    cell = 8
    assert seen.frames == 3 and Seen("cat", latent[:, 0], weights[0]).frames == 0
    for asked, frame in ((0, 0), (1, 1), (2, 2), (9, 2)):
        picture = draw_seen(seen, lambda one: one[:3, 0].movedim(0, -1) / 2, side=64, frame=asked)
        right = picture[:, 8 * cell + 4 :].astype(int)
        assert abs(int(picture[4, 4, 0]) - round(127.5 * frame)) <= 1
        wanted = [(weights[frame, 0, column] * 0.85 + 0.15) * frame * 127.5 for column in (0, 7)]
        assert abs(right[4, 4, 0] - wanted[0]) <= 2 and abs(right[4, 7 * cell + 4, 0] - wanted[1]) <= 2


@pytest.mark.parametrize("shape", [(16, 5, 7), (2, 5, 7), (16, 3, 5, 7)])
def test_any_latent_has_false_colours(shape):
    colours = false_colours(torch.randn(shape))
    assert colours.shape == (5, 7, 3) and colours.min() >= 0 and colours.max() <= 1
