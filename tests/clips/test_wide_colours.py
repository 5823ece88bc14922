"""HDR and wide colours brought to sRGB: greys stay grey, paper white is nearly white, pure colours stay themselves."""

import numpy as np
import pytest

from harness.clips import write_clip
from masklora.clips.reading import read_clip_header, read_frames, read_mask_frames
from masklora.clips.wide_colours import HLG, PQ, WideColours

BT709, SRGB, BT2020, P3 = 1, 13, 9, 12
DEEP = 65535
# Red, green and blue of sRGB by the primaries of BT.2020 and P3, in light. Source: ITU-R BT.2087, SMPTE EG 432-1.
SRGB_IN = {
    BT2020: ((0.6274, 0.0691, 0.0164), (0.3293, 0.9195, 0.0880), (0.0433, 0.0114, 0.8956)),
    P3: ((0.8225, 0.0332, 0.0171), (0.1774, 0.9669, 0.0724), (0.0, 0.0, 0.9108)),
}


def greys(values):
    return np.repeat(np.asarray(values, np.uint16).reshape(1, -1, 1), 3, axis=2)


def encoded(light):
    light = np.asarray(light, float)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("primaries", [BT709, 2, 6])
@pytest.mark.parametrize("transfer", [BT709, 2, SRGB, 6])
def test_usual_colours_are_left_as_they_are(transfer, primaries):
    colours = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    assert WideColours(transfer, primaries).to_srgb(colours) is colours
    assert WideColours(transfer, primaries).mark == ""


@pytest.mark.parametrize("transfer", [PQ, HLG, BT709])
@pytest.mark.parametrize("primaries", [BT2020, P3])
def test_greys_stay_grey_and_in_their_order(transfer, primaries):
    shown = WideColours(transfer, primaries).to_srgb(greys(np.linspace(0, DEEP, 500))).astype(int)
    assert np.ptp(shown, axis=2).max() <= DEEP * 0.003
    assert (np.diff(shown[0, :, 1]) >= 0).all()
    assert shown[0, 0, 1] == 0 and shown[0, -1, 1] >= 0.999 * DEEP


def test_paper_white_is_nearly_white_and_what_shines_is_above_it():
    """203 candela, by ITU-R BT.2408 58 % of PQ and 75 % of HLG; a grey card of 26 candela at 38 % of both."""
    for transfer, white in ((PQ, 0.5807), (HLG, 0.75)):
        card, paper, lamp = (
            WideColours(transfer, BT2020).to_srgb(greys([0.38 * DEEP, white * DEEP, DEEP]))[0, :, 0] / DEEP
        )
        assert card == pytest.approx(float(encoded(26 / 203)), abs=0.02)
        assert 0.93 < paper < 0.97
        assert lamp == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize("primaries", SRGB_IN)
def test_pure_colours_of_srgb_in_wide_ones_come_back(primaries):
    for band in range(3):
        stored = encoded(np.array(SRGB_IN[primaries])[band])
        shown = WideColours(BT709, primaries).to_srgb(np.rint(stored * DEEP).astype(np.uint16).reshape(1, 1, 3))
        assert shown[0, 0].argmax() == band
        assert shown[0, 0, band] > 0.995 * DEEP
        assert np.delete(shown[0, 0], band).max() < 0.05 * DEEP


@pytest.mark.parametrize(
    ("transfer", "primaries", "mark"),
    [
        ("arib-std-b67", "bt2020", "10-bit hdr"),
        ("smpte2084", "bt2020", "10-bit hdr"),
        ("bt709", "bt2020", "10-bit wide-gamut"),
    ],
)
def test_tags_of_files_are_followed_for_pictures_and_not_for_masks(tmp_path, transfer, primaries, mark):
    params = f"log-level=none:lossless=1:transfer={transfer}:colorprim={primaries}:colormatrix=bt2020nc:range=full"
    card = np.full((48, 64, 3), round(0.38 * DEEP), np.uint16)
    path = write_clip(tmp_path / "phone.mp4", [card] * 3, "libx265", "yuv420p10le", {"x265-params": params})
    assert read_clip_header(path).reading == mark
    (frame,) = read_frames(path, [1])
    (mask,) = read_mask_frames(path, [1])
    assert np.ptp(frame.rgb) <= 2
    wanted = 255 * (0.38 if transfer == "bt709" else encoded(26 / 203))
    stored = float(mask.mean()) * 255
    assert abs(frame.rgb.mean() - wanted) < 12
    assert abs(stored - 255 * 0.38) < 12
    assert transfer == "bt709" or abs(frame.rgb.mean() - stored) > 2
