"""Drafts of moving masks: steps that are undone, changes that two make at once, tracking, memory."""

import threading
from pathlib import Path

import numpy as np
import pytest

from masklora.errors import BusyError, ConfigError, MaskConflictError, MaskError
from masklora.pictures.packed_mask import pack_mask
from masklora.saving.drafts import MOST_STEPS, OPERATIONS, Draft
from masklora.saving.moving_masks import SavedMasks

SIZE, COUNT = (24, 16), 6
WHITE = pack_mask(np.ones(SIZE[::-1], np.float32))


def level(value):
    return np.full(SIZE[::-1], value, np.uint8)


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, SIZE[::-1]).astype(np.uint8)


def masks(*values):
    return tuple(pack_mask(level(value).astype(np.float32) / np.float32(255)) for value in values)


def draft_of(*frames, room=1 << 30):
    saved = SavedMasks(frames or (WHITE,) * COUNT, "token", bool(frames), Path("mask.mkv"))
    return Draft(saved, [number / 10 for number in range(len(saved.frames))], room=lambda: room)


def seen(draft):
    return draft.state().revision


def shown(draft, number):
    return np.rint(draft.frame(number)[0].unpack() * 255).astype(np.uint8)


def firsts(draft):
    """The first pixel of each frame."""
    return [int(shown(draft, number)[0, 0]) for number in range(len(draft))]


def everything(draft):
    state = draft.state()
    return [draft.frame(number)[0] for number in range(len(draft))], state.key_frames, state.drift


def track(draft, start, end, tracker):
    draft.begin(start, end, "test", seen(draft))(tracker)


def moved(key, way, check):
    """Each frame a level lower, with its number as drift."""
    for step, number in enumerate(way[1:], 1):
        check()
        yield number, pack_mask(key - np.float32(step) / np.float32(255)), number / 100


def test_a_frame_set_by_hand_is_a_key_frame_and_the_only_one_that_changes():
    draft = draft_of()
    before = draft.state()
    assert not before.unsaved and before.undo == 0 and before.stamps == [before.revision] * COUNT
    draft.set(2, noise(1), seen(draft))
    after = draft.state()
    assert np.array_equal(shown(draft, 2), noise(1)) and firsts(draft)[3] == 255
    assert after.key_frames == [2] and after.unsaved and after.undo == 1
    assert [a != b for a, b in zip(after.stamps, before.stamps, strict=True)] == [
        number == 2 for number in range(COUNT)
    ]


def test_finer_values_stay_where_nothing_else_is_painted():
    fine = np.full(SIZE[::-1], np.float32(0.50123), np.float32)
    draft = draft_of(*[pack_mask(fine)] * COUNT)
    painted = shown(draft, 0)
    painted[0] = 7
    draft.set(0, painted, seen(draft))
    after = draft.frame(0)[0].unpack()
    assert np.array_equal(after[1:], pack_mask(fine).unpack()[1:]) and (after[0] == np.float32(7 / 255)).all()


def test_copies_reach_both_ends_of_their_range_and_key_frames_end_there():
    draft = draft_of()
    draft.set(3, noise(2), seen(draft))
    draft.set(0, level(9), seen(draft))
    draft.copy(0, range(2, 5), seen(draft))
    assert firsts(draft) == [9, 255, 9, 9, 9, 255]
    assert draft.state().key_frames == [0]
    draft.copy(0, range(1, 2), seen(draft))
    assert draft.state().key_frames == [0, 1], "one frame alone is made by hand"


@pytest.mark.parametrize(
    ("operation", "amount", "expected"),
    [("clear", 0, 0), ("fill", 0, 24 * 16), ("invert", 0, 24 * 16 - 16), ("grow", 2, 52), ("shrink", 1, 4)],
)
def test_operations_change_the_frames_of_their_range_alone(operation, amount, expected):
    square = np.zeros(SIZE[::-1], np.uint8)
    square[6:10, 8:12] = 255
    draft = draft_of()
    for number in range(COUNT):
        draft.set(number, square, seen(draft))
    draft.apply(operation, range(1, 4), seen(draft), amount=amount)
    sums = [int((shown(draft, number) > 0).sum()) for number in range(COUNT)]
    assert sums == [16, expected, expected, expected, 16, 16]
    assert draft.state().key_frames == list(range(COUNT))


