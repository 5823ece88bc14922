"""Frames of mask clips as weights: judged once for the clip, exact where it is exact, clean where a codec is not."""

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.clips import numbered, write_animation, write_clip, write_sequence
from masklora.clips.reading import mask_clip_meaning, read_mask_frames
from masklora.errors import ConfigError, MaskError
from masklora.pictures.reading import read_mask

LOSSY = {
    "h264.mp4": ("libx264", "yuv420p", {"crf": "23"}),
    "h264 fast.mp4": ("libx264", "yuv420p", {"crf": "23", "preset": "ultrafast"}),
    "hevc.mp4": ("libx265", "yuv420p10le", {"crf": "26", "x265-params": "log-level=none"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"crf": "32", "b": "0"}),
    "mpeg4.mp4": ("mpeg4", "yuv420p", {"b": "800k"}),
    "prores.mov": ("prores_ks", "yuv422p10le", {}),
    "full range.mp4": ("libx264", "yuvj420p", {"crf": "20"}),
}


def disc(number, value=255, size=(160, 120)):
    picture = np.zeros((size[1], size[0]), np.uint8)
    cv2.circle(picture, (40 + 4 * number, 60), 25, value, -1, cv2.LINE_AA)
    return picture


def rgb(picture):
    return np.repeat(picture[..., None], 3, axis=2)


def weights(path, numbers, channel="luminance"):
    return list(read_mask_frames(path, numbers, channel))


@pytest.mark.parametrize("name", LOSSY)
def test_in_clips_that_lose_detail_inside_and_outside_are_exact(tmp_path, name):
    path = write_clip(tmp_path / name, [rgb(disc(number)) for number in range(16)], *LOSSY[name])
    near = np.ones((7, 7), np.uint8)
    for number, read in enumerate(weights(path, range(16))):
        stored = disc(number)
        assert read.dtype == np.float32
        assert (read[cv2.dilate(stored, near) == 0] == 0).all()
        assert (read[cv2.erode(stored, near) == 255] == 1).all()
        assert ((read > 0.3) == (stored > 0.3 * 255)).mean() > 0.995
        assert read.min() >= 0 and read.max() <= 1


def test_soft_values_between_stay(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 160).astype(np.uint8), (96, 1))
    path = write_clip(tmp_path / "ramp.mp4", [rgb(ramp)] * 3, "libx264", "yuv444p", {"crf": "10"})
    read = weights(path, [1])[0].mean(axis=0)
    between = slice(10, 150)
    assert np.abs(read[between] - ramp[0, between] / 255).max() < 0.02
    assert (np.diff(read) > -0.02).all()


def test_exact_clips_keep_every_value(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = write_clip(tmp_path / "exact.mkv", [rgb(values), rgb(values[::-1])])
    assert not mask_clip_meaning(path).lossy
    for read, stored in zip(weights(path, [0, 1]), (values, values[::-1]), strict=True):
        np.testing.assert_array_equal(read, stored / np.float32(255))


@pytest.mark.parametrize(("pixels", "bits"), [("gray", 8), ("gray10le", 10), ("gray12le", 12), ("gray16le", 16)])
def test_every_depth_has_its_white(tmp_path, pixels, bits):
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16, 1)
    path = write_clip(tmp_path / "deep.mkv", [values], "ffv1", pixels)
    (read,) = weights(path, [0])
    assert read.max() == 1 and read.min() == 0
    assert np.abs(read - values[..., 0] / 65535).max() <= 1 / (2**bits - 1)


@pytest.mark.parametrize("channel", ["red", "green", "blue", "rgb average", "alpha", "luminance"])
def test_channels_are_those_of_pictures(tmp_path, channel):
    picture = np.random.default_rng(1).integers(0, 256, (16, 16, 4), np.uint8)
    picture[0, 0] = 255
    path = write_clip(tmp_path / "bands.mkv", [picture], "ffv1", "bgra")
    Image.fromarray(picture).save(tmp_path / "still.png")
    np.testing.assert_array_equal(weights(path, [0], channel)[0], read_mask(tmp_path / "still.png", channel))


