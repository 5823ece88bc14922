"""What lies in a folder and is no data is left out and named; what can be used is used."""

import dataclasses
import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from harness.caching import Bench, save
from harness.caching import picture as noise
from harness.folders import anywhere, folder_settings, grey, picture, with_alpha
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import load_mask, load_sample, merge
from masklora.errors import ConfigError, DataError
from masklora.folder import tree
from masklora.folder.leftovers import _TOLD, Leftover, leftover_findings
from masklora.folder.listing import match
from masklora.folder.report import MatchReport, merge_reports


def loaded(folder, **values):
    return load_dataset(folder_settings(folder, **values), allowed=anywhere)


def warned(dataset):
    return [finding.text for finding in dataset.report.findings() if finding.level == "warning"]


def noted(dataset):
    return [finding.text for finding in dataset.report.findings() if finding.level == "note"]


def link(place, target):
    try:
        place.symlink_to(target)
    except OSError:
        pytest.skip("links need rights on this system")


@pytest.mark.parametrize("name", ["a.jpe", "a.tga", "a.JP2", "a.apng", "a.ppm", "a.dib", "a.qoi"])
def test_pictures_that_pillow_reads_are_pictures(tmp_path, name):
    Image.new("RGB", (16, 16), (200, 10, 30)).save(tmp_path / name)
    (sample,) = loaded(tmp_path).samples
    assert sample.name == name and load_sample(sample).rgb.shape == (16, 16, 3)


@pytest.mark.parametrize("extension", [".heic", ".jxl"])
def test_formats_that_a_plugin_has_made_known_to_pillow_are_read(tmp_path, extension):
    # Before its list is kept: Pillow fills it once only.
    Image.init()
    before = dict(Image.EXTENSION)
    Image.register_extension("PNG", extension)
    try:
        Image.new("RGB", (16, 16)).save(tmp_path / f"a{extension}")
        assert [s.size for s in loaded(tmp_path).samples] == [(16, 16)]
    finally:
        Image.EXTENSION.clear()
        Image.EXTENSION.update(before)
    with pytest.raises(DataError, match="no picture in this folder"):
        loaded(tmp_path)


def test_a_plugin_that_is_installed_is_made_known_to_pillow_when_a_file_needs_it(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    plugin = "from PIL import Image\n\ndef register_heif_opener():\n    Image.register_extension('PNG', '.hif')\n"
    (tmp_path / "lib" / "pillow_heif.py").write_text(plugin, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.delitem(sys.modules, "pillow_heif", raising=False)
    Image.init()
    monkeypatch.setattr(Image, "EXTENSION", dict(Image.EXTENSION))
    tree._with_plugin.cache_clear()
    Image.new("RGB", (16, 16), (200, 10, 30)).save(tmp_path / "x.png")
    (tmp_path / "p").mkdir()
    (tmp_path / "x.png").rename(tmp_path / "p" / "IMG_1.HIF")
    (sample,) = loaded(tmp_path / "p").samples
    assert load_sample(sample).rgb[0, 0].tolist() == [200, 10, 30]
    tree._with_plugin.cache_clear()


@pytest.mark.parametrize(
    "name", ["b.HEIC", "b.heif", "b.jxl", "b.dng", "b.psd", "b.CR2", "b.svg", "b.exr", "b", "b.wmv", "b.mask.heic"]
)
def test_pictures_that_cannot_be_read_are_counted_by_kind_and_named(tmp_path, name):
    picture(tmp_path / "a.png")
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / f"x{name}").write_bytes(b"\x89PNG\r\n\x1a\n")
    dataset = loaded(tmp_path)
    extension = os.path.splitext(name)[1].lower()  # noqa: PTH122
    (line,) = [line for line in warned(dataset) if name in line]
    assert line.startswith(f"2 files (2 {extension})" if extension else "2 files look") and len(dataset) == 1


def test_a_folder_with_nothing_but_such_files_names_them(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"")
    with pytest.raises(DataError, match=r"no picture in this folder.*IMG_1\.HEIC"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir",
        "#recycle",
        "@Recycle",
        "@Recently-Snapshot",
        "lost+found",
        "thumbnails",
        ".thumbnails",
        "__MACOSX",
        "$RECYCLE.BIN",
        "System Volume Information",
        "THUMBNAILS",
        "@EADIR",
    ],
)
def test_folders_of_systems_and_thumbnails_are_no_data(tmp_path, name):
    picture(tmp_path / "a.png")
    picture(tmp_path / name / "a.png")
    picture(tmp_path / "sub" / name / "deep" / "a.png")
    dataset = loaded(tmp_path)
    assert [s.name for s in dataset.samples] == ["a.png"]
    (line,) = [line for line in noted(dataset) if name in line]
    assert line.startswith("2 files or folders") and f"sub/{name}" in line


