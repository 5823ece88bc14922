"""Laws of masks that are carried over a clip by optical flow, on made moving pictures."""

import functools
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from masklora.errors import MaskError
from masklora.generators.flow import DRIFTED, GONE, carry, carry_from
from masklora.pictures.packed_mask import PackedFrames

PHOTOGRAPHS = Path(__file__).resolve().parents[1] / "pictures" / "photographs"
SIZE = (320, 192)
FRAMES = 17


@functools.cache
def texture(width, height, seed):
    """uint8 (H, W, 3), rough at every scale, as photographs are."""
    random = np.random.default_rng(seed)
    out = np.zeros((height, width, 3), np.float32)
    for blur, share in ((1.5, 0.5), (4, 0.6), (12, 0.8), (30, 1)):
        layer = np.dstack([cv2.GaussianBlur(random.random((height, width), np.float32), (0, 0), blur) for _ in "rgb"])
        out += share * (layer - layer.mean()) / layer.std()
    return np.rint(255 * (out - out.min()) / (out.max() - out.min())).astype(np.uint8)


def scene(number, *, step=(3, 1), turn=0.0, zoom=1.0, start=(60, 50), side=80, pan=0):
    """A textured square that moves before a texture: uint8 (H, W, 3) and its mask, float32 (H, W) of zeros and ones."""
    width, height = SIZE
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), turn * number, zoom**number)
    matrix[:, 2] += np.add(start, np.multiply(step, number))
    weight = cv2.warpAffine(np.ones((side, side), np.float32), matrix, SIZE)
    square = cv2.warpAffine(texture(side, side, 2), matrix, SIZE)
    behind = np.roll(texture(width, height, 1), pan * number, axis=1)
    picture = behind * (1 - weight[..., None]) + square * weight[..., None]
    return np.rint(picture).astype(np.uint8), (weight > 0.5).astype(np.float32)


def reader(pictures):
    return lambda numbers: (pictures[number] for number in numbers)


def made(**values):
    pairs = [scene(number, **values) for number in range(FRAMES)]
    return [picture for picture, _ in pairs], [mask for _, mask in pairs]


def overlap(one, other):
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


def middle(mask):
    rows, columns = np.nonzero(mask > 0.5)
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize(("step", "pan"), [((3, 1), 0), ((7, 3), 0), ((0.3, 0.2), 0), ((3, 1), 4), ((0.3, 0.2), 4)])
def test_a_moving_square_is_followed_within_a_pixel(step, pan):
    pictures, truth = made(step=step, pan=pan)
    carried = carry(reader(pictures), FRAMES, {0: truth[0]})
    for number in range(FRAMES):
        mask = carried.masks.unpack(number)
        assert np.abs(middle(mask) - (np.array([60, 50]) + np.multiply(step, number) + 39.5)).max() <= 1
        # Of a square of 80 a pixel on every side is a twentieth.
        assert overlap(mask, truth[number]) > 0.95
        assert set(np.unique(mask)) == {0, 1}
    assert carried.drift[0] == 0 and carried.drift.max() < 0.05


def test_over_many_frames_no_lag_adds_up():
    count, step = 60, (2.3, 0.6)
    pairs = [scene(number, step=step, start=(40, 50)) for number in range(count)]
    carried = carry(reader([picture for picture, _ in pairs]), count, {0: pairs[0][1]})
    exact = np.array([40, 50]) + np.multiply(step, count - 1) + 39.5
    assert np.abs(middle(carried.masks.unpack(count - 1)) - exact).max() <= 1 and carried.drift[-1] < 0.05


@pytest.mark.parametrize("values", [{"turn": 2.0, "step": (1, 0)}, {"zoom": 1.02, "step": (0, 0)}])
def test_turning_and_growing_are_followed(values):
    pictures, truth = made(**values)
    carried = carry(reader(pictures), FRAMES, {0: truth[0]})
    assert overlap(carried.masks.unpack(FRAMES - 1), truth[-1]) > 0.95