def photograph(alpha):
    colours = np.random.default_rng(2).integers(60, 200, (*alpha.shape, 3), np.uint8)
    return np.dstack([colours, alpha])


def test_an_alpha_is_the_mask_also_where_nothing_is_in_it(tmp_path):
    nothing, everything = np.zeros((120, 160), np.uint8), np.full((120, 160), 255, np.uint8)
    alphas = [nothing, disc(0), nothing, everything, disc(9)]
    path = write_clip(tmp_path / "alpha.mkv", [photograph(alpha) for alpha in alphas], "ffv1", "bgra")
    assert mask_clip_meaning(path).read == "alpha"
    for read, alpha in zip(weights(path, range(5)), alphas, strict=True):
        np.testing.assert_array_equal(read, alpha / np.float32(255))
    np.testing.assert_array_equal(weights(path, [2])[0], 0)


def test_alpha_of_a_webm_is_a_mask(tmp_path):
    frames = [np.dstack([numbered(3, (160, 120)), disc(number)]) for number in range(8)]
    path = write_clip(tmp_path / "alpha.webm", frames, "libvpx-vp9", "yuva420p", {"b": "2M"})
    read = weights(path, [5], "alpha")[0]
    near = np.ones((9, 9), np.uint8)
    assert (read[cv2.dilate(disc(5), near) == 0] == 0).all()
    assert (read[cv2.erode(disc(5), near) == 255] == 1).all()