@pytest.mark.parametrize("name", ["Thumbs.db", ".DS_Store", "._a.png", "Desktop.ini"])
def test_files_of_systems_are_no_data(tmp_path, name):
    picture(tmp_path / "a.png")
    (tmp_path / name).write_bytes(b"x")
    assert any(name in line for line in noted(loaded(tmp_path))) and len(loaded(tmp_path)) == 1


@pytest.mark.parametrize("subfolders", [True, False])
@pytest.mark.parametrize("name", ["loop.png", "loop.txt", "a.txt", "loop", "nowhere.jpg"])
def test_links_that_lead_nowhere_or_in_a_circle_are_named(tmp_path, name, subfolders):
    picture(tmp_path / "a.png")
    link(tmp_path / name, tmp_path / ("gone" if name.startswith("nowhere") else name))
    dataset = loaded(tmp_path, subfolders=subfolders)
    assert len(dataset) == 1 and any(name in line and "leads nowhere" in line for line in warned(dataset))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_named_and_never_opened(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert any("b.png" in line for line in warned(loaded(tmp_path)))


def odd_name(folder, name):
    path = folder / os.fsdecode(name)
    try:
        return picture(path)
    except OSError:
        pytest.skip("this file system takes no such names")


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"\x83\x65.png", b"d\xe9j\xe0/vu\xff.png"])
def test_names_that_are_no_utf8_are_loaded_listed_and_cached(tmp_path, name):
    path = odd_name(tmp_path / "p", name)
    stem = os.path.splitext(path)[0]  # noqa: PTH122
    grey(type(path)(f"{stem}_mask.png"), np.eye(8))
    type(path)(f"{stem}.txt").write_text("a café", encoding="utf-8")
    dataset = loaded(tmp_path / "p")
    (sample,) = dataset.samples
    sample.name.encode("utf-8")
    assert np.array_equal(load_mask(sample), np.eye(8)) and sample.caption == "a café"
    for text in (dataset.report.to_text(), str(dataset.report), *warned(dataset)):
        text.encode("utf-8")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9", "caf\\xe9"),
        ("\U0001f408\u200d\u2b1b, 猫".encode(), "\U0001f408\u200d\u2b1b, 猫"),
        (b'it\'s "quoted" `so`', 'it\'s "quoted" `so`'),
        (b"two\nlines\tand a tab", "two\nlines\tand a tab"),
        (b"[a] {b} (c) 100%s %2e%2e &amp; $x #1", "[a] {b} (c) 100%s %2e%2e &amp; $x #1"),
        (b"-rf ~ ; !*?", "-rf ~ ; !*?"),
    ],
    ids=["latin", "emoji", "quotes", "line break", "brackets", "signs"],
)
def test_pictures_of_odd_names_are_cached_with_their_masks_and_captions(tmp_path, name, shown):
    path = odd_name(tmp_path / "p" / "sub", name + b".png")
    save(noise(0), path)
    stem = os.path.splitext(path)[0]  # noqa: PTH122
    grey(type(path)(f"{stem}_mask.png"), np.eye(64, 80))
    type(path)(f"{stem}.txt").write_text("a cat", encoding="utf-8")
    bench = Bench(tmp_path / "p", tmp_path / "cache")
    bench.build()
    (entry,) = bench.cache.entries
    assert entry.name == f"sub/{shown}.png" and entry.has_mask
    assert [caption.text for caption in entry.captions] == ["a cat"]
    assert 0 < float(bench.cache.mask(entry).mean()) < 0.5