@pytest.mark.parametrize("name", ["astronaut", "coffee", "coins"])
def test_a_photograph_that_turns_in_noise_is_followed_without_an_alarm(name):
    with Image.open(PHOTOGRAPHS / f"{name}.jpg") as file:
        picture = np.asarray(file.convert("RGB"))
    height, width = picture.shape[:2]
    key = np.zeros((height, width), np.float32)
    cv2.ellipse(key, (width // 2, height // 2), (width // 5, height // 4), 20, 0, 360, 1, -1)
    random, pictures = np.random.default_rng(0), []
    for number in range(33):
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 0.8 * number, 1.006**number)
        matrix[:, 2] += (1.5 * number, -0.7 * number)
        moved = cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
        pictures.append(np.clip(moved + random.normal(0, 4, moved.shape), 0, 255).astype(np.uint8))
    truth = (cv2.warpAffine(key, matrix, (width, height)) > 0.5).astype(np.float32)
    carried = carry(reader(pictures), 33, {0: key})
    assert overlap(carried.masks.unpack(32), truth) > 0.97
    assert carried.drifted() == []


@pytest.mark.parametrize("kind", ["hard", "eight bits", "sixteen bits"])
def test_on_a_still_clip_every_frame_has_the_key_frames_mask_bit_for_bit(kind):
    picture, mask = scene(0)
    if kind != "hard":
        steps = 255 if kind == "eight bits" else 65535
        mask = np.rint(np.random.default_rng(3).random(mask.shape) * steps).astype(np.float32) / np.float32(steps)
    carried = carry(reader([picture] * 5), 5, {2: mask})
    assert len(carried.masks) == 5
    assert all(np.array_equal(carried.masks.unpack(number), mask) for number in range(5))
    assert not carried.drift.any()


def test_backwards_is_forwards_mirrored():
    pictures, truth = made(step=(2, 1))
    onward = carry(reader(pictures), FRAMES, {0: truth[0]})
    back = carry(reader(pictures[::-1]), FRAMES, {FRAMES - 1: truth[0]})
    for number in range(FRAMES):
        assert overlap(onward.masks.unpack(number), back.masks.unpack(FRAMES - 1 - number)) > 0.99
    assert np.allclose(onward.drift, back.drift[::-1], atol=0.01)
    # From the last frame to the first, where the truth is known as well.
    home = carry(reader(pictures), FRAMES, {FRAMES - 1: truth[-1]})
    assert overlap(home.masks.unpack(0), truth[0]) > 0.95


@pytest.mark.parametrize("end", [0, FRAMES - 1])
def test_one_way_gives_frame_by_frame_what_is_carried_over_the_whole_clip(end):
    pictures, masks = made()
    whole = carry(reader(pictures), FRAMES, {8: masks[8]})
    step = 1 if end > 8 else -1
    way = range(8, end + step, step)
    found = carry_from(reader(pictures), masks[8], way)
    first = next(found)
    assert first[0] == 8 + step
    told = [first, *found]
    assert [number for number, _, _ in told] == list(way[1:])
    assert all(mask == whole.masks.frames[number] for number, mask, _ in told)
    doubt = np.maximum(whole.drift, whole.gone)
    assert [lost for _, _, lost in told] == pytest.approx([doubt[number] for number in way[1:]])


@pytest.mark.parametrize(("end", "reached", "cut"), [(FRAMES - 1, 9, 10), (0, 5, 4)])
def test_one_way_ends_with_a_sentence_where_the_scene_is_cut(end, reached, cut):
    pictures, masks = made()
    for number in [*range(5), *range(10, FRAMES)]:
        pictures[number] = texture(*SIZE, 40 + (number > 8))
    step = 1 if end > 8 else -1
    found, numbers = carry_from(reader(pictures), masks[8], range(8, end + step, step)), []
    with pytest.raises(MaskError, match=f"cut at frame {cut}, .* Correct the mask of that frame"):
        numbers.extend(number for number, _, _ in found)
    assert numbers == list(range(8 + step, reached + step, step))


def test_what_passes_in_front_raises_the_drift():
    pictures, truth = made(step=(0, 0), start=(120, 50))
    clear = carry(reader(pictures), FRAMES, {0: truth[0]})
    hidden = [picture.copy() for picture in pictures]
    for number in range(4, FRAMES):
        left = 30 * (number - 4)
        hidden[number][:, left : left + 60] = texture(*SIZE, 7)[:, :60][
            :, : hidden[number][:, left : left + 60].shape[1]
        ]
    carried = carry(reader(hidden), FRAMES, {0: truth[0]})
    assert not clear.drift.any()
    assert carried.drift[3] < 0.01 and carried.drift[-1] > DRIFTED
    first = carried.drifted()
    assert len(first) == 1 and 4 < first[0] < FRAMES


def test_what_leaves_the_picture_is_lost():
    pictures, truth = made(step=(18, 0), start=(200, 50), side=60)
    carried = carry(reader(pictures), FRAMES, {0: truth[0]})
    assert not truth[-1].any() and carried.drift[-1] > DRIFTED


def test_between_two_key_frames_both_count_by_distance():
    pictures, truth = made(step=(2, 0))
    wide = truth[0].copy()
    wide[:20, :20] = 1
    one, both = (carry(reader(pictures), FRAMES, keys) for keys in ({0: wide}, {0: wide, 16: truth[16]}))
    assert np.array_equal(both.masks.unpack(0), wide) and np.array_equal(both.masks.unpack(16), truth[16])
    for number in (4, 8, 12):
        mask, first = both.masks.unpack(number), one.masks.unpack(number)
        # What only the first key frame has fades with the distance from it; where they agree it is as before.
        only = (first == 1) & (truth[number] == 0) & (mask > 0)
        assert only.any() and abs(float(np.median(mask[only])) - (1 - number / 16)) < 1 / 255
        assert overlap((mask > 0.5) & (truth[number] > 0), truth[number]) > 0.95
    assert both.drift[0] == both.drift[16] == 0


def test_frames_are_read_one_at_a_time_and_a_stop_stops_between_them():
    pictures, truth = made()
    asked, stopped = [], []

    def read(numbers):
        for number in numbers:
            asked.append(number)
            yield pictures[number]

    class Stop(Exception):
        pass

    def check_cancel():
        stopped.append(True)
        if len(stopped) == 4:
            raise Stop

    with pytest.raises(Stop):
        carry(read, FRAMES, {0: truth[0]}, check_cancel=check_cancel)
    assert asked == [0, 1, 2, 3, 4]


def test_backwards_few_frames_are_read_at_once():
    count = 100
    pictures = [scene(0)[0]] * count
    asked = []

    def read(numbers):
        asked.append(list(numbers))
        return (pictures[number] for number in numbers)

    carry(read, count, {count - 1: scene(0)[1]})
    assert max(map(len, asked[:-1])) <= 32 and sorted(itertools.chain(*asked)) == list(range(count))


def test_progress_counts_every_frame_that_is_carried_to():
    pictures, truth = made()
    seen = []
    carry(
        reader(pictures), FRAMES, {4: truth[4], 10: truth[10]}, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(number, 4 + 6 + 2 * 5) for number in range(1, 21)]


@pytest.mark.parametrize("keys", [{}, {-1: None}, {FRAMES: None}])
def test_key_frames_that_are_none_are_refused(keys):
    with pytest.raises(ValueError, match="key frames"):
        carry(reader([]), FRAMES, keys)


def test_packed_frames_stand_for_their_values():
    pictures, truth = made()
    one = carry(reader(pictures), FRAMES, {0: truth[0]}).masks
    again = PackedFrames(tuple(one.frames))
    other = PackedFrames((*one.frames[:-1], one.frames[0]))
    assert one.digest == again.digest != other.digest and len(one.digest) == 40
    assert len({one.digest, PackedFrames(one.frames[::-1]).digest}) == 2


def leaving(how, *, seed, count=36):
    """A square that leaves the picture, goes behind a part of the still wall, or fades into it; and its masks."""
    width, height = SIZE
    wall, square = texture(width, height, seed), texture(70, 70, seed + 1000)
    pictures, truth = [], []
    for number in range(count):
        x = (170 if how == "out" else 30) + 6 * number
        matrix = np.float32([[1, 0, x], [0, 1, 55]])
        weight = cv2.warpAffine(np.ones((70, 70), np.float32), matrix, SIZE)
        if how == "behind":
            weight[:, 140:] = 0
        if how == "fades":
            weight *= max(0.0, 1 - number / 20)
        moved = cv2.warpAffine(square, matrix, SIZE, borderMode=cv2.BORDER_REPLICATE)
        picture = wall * (1 - weight[..., None]) + moved * weight[..., None]
        pictures.append(np.rint(picture).astype(np.uint8))
        truth.append((weight > 0.5).astype(np.float32))
    return pictures, truth


@pytest.mark.parametrize("seed", [31, 32])
@pytest.mark.parametrize("how", ["out", "behind", "fades"])
def test_a_subject_that_leaves_before_a_still_wall_is_gone(how, seed):
    pictures, truth = leaving(how, seed=seed)
    carried = carry(reader(pictures), len(pictures), {0: truth[0]})
    shares = np.array([mask.sum() / truth[0].sum() for mask in truth])
    away = int(np.argmax(shares == 0))
    assert (carried.gone[shares > 0.9] < GONE).all() and carried.cut == ()
    assert (carried.gone[away + 3 :] > GONE).all()


def test_a_flat_subject_is_gone_by_its_colours():
    wall = np.full((SIZE[1], SIZE[0], 3), (120, 130, 140), np.uint8)
    pictures = []
    for number in range(20):
        picture = wall.copy()
        picture[60:120, 200 + 8 * number : 260 + 8 * number] = (200, 60, 40)
        pictures.append(picture)
    key = (pictures[0][..., 2] == 40).astype(np.float32)
    carried = carry(reader(pictures), 20, {0: key})
    assert carried.gone[:6].max() < GONE < carried.gone[-1]


@pytest.mark.parametrize("change", ["moves", "darker", "flash", "noise", "followed", "shaken"])
def test_what_is_still_there_is_neither_gone_nor_cut(change):
    random, pictures, truth = np.random.default_rng(41), [], []
    wall, square = texture(SIZE[0] + 900, SIZE[1] + 40, 42), texture(80, 80, 43)
    for number in range(14):
        left, top = (60 * number, 20) if change == "followed" else (100, 20)
        if change == "shaken":
            left, top = 100 + int(random.integers(0, 24)), int(random.integers(8, 32))
        picture, mask = (
            wall[top : top + SIZE[1], left : left + SIZE[0]].copy(),
            np.zeros((SIZE[1], SIZE[0]), np.float32),
        )
        x, y = (60 + 4 * number - (left - 100 if change == "shaken" else 0), 50 - (top - 20))
        picture[y : y + 80, x : x + 80], mask[y : y + 80, x : x + 80] = square, 1
        values = picture.astype(np.float32)
        if change == "darker":
            values *= 1 - 0.5 * number / 14
        if change == "flash" and number == 6:
            values = 1.4 * values + 30
        if change == "noise":
            values += random.normal(0, 8, values.shape)
        pictures.append(np.clip(values, 0, 255).astype(np.uint8))
        truth.append(mask)
    carried = carry(reader(pictures), 14, {0: truth[0]})
    assert carried.cut == () and carried.gone.max() < GONE
    assert overlap(carried.masks.unpack(13), truth[13]) > 0.9


def two_scenes(seed, *, first=9, second=8):
    """A square that moves, then another before another wall that moves the other way; and the masks of both."""
    one = [scene(number, step=(3, 1)) for number in range(first)]
    wall, square = texture(*SIZE, seed), texture(60, 60, seed + 1)
    for number in range(second):
        picture, mask = wall.copy(), np.zeros((SIZE[1], SIZE[0]), np.float32)
        x = 200 - 4 * number
        picture[90:150, x : x + 60], mask[90:150, x : x + 60] = square, 1
        one.append((picture, mask))
    return [picture for picture, _ in one], [mask for _, mask in one]


@pytest.mark.parametrize("seed", [51, 52, 53])
def test_a_cut_ends_the_carrying_in_both_directions(seed):
    pictures, truth = two_scenes(seed)
    seen = []
    onward = carry(reader(pictures), 17, {2: truth[2]}, progress=lambda done, total: seen.append((done, total)))
    assert onward.cut == tuple(range(9, 17)) and seen[-1] == (16, 16)
    assert all(not onward.masks.unpack(number).any() for number in onward.cut)
    assert overlap(onward.masks.unpack(8), truth[8]) > 0.95
    back = carry(reader(pictures), 17, {14: truth[14]})
    assert back.cut == tuple(range(9)) and overlap(back.masks.unpack(9), truth[9]) > 0.95


def test_between_key_frames_of_two_scenes_each_has_its_own_mask():
    pictures, truth = two_scenes(54)
    carried = carry(reader(pictures), 17, {0: truth[0], 16: truth[16]})
    assert carried.cut == ()
    for number in range(17):
        assert overlap(carried.masks.unpack(number), truth[number]) > 0.93
        assert set(np.unique(carried.masks.unpack(number))) == {0, 1}


def test_grain_before_a_flat_wall_is_no_cut():
    random, wall = np.random.default_rng(61), np.full((SIZE[1], SIZE[0], 3), (120, 130, 140), np.float32)
    pictures, truth = [], []
    for number in range(6):
        picture, mask = wall.copy(), np.zeros((SIZE[1], SIZE[0]), np.float32)
        picture[60:120, 60 + 2 * number : 120 + 2 * number] = (170, 110, 90)
        mask[60:120, 60 + 2 * number : 120 + 2 * number] = 1
        pictures.append(np.clip(picture + random.normal(0, 20, picture.shape), 0, 255).astype(np.uint8))
        truth.append(mask)
    carried = carry(reader(pictures), 6, {0: truth[0]})
    assert carried.cut == () and carried.gone.max() < GONE