def test_a_feather_is_soft_and_in_steps_of_what_is_shown():
    draft = draft_of()
    draft.set(0, np.where(np.arange(SIZE[0]) < 12, 255, 0).astype(np.uint8) + level(0), seen(draft))
    draft.apply("feather", range(0, 1), seen(draft), amount=2)
    assert len(np.unique(shown(draft, 0))) > 6 and draft.frame(0)[0].bits == 8
    with pytest.raises(ConfigError, match="op: expected one of clear"):
        draft.apply("blow up", range(0, 1), seen(draft))


def test_one_mask_for_all_frames_is_one_object_and_one_key_frame():
    draft = draft_of()
    draft.set(4, noise(3), seen(draft))
    draft.set(1, noise(4), seen(draft))
    draft.make_still(1, seen(draft))
    assert len({id(draft.frame(number)[0]) for number in range(COUNT)}) == 1
    assert np.array_equal(shown(draft, 5), noise(4)) and draft.state().key_frames == [1]
    draft.apply("invert", range(COUNT), seen(draft))
    assert len({id(draft.frame(number)[0]) for number in range(COUNT)}) == 1


def every_step(draft):
    """Changes of all kinds, the state after each of them."""
    yield everything(draft)
    draft.set(1, noise(5), seen(draft))
    yield everything(draft)
    draft.copy(1, range(2, 5), seen(draft))
    yield everything(draft)
    track(draft, 4, 2, moved)
    yield everything(draft)
    for operation in OPERATIONS[2:]:
        draft.apply(operation, range(1, COUNT), seen(draft), amount=1)
        yield everything(draft)
    draft.set(3, level(3), seen(draft))
    yield everything(draft)
    draft.make_still(1, seen(draft))
    yield everything(draft)
    draft.apply("clear", range(COUNT), seen(draft))
    yield everything(draft)


def test_every_step_is_undone_and_done_again():
    draft = draft_of()
    states = list(every_step(draft))
    assert draft.state().undo == len(states) - 1
    for state in states[-2::-1]:
        draft.undo(seen(draft))
        assert everything(draft) == state
    with pytest.raises(BusyError, match="nothing to undo"):
        draft.undo(seen(draft))
    assert not draft.state().unsaved
    for state in states[1:]:
        draft.redo(seen(draft))
        assert everything(draft) == state
    with pytest.raises(BusyError, match="nothing to redo"):
        draft.redo(seen(draft))
    draft.undo(seen(draft))
    draft.set(0, noise(8), seen(draft))
    assert draft.state().redo == 0


def test_what_changes_nothing_is_no_step():
    draft = draft_of()
    before = seen(draft)
    draft.apply("fill", range(COUNT), before)
    draft.copy(0, range(1, 3), before)
    assert draft.state().undo == 0 and seen(draft) == before


def test_a_change_needs_to_have_seen_the_frames_that_it_changes():
    draft = draft_of()
    old = seen(draft)
    draft.set(2, noise(1), old)
    draft.set(3, noise(2), old)
    draft.apply("clear", range(0, 2), old)
    for change in (
        lambda: draft.set(2, noise(3), old),
        lambda: draft.copy(2, range(4, 5), old),
        lambda: draft.apply("fill", range(1, 6), old),
        lambda: draft.make_still(5, old),
        lambda: draft.undo(old),
        lambda: draft.begin(5, 4, "test", old),
        lambda: draft.saving(old).__enter__(),
        lambda: draft.set(5, noise(3), seen(draft) + 1),
    ):
        with pytest.raises(MaskConflictError, match="changed in another window"):
            change()
    draft.set(2, noise(3), draft.frame(2)[1])
    assert np.array_equal(shown(draft, 2), noise(3))
    assert draft_of().state().revision > seen(draft), "another draft's stamps are others"


def test_a_tracked_mask_goes_both_ways_and_tells_its_drift():
    draft = draft_of()
    draft.set(3, level(200), seen(draft))
    track(draft, 3, 5, moved)
    track(draft, 3, 1, moved)
    state = draft.state()
    assert firsts(draft) == [255, 198, 199, 200, 199, 198]
    assert state.drift == [None, 0.01, 0.02, None, 0.04, 0.05] and state.key_frames == [3]
    told = state.tracked
    assert (told.start, told.end, told.reached, told.how) == (3, 1, 1, "done") and state.tracking is None
    draft.undo(seen(draft))
    assert firsts(draft) == [255, 255, 255, 200, 199, 198] and draft.state().drift[1] is None