def test_a_damaged_picture_of_such_a_name_is_named_in_letters_that_print(tmp_path):
    path = odd_name(tmp_path, b"caf\xe9.png")
    path.write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match=r"caf\\xe9\.png: expected a picture") as error:
        loaded(tmp_path)
    str(error.value).encode("utf-8")


@pytest.mark.parametrize(
    ("folder", "repeats", "caption"),
    [
        ("10_zib dog", 10, "zib dog"),
        ("1_style", 1, "style"),
        ("3_a_b", 3, "a_b"),
        ("2_", 2, None),
        ("10_zib dog/more", 10, "zib dog"),
        ("5_outer/2_inner", 2, "inner"),
        ("01_cats", 1, None),
        ("2024_holiday", 1, None),
        ("0_off", 1, None),
        ("holiday_10", 1, None),
    ],
)
def test_folder_names_give_repeats_and_words(tmp_path, folder, repeats, caption):
    picture(tmp_path / folder / "a.png")
    picture(tmp_path / folder / "b.png")
    (tmp_path / folder / "b.txt").write_text("its own", encoding="utf-8")
    dataset = loaded(tmp_path, repeats=2)
    assert [(s.repeats, s.caption) for s in dataset.samples] == [(2 * repeats, caption), (2 * repeats, "its own")]
    name = folder.rpartition("/")[2]
    if name[0].isdigit():
        assert any(name in line for line in (warned(dataset) if repeats > 1 or caption else noted(dataset)))
    off = loaded(tmp_path, repeats=2, folder_repeats=False)
    assert [(s.repeats, s.caption) for s in off.samples] == [(2, None), (2, "its own")]


def test_repeats_of_folders_count_in_an_epoch_and_in_the_record_of_the_cache(tmp_path):
    for folder, number in (("p/10_zib dog", 1), ("p/1_style", 2)):
        (tmp_path / folder).mkdir(parents=True)
        save(noise(number), tmp_path / folder / "a.png")
    dataset = loaded(tmp_path / "p")
    bench = Bench(tmp_path / "p", tmp_path / "cache")
    bench.build(dataset=dataset)
    assert [entry.weight for entry in bench.cache.entries] == [1, 10]
    assert sorted(source["num_repeats"] for source in bench.cache.sources) == [1, 10]
    assert [s.repeats for s in merge([dataset], [0.5]).samples] == [0.5, 5]


def test_the_chosen_folder_s_own_name_counts_last(tmp_path):
    picture(tmp_path / "4_cat" / "a.png")
    picture(tmp_path / "4_cat" / "2_dog" / "b.png")
    assert {s.name: s.repeats for s in loaded(tmp_path / "4_cat").samples} == {"a.png": 4, "2_dog/b.png": 2}


@pytest.mark.parametrize("form", ['"{}"', "'{}'", "  {} ", '" {} "', "“{}”", "{}/"])
def test_pasted_paths_are_understood(tmp_path, form):
    picture(tmp_path / "my pictures" / "a.png")
    grey(tmp_path / "my masks" / "a.png", np.eye(8))
    folder, masks = (form.format(tmp_path / name) for name in ("my pictures", "my masks"))
    dataset = loaded(folder, mask_folder=masks, mask_source="folder")
    assert dataset.report.matched == ("a.png",)
    assert dataset.samples[0].settings.folder.strip("/") == str(tmp_path / "my pictures").strip("/")


