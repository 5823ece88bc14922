"""The report of what a data set's masks hold, as text and as JSON."""

import dataclasses

import numpy as np
import pytest

from harness.folders import anywhere, folder_settings, grey, picture, with_alpha
from masklora.dataset.loading import from_images, load_dataset
from masklora.dataset.sample import merge
from masklora.folder.report import MatchReport
from masklora.settings import MaskTransform
from masklora.viewing.inspection import findings, inspect, whole_geometry


def disc(side=64, radius=0.35):
    y, x = np.indices((side, side)) - (side - 1) / 2
    return (x * x + y * y < (radius * side) ** 2).astype(np.float32)


def report_of(masks, **options):
    images = [np.full((*mask.shape, 3), 0.5, np.float32) for mask in masks]
    return inspect(from_images(images, list(masks)), **options)


def names(*numbers):
    return tuple(f"picture-{number:04d}" for number in numbers)


def test_black_white_low_and_high_coverage_are_told_apart():
    thin, full = np.zeros((64, 64), np.float32), np.ones((64, 64), np.float32)
    thin[:8, :8] = 1
    full[:8, :8] = 0
    report = report_of([np.zeros((64, 64)), np.ones((64, 64)), thin, full, disc()])
    assert report.all_black == names(1) and report.all_white == names(2)
    assert report.low_coverage == names(3) and report.high_coverage == names(4)
    assert report.pictures[2].coverage == pytest.approx(64 / 4096)
    assert report.pictures[2].active == 1 and report.pictures[2].cells == (8, 8)


def test_almost_black_of_a_jpeg_counts_as_black():
    report = report_of([np.full((16, 16), 2 / 255), np.full((16, 16), 253 / 255)])
    assert report.all_black == names(1) and report.all_white == names(2)


def test_lines_thinner_than_a_cell_vanish_and_soft_masks_do_not():
    line = np.zeros((64, 64), np.float32)
    line[:, 20] = 1
    report = report_of([line, disc() * 0.3])
    assert report.vanishing == names(1)
    assert report.pictures[0].peak == pytest.approx(1 / 8)
    assert report_of([line], grid_stride=1).vanishing == ()


def test_pictures_at_their_own_size_lose_but_broken_cells():
    assert whole_geometry((1024, 768), 8).size == (1024, 768)
    assert whole_geometry((1030, 768), 16).size == (1024, 768)
    assert whole_geometry((3, 3), 8).size == (8, 8)
    assert report_of([disc(128)], grid_stride=16).pictures[0].cells == (8, 8)


def test_a_mask_of_the_other_polarity_stands_out():
    usual = [disc(radius=r) for r in (0.3, 0.35, 0.4, 0.25)]
    assert report_of([*usual, 1 - disc()]).odd_polarity == names(5)
    assert report_of([*(1 - m for m in usual), disc()]).odd_polarity == names(5)
    assert report_of(usual).odd_polarity == ()


def test_polarity_has_no_say_without_a_clear_majority():
    assert report_of([disc(), disc(), 1 - disc()]).odd_polarity == ()
    assert report_of([disc(), disc(), 1 - disc(), 1 - disc()]).odd_polarity == ()
    assert report_of([disc()] * 4 + [np.zeros((64, 64)), np.ones((64, 64))]).odd_polarity == ()


def test_pictures_of_one_name_in_a_merged_set_keep_their_own_findings():
    images = [np.full((64, 64, 3), 0.5, np.float32)]
    parts = [from_images(images, [mask]) for mask in (np.zeros((64, 64)), disc(), np.ones((64, 64)))]
    report = inspect(merge(parts))
    assert findings(report.pictures) == [["all_black"], [], ["all_white"]]
    assert report.all_black == report.all_white == names(1)


def test_inspecting_a_folder_counts_opaque_alpha_as_missing(tmp_path):
    with_alpha(tmp_path / "a.png", disc())
    with_alpha(tmp_path / "b.png", np.ones((64, 64)))
    picture(tmp_path / "c.png", (64, 64))
    dataset = load_dataset(folder_settings(tmp_path), allowed=anywhere)
    report = inspect(dataset)
    assert report.matched == ("a.png",) and report.missing == ("b.png", "c.png")
    assert [stats.has_mask for stats in report.pictures] == [True, False, False]
    assert report.no_caption == ("a.png", "b.png", "c.png") and "No picture has a caption" in report.to_text()


def test_coverage_is_of_the_transformed_mask(tmp_path):
    picture(tmp_path / "a.png", (64, 64))
    grey(tmp_path / "a_mask.png", disc())
    dataset = load_dataset(folder_settings(tmp_path), allowed=anywhere)
    plain = inspect(dataset).pictures[0].coverage
    assert inspect(dataset.with_transform(MaskTransform(invert=True))).pictures[0].coverage == pytest.approx(1 - plain)
    assert inspect(dataset.with_transform(MaskTransform(grow=4))).pictures[0].coverage > plain


def test_pictures_of_one_name_in_two_data_sets_are_judged_apart():
    black = from_images([np.zeros((64, 64, 3), np.float32)], [np.zeros((64, 64))])
    low = np.zeros((64, 64))
    low[0, :8] = 1
    both = merge([black, from_images([np.zeros((64, 64, 3), np.float32)], [low])])
    report = inspect(both)
    assert report.all_black == names(1) and report.low_coverage == names(1)


def test_text_counts_first_then_warns_then_lists():
    report = report_of([np.zeros((64, 64)), disc()])
    lines = report.to_text().splitlines()
    assert lines[0] == "2 pictures: 2 with a mask, 0 without."
    assert any(
        line.startswith("1 mask is all black: nothing is learned there") and "picture-0001" in line for line in lines
    )
    assert lines[-1].startswith("picture-0002: coverage 38.") and "of 8×8 cells" in lines[-1]


def test_long_lists_are_cut_in_text_and_whole_in_the_report():
    report = MatchReport(missing=tuple(f"Küken {i}.png" for i in range(30)), all_black=tuple("abcdefghijk"))
    assert "h and 3 more" in report.to_text()
    data = dataclasses.asdict(report)
    assert len(data["all_black"]) == 11 and data["missing"][3] == "Küken 3.png"


def test_a_report_holds_every_number():
    data = dataclasses.asdict(report_of([disc()]))
    stats = data["pictures"][0]
    assert stats["name"] == "picture-0001" and 0.3 < stats["coverage"] < 0.45 and stats["cells"] == (8, 8)


def test_progress_is_told_and_cancel_stops_inspection():
    told = []

    class Stop(BaseException):
        pass

    def cancel():
        if told:
            raise Stop

    with pytest.raises(Stop):
        report_of([disc(), disc()], progress=lambda *a: told.append(a), check_cancel=cancel)
    assert told == [(1, 2, "picture-0001")]