def test_a_frame_corrected_by_hand_is_where_tracking_ends_and_goes_on_from():
    draft = draft_of()
    draft.set(0, level(100), seen(draft))
    draft.set(3, level(50), seen(draft))
    track(draft, 0, 5, moved)
    assert firsts(draft) == [100, 99, 98, 50, 255, 255] and draft.state().tracked.end == 2
    track(draft, 3, 5, moved)
    assert firsts(draft) == [100, 99, 98, 50, 49, 48]
    draft.set(4, level(80), seen(draft))
    assert draft.state().drift[4] is None and draft.state().key_frames == [0, 3, 4]
    with pytest.raises(ConfigError, match="frame 4 beside it was made by hand"):
        draft.begin(3, 5, "test", seen(draft))
    with pytest.raises(ConfigError, match="5 is that frame itself"):
        draft.begin(5, 5, "test", seen(draft))


class Held:
    """A tracker that waits before its third frame until it may go on."""

    def __init__(self):
        self.there, self.go = threading.Event(), threading.Event()

    def __call__(self, key, way, check):
        for step, found in enumerate(moved(key, way, check)):
            if step == 2:
                self.there.set()
                assert self.go.wait(30)
            yield found


@pytest.fixture
def held():
    """A draft in which frame 0 is being tracked, and what holds it."""
    draft, tracker = draft_of(), Held()
    run = draft.begin(0, 5, "test", seen(draft))
    thread = threading.Thread(target=run, args=(tracker,))
    thread.start()
    assert tracker.there.wait(30)
    yield draft, tracker
    tracker.go.set()
    thread.join(30)
    assert not thread.is_alive()


def test_while_a_mask_is_tracked_nothing_else_changes_and_what_is_done_can_be_seen(held):
    draft, _ = held
    state = draft.state()
    assert (state.tracking.done, state.tracking.total, state.tracking.end) == (2, 5, 5)
    assert firsts(draft) == [255, 254, 253, 255, 255, 255] and draft.unsaved
    for change in (
        lambda: draft.set(5, noise(1), seen(draft)),
        lambda: draft.apply("clear", range(5, 6), seen(draft)),
        lambda: draft.make_still(5, seen(draft)),
        lambda: draft.undo(seen(draft)),
        lambda: draft.begin(5, 4, "test", seen(draft)),
        lambda: draft.saving(seen(draft)).__enter__(),
    ):
        with pytest.raises(BusyError, match="is being tracked in this draft"):
            change()


def test_stopping_keeps_what_is_tracked_by_then_as_one_step(held):
    draft, tracker = held
    stopping = threading.Thread(target=draft.stop)
    stopping.start()
    while not draft._stop.is_set():
        pass
    tracker.go.set()
    stopping.join(30)
    told = draft.state().tracked
    assert (told.how, told.reached, draft.state().tracking) == ("stopped", 3, None)
    assert firsts(draft) == [255, 254, 253, 252, 255, 255], "the frame in work is done"
    assert draft.state().key_frames == [0], "where it was tracked from"
    draft.set(2, level(9), seen(draft))
    track(draft, 2, 5, moved)
    assert firsts(draft) == [255, 254, 9, 8, 7, 6]
    for _ in range(3):
        draft.undo(seen(draft))
    assert firsts(draft) == [255] * COUNT


def test_a_draft_that_is_given_up_takes_no_change_and_ends_its_tracking(held):
    draft, tracker = held
    draft.close()
    tracker.go.set()
    assert draft._idle.wait(30)
    assert draft.state().tracked.how == "stopped"
    with pytest.raises(MaskConflictError, match="was discarded"):
        draft.set(0, noise(1), seen(draft))


@pytest.mark.parametrize(
    ("fault", "told"),
    [(MaskError("walk.mkv: frame 2 is broken."), "walk.mkv: frame 2 is broken."), (ValueError("x"), "log tells more")],
)
def test_what_ends_tracking_is_told_and_what_was_done_stays(fault, told):
    def failing(key, way, check):
        yield way[1], masks(7)[0], 0.5
        raise fault

    draft = draft_of()
    track(draft, 0, 5, failing)
    state = draft.state()
    assert state.tracked.how == "failed" and told in state.tracked.problem and state.tracked.reached == 1
    assert firsts(draft) == [255, 7, 255, 255, 255, 255] and state.tracking is None
    draft.set(0, noise(1), seen(draft))