@pytest.mark.skipif(os.sep == "\\", reason="there it is the usual sign")
def test_backslashes_are_turned_where_only_that_exists(tmp_path):
    picture(tmp_path / "a" / "b" / "x.png")
    picture(tmp_path / "p" / "x.png")
    turned = str(tmp_path / "a" / "b").replace("/", "\\")
    assert len(loaded(turned)) == 1
    assert loaded(tmp_path / "p", mask_folder=turned).report.matched == ("x.png",)
    assert loaded(tmp_path, mask_folder="a\\b", subfolders=False) if picture(tmp_path / "x.png") else None
    kept = tmp_path / "a\\b"
    picture(kept / "y.png")
    assert [s.name for s in loaded(kept).samples] == ["y.png"]


ASKS = r".*(Correct it|Check the name|Write it again)\.$"


@pytest.mark.parametrize("source", ["auto", "folder", "sidecar", "none"])
@pytest.mark.parametrize(
    "text", ["x" * 300, "\U0001f600" * 64, "x/" * 3000, "a\0b"], ids=["letters", "bytes", "path", "zero byte"]
)
def test_names_that_no_system_takes_name_the_widget(tmp_path, source, text):
    picture(tmp_path / "a.png")
    with pytest.raises((ConfigError, DataError), match=f"^folder: {ASKS}"):
        loaded(text, mask_source=source, mask_folder="masks")
    # A path that is too long as a whole is not noticed where no masks are looked for.
    if source in ("auto", "folder") or not text.startswith("x/"):
        with pytest.raises((ConfigError, DataError), match=f"^mask_folder: {ASKS}"):
            loaded(tmp_path, mask_source=source, mask_folder=text)


@pytest.mark.parametrize("widget", ["folder", "mask_folder"])
@pytest.mark.parametrize("text", ["\udcff", "x\ud800", "/\udcff/x"])
def test_half_a_character_in_a_folder_names_the_widget(tmp_path, widget, text):
    picture(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=f"^{widget}: ") as error:
        load_dataset(replace(folder_settings(tmp_path), **{widget: text}), allowed=anywhere)
    str(error.value).encode("utf-8")