def test_zero_and_one_are_black_and_white_in_every_frame(tmp_path):
    frames = [rgb(disc(number, 255) // 255) for number in range(4)] + [np.zeros((120, 160, 3), np.uint8)]
    path = write_clip(tmp_path / "ones.mkv", frames)
    assert mask_clip_meaning(path).read == "zero and one"
    assert [float(read.max()) for read in weights(path, range(5))] == [1, 1, 1, 1, 0]


def test_a_dark_frame_of_a_bright_clip_is_dark(tmp_path):
    dark = np.zeros((120, 160, 3), np.uint8)
    dark[10:20, 10:20] = 1
    path = write_clip(tmp_path / "fading.mkv", [rgb(disc(1)), dark, rgb(disc(2))])
    assert float(weights(path, [1])[0].max()) == pytest.approx(1 / 255)


def test_one_colour_is_white_in_every_frame(tmp_path):
    frames = [np.dstack([disc(number, 200), *[np.zeros((120, 160), np.uint8)] * 2]) for number in range(4)]
    path = write_clip(tmp_path / "red.mp4", [*frames, np.zeros((120, 160, 3), np.uint8)], "libx264", "yuv444p")
    assert mask_clip_meaning(path).read == "one colour"
    near = np.ones((17, 17), np.uint8)
    *reads, none = weights(path, range(5))
    for number, read in enumerate(reads):
        assert (read[cv2.erode(disc(number), near) == 255] == 1).all()
        assert (read[cv2.dilate(disc(number), near) == 0] == 0).all()
    assert (none == 0).all()


def test_eight_bits_in_sixteen(tmp_path):
    folder = tmp_path / "sixteen"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(disc(number).astype(np.uint16)).save(folder / f"m{number}.png")
    assert mask_clip_meaning(folder).read == "eight of sixteen bits"
    np.testing.assert_array_equal(weights(folder, [1])[0], disc(1) / np.float32(255))


def test_a_frame_is_the_same_however_it_is_asked_for(tmp_path):
    frames = [rgb(disc(number)) for number in range(16)]
    path = write_clip(tmp_path / "same.mp4", frames, "libx264", "yuv420p", {"g": "6"})
    together = weights(path, range(16))
    for number in (0, 7, 15):
        np.testing.assert_array_equal(weights(path, [number])[0], together[number])
    np.testing.assert_array_equal(np.stack(weights(path, [3, 3])), np.stack([together[3]] * 2))


def test_animations_and_folders_of_masks(tmp_path):
    pictures = [disc(number) for number in range(4)]
    sharp = [np.where(picture > 127, 255, 0).astype(np.uint8) for picture in pictures]
    for path in (
        write_animation(tmp_path / "m.gif", sharp),
        write_animation(tmp_path / "m.png", sharp),
        write_sequence(tmp_path / "m", sharp),
    ):
        for read, stored in zip(weights(path, [0, 2, 3]), (sharp[0], sharp[2], sharp[3]), strict=True):
            np.testing.assert_array_equal(read, stored / 255)


def test_jpegs_in_a_folder_are_cleaned_like_videos(tmp_path):
    folder = write_sequence(tmp_path / "jpegs", [disc(number) for number in range(3)], "m{}.jpg")
    near = np.ones((17, 17), np.uint8)
    read = weights(folder, [1])[0]
    assert mask_clip_meaning(folder).lossy
    assert (read[cv2.dilate(disc(1), near) == 0] == 0).all()


def test_errors_name_the_mask_and_what_to_choose(tmp_path):
    path = write_clip(tmp_path / "plain.mkv", [rgb(disc(0))])
    with pytest.raises(MaskError, match=r"plain\.mkv.*mask_channel is alpha"):
        weights(path, [0], "alpha")
    with pytest.raises(ConfigError, match="mask_channel"):
        read_mask_frames(path, [0], "purple")
    with pytest.raises(MaskError, match=r"mask plain\.mkv: frame 1 "):
        weights(path, [1])
    (tmp_path / "broken.mp4").write_bytes(b"no clip at all")
    with pytest.raises(MaskError, match=r"mask broken\.mp4"):
        weights(tmp_path / "broken.mp4", [0])
    with pytest.raises(MaskError, match=r"mask missing\.mp4"):
        weights(tmp_path / "missing.mp4", [0])


def test_what_a_clip_means_is_judged_anew_when_it_changes(tmp_path):
    sharp = [np.where(disc(number) > 127, 255, 0).astype(np.uint8) for number in range(3)]
    folder = write_sequence(tmp_path / "m", [picture // 255 for picture in sharp])
    assert mask_clip_meaning(folder).read == "zero and one"
    write_sequence(folder, sharp)
    assert mask_clip_meaning(folder).read == ""
    np.testing.assert_array_equal(weights(folder, [1])[0], sharp[1] / 255)


def test_judging_stops_when_told(tmp_path):
    class StoppedError(Exception):
        pass

    def stop():
        raise StoppedError

    path = write_clip(tmp_path / "long.mkv", [rgb(disc(number)) for number in range(8)])
    with pytest.raises(StoppedError):
        next(read_mask_frames(path, [0], check_cancel=stop))


@pytest.mark.parametrize("kind", ["walk.mkv", "walk.apng", "walk.frames"])
def test_an_alpha_that_counts_in_one_frame_only_is_seen(tmp_path, kind):
    frames = [np.full((24, 32, 4), 255, np.uint8) for _ in range(40)]
    for number, frame in enumerate(frames):
        frame[0, 0, 2] = number
    frames[18][:, :16, 3] = 0
    path = tmp_path / kind
    if kind == "walk.mkv":
        write_clip(path, frames, "ffv1", "bgra")
    elif kind == "walk.apng":
        write_animation(path, frames)
    else:
        write_sequence(path, frames)
    assert mask_clip_meaning(path).channel == "alpha"
    half, whole = weights(path, [18, 19])
    assert half[:, :16].max() == 0 and half[:, 16:].min() == 1 and whole.min() == 1


def test_lossy_webp_is_cleaned_as_other_lossy_clips_and_lossless_is_not(tmp_path):
    frames = [rgb(disc(number)) for number in range(6)]
    near = np.ones((17, 17), np.uint8)
    lossy = write_animation(tmp_path / "lossy.webp", frames, lossless=False, quality=80)
    exact = write_animation(tmp_path / "exact.webp", frames)
    still = tmp_path / "still.frames"
    still.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(still / f"{number}.webp", quality=80)
    assert not mask_clip_meaning(exact).lossy
    for path in (lossy, still):
        assert mask_clip_meaning(path).lossy
        for number, read in enumerate(weights(path, range(6))):
            stored = disc(number)
            assert (read[cv2.dilate(stored, near) == 0] == 0).all() and (
                read[cv2.erode(stored, near) == 255] == 1
            ).all()