def test_what_is_saved_is_told_until_the_next_change():
    draft = draft_of()
    draft.set(1, noise(1), seen(draft))
    before = seen(draft)
    with draft.saving(before) as frames:
        draft.mark_saved(SavedMasks(frames, "other", True, Path("mask.mkv")))
    state = draft.state()
    assert not state.unsaved and state.moving and state.revision > before and state.undo == 1
    draft.undo(seen(draft))
    assert draft.state().unsaved
    draft.redo(seen(draft))
    assert not draft.state().unsaved


def test_what_others_saved_meanwhile_is_what_the_next_save_replaces():
    draft = draft_of()
    draft.set(1, noise(1), seen(draft))
    before = everything(draft)
    theirs = SavedMasks(masks(*range(COUNT)), "theirs", True, Path("mask.mkv"))
    with pytest.raises(MaskConflictError):
        draft.save_over(theirs, seen(draft) - 1)
    draft.save_over(theirs, seen(draft))
    assert everything(draft) == before and draft.saved is theirs
    assert draft.state().unsaved and draft.state().undo == 1
    with pytest.raises(MaskConflictError):
        draft.save_over(SavedMasks(masks(1, 2), "another clip", True, Path("mask.mkv")), seen(draft))


def test_memory_has_an_end_old_steps_go_first_and_then_changes_are_refused():
    one = 20 + len(pack_mask(noise(0).astype(np.float32) / np.float32(255)).data)
    draft = draft_of(room=4 * one)
    for seed in range(20):
        draft.set(0, noise(seed), seen(draft))
    assert draft.held <= 4 * one and draft.state().undo == 3
    draft.set(1, noise(31), seen(draft))
    draft.set(2, noise(32), seen(draft))
    draft.set(3, noise(33), seen(draft))
    kept = everything(draft)
    with pytest.raises(BusyError, match="no more memory for drafts"):
        draft.set(4, noise(34), seen(draft))
    assert everything(draft) == kept
    track(draft, 3, 5, lambda key, way, check: iter([(4, pack_mask(noise(40) / np.float32(255)), 0.0)]))
    assert draft.state().tracked.how == "failed" and "no more memory" in draft.state().tracked.problem
    assert everything(draft)[0] == kept[0]


def test_steps_have_an_end():
    draft = draft_of()
    for step in range(MOST_STEPS + 5):
        draft.set(0, level(step % 200), seen(draft))
    assert draft.state().undo == MOST_STEPS


def test_masks_that_are_put_are_one_step_of_which_no_frame_is_a_key_frame():
    draft = draft_of(*masks(10, 20, 30, 40))
    draft.set(1, level(99), seen(draft))
    track(draft, 1, 3, moved)
    before = everything(draft)
    draft.put(masks(1, 2, 3, 4), seen(draft))
    assert firsts(draft) == [1, 2, 3, 4]
    assert (draft.state().key_frames, draft.state().drift) == ([], [None] * 4)
    draft.undo(seen(draft))
    assert everything(draft) == before
    old = seen(draft)
    draft.set(0, level(5), old)
    for given, at in ((masks(1, 2, 3, 4), old), (masks(1, 2, 3), seen(draft))):
        with pytest.raises(MaskConflictError):
            draft.put(given, at)
    assert firsts(draft)[0] == 5
    revision = seen(draft)
    draft.put([draft.frame(number)[0] for number in range(4)], revision)
    assert draft.state().key_frames == []


def test_how_far_a_tracker_has_looked_is_told_before_its_masks_are_there():
    draft, told = draft_of(), []

    def looking(key, way, watch):
        for step in range(1, 4):
            watch.looked(step)
            told.append((draft.state().tracking.looked, draft.state().tracking.done))
        yield from moved(key, way, watch)
        told.append((draft.state().tracking.looked, draft.state().tracking.done))

    track(draft, 0, 5, looking)
    assert told == [(1, 0), (2, 0), (3, 0), (5, 5)]