def test_masks_and_captions_that_lack_while_others_have_them_are_warned_of(tmp_path):
    with_alpha(tmp_path / "a.png", np.eye(8))
    picture(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("x", encoding="utf-8")
    lines = warned(loaded(tmp_path))
    assert any("1 picture has no mask, while others have one: b.png" in line for line in lines)
    assert any("1 picture without a caption: a.png" in line for line in lines)


@pytest.mark.parametrize("trigger", ["", "zib"])
def test_a_set_without_captions_is_warned_of_once(tmp_path, trigger):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    empty = {"trigger": trigger, "missing": "empty caption"}
    (line,) = warned(loaded(tmp_path, caption=empty))
    assert line.startswith("No picture has a caption: training sees empty texts")
    assert ("without the trigger word zib too" in line) == bool(trigger)
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    (line,) = warned(loaded(tmp_path, caption=empty))
    assert line.startswith("2 pictures without a caption: b.png, c.png. Training sees empty texts there")
    assert ("set a trigger word" in line) != bool(trigger)


def test_pictures_whose_caption_is_the_trigger_word_are_not_warned_of(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    for missing in ("auto", "use trigger word"):
        data = loaded(tmp_path, caption={"trigger": "zib", "missing": missing})
        assert warned(data) == []
        assert noted(data)[1:] == ["2 pictures without a caption get the trigger word zib: a.png, b.png."]
        assert [sample.settings.caption.missing for sample in data.samples] == ["use trigger word"] * 2


def test_regularisation_pictures_without_captions_are_not_to_answer_to_the_trigger_word(tmp_path):
    picture(tmp_path / "a.png")
    (line,) = warned(loaded(tmp_path, caption={"trigger": "zib"}, regularisation=True))
    assert line == ("No picture has a caption: training sees empty texts. Write captions that name the class.")


def test_photographs_with_masks_and_captions_are_told_of_in_one_line(tmp_path):
    for name in ("IMG_0001", "IMG_0002", "IMG_0003"):
        save(noise(3), tmp_path / f"{name}.jpg")
        grey(tmp_path / f"{name}_mask.png", np.pad(np.ones((40, 40)), ((12, 12), (20, 20))))
        (tmp_path / f"{name}.txt").write_text("a photo of zib", encoding="utf-8")
    findings = loaded(tmp_path).report.findings()
    assert [finding.text for finding in findings] == ["3 pictures: 3 with a mask, 0 without."]


def test_a_folder_of_masks_beside_the_chosen_one_is_pointed_at(tmp_path):
    picture(tmp_path / "photos" / "a.png")
    grey(tmp_path / "masks" / "a.png", np.eye(8))
    assert any("masks lies beside the folder photos" in line for line in warned(loaded(tmp_path / "photos")))


def test_a_folder_of_masks_beside_pictures_that_have_theirs_in_the_alpha_is_not(tmp_path):
    with_alpha(tmp_path / "photos" / "a.png", np.eye(8))
    grey(tmp_path / "masks" / "a.png", np.eye(8))
    assert not any("lies beside the folder" in line for line in warned(loaded(tmp_path / "photos")))


def test_merged_reports_keep_warnings_and_what_was_left(tmp_path):
    for name in ("one", "two"):
        picture(tmp_path / name / "a.png")
        (tmp_path / name / f"{name}.heic").write_bytes(b"x")
    reports = [loaded(tmp_path / name).report for name in ("one", "two")]
    both = merge_reports([*reports, MatchReport(warnings=("look here.",))])
    told = [finding.text for finding in both.findings() if finding.level == "warning"]
    assert any("2 files (2 .heic)" in line and "one.heic, two.heic" in line for line in told)
    assert "look here." in told and "look here." in both.to_text()


def test_a_folder_in_order_warns_of_nothing(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
        grey(tmp_path / f"{name}_mask.png", np.eye(8))
        (tmp_path / f"{name}.txt").write_text("a cat", encoding="utf-8")
    items, report = match(folder_settings(tmp_path), allowed=anywhere)
    assert len(items) == 2 and [f.text for f in report.findings()] == ["2 pictures: 2 with a mask, 0 without."]


ONE = re.compile(r"\b1 (\w+ )?(pictures|masks|files|captions|folders|subfolders|videos|links)\b|\[|\|")


def test_of_a_single_file_or_picture_every_report_speaks_in_the_singular():
    # Warnings and notes are whole sentences, made elsewhere.
    others = ("pictures", "left", "warnings", "notes")
    names = [field.name for field in dataclasses.fields(MatchReport) if field.name not in others]
    told = [line for name in names for line in MatchReport(**{name: ("a.png",)}).findings()]
    told += [line for kind in _TOLD for line in leftover_findings([Leftover(kind, "a.xyz")], captions_missing=True)]
    assert len(told) > 20 and [line.text for line in told if ONE.search(line.text)] == []
    several = [
        line
        for kind in _TOLD
        for line in leftover_findings([Leftover(kind, "a"), Leftover(kind, "b")], captions_missing=True)
    ]
    assert [line.text for line in several if not line.text.startswith("2 ") or re.search(r"\[|\|", line.text)] == []


@pytest.mark.parametrize("name", ["a_mask.npy", "masks.zip", "a_mask", "a_alpha.exr"])
def test_masks_that_no_picture_format_holds_are_named(tmp_path, name):
    picture(tmp_path / "a.png")
    (tmp_path / name).write_bytes(b"\x93NUMPY")
    told = [f.text for f in loaded(tmp_path).report.findings() if f.level == "warning" and name in f.text]
    assert len(told) == 1 and "Save them as PNG, named <picture>_mask.png." in told[0]
