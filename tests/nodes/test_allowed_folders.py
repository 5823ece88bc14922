"""Which paths a workflow may name: real paths inside ComfyUI's folders, nothing else."""

import json
import os
from pathlib import Path

import pytest

from masklora.errors import PathError


@pytest.fixture
def paths(comfy_host):
    from masklora.host import paths

    return paths


@pytest.fixture
def input_folder(paths):
    import folder_paths

    return Path(folder_paths.get_input_directory())


@pytest.fixture
def config(paths):
    """Writes the administrator's file; removed afterwards."""

    def write(content):
        paths.config_path().parent.mkdir(parents=True, exist_ok=True)
        paths.config_path().write_text(content, encoding="utf-8")

    yield write
    paths.config_path().unlink(missing_ok=True)


def link(place, target):
    try:
        place.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("links need rights on this system")
    return place


def test_a_name_is_looked_for_in_the_input_folder(paths, input_folder):
    (input_folder / "here").mkdir(exist_ok=True)
    assert paths.allow("here") == (input_folder / "here").resolve()


def test_a_name_that_is_not_in_the_input_folder_is_found_among_the_datasets(paths, tmp_path, monkeypatch):
    import folder_paths

    (tmp_path / "only there").mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "datasets", ([str(tmp_path)], set()))
    assert paths.allow("only there") == (tmp_path / "only there").resolve()


def test_absolute_paths_in_input_output_and_user_are_allowed(paths):
    import folder_paths

    for folder in (
        folder_paths.get_input_directory(),
        folder_paths.get_output_directory(),
        folder_paths.get_user_directory(),
    ):
        assert paths.allow(Path(folder) / "x" / "y.png").name == "y.png"


@pytest.mark.parametrize("path", ["..", "a/../../b", "../input-of-another", "/", "~", "\0"])
def test_paths_that_lead_out_are_refused(paths, path, input_folder):
    if path == "~":
        assert paths.allow(path).parent == input_folder.resolve()
        return
    with pytest.raises(PathError):
        paths.allow(path)


def test_a_folder_whose_name_only_begins_like_an_allowed_one_is_refused(paths, input_folder):
    with pytest.raises(PathError, match="lies outside"):
        paths.allow(f"{input_folder}-of-another/x.png")


def test_a_link_out_of_the_allowed_folders_is_refused(paths, input_folder, tmp_path):
    place = link(input_folder / "a link out", tmp_path)
    try:
        with pytest.raises(PathError, match="lies outside"):
            paths.allow("a link out")
    finally:
        place.unlink()


def test_a_linked_picture_from_outside_stops_the_dataset(paths, input_folder, tmp_path):
    from harness.folders import folder_settings, picture
    from masklora.dataset.loading import load_dataset

    picture(input_folder / "linked" / "a.png")
    place = link(input_folder / "linked" / "b.png", picture(tmp_path / "secret.png"))
    try:
        with pytest.raises(PathError, match=r"b\.png lies outside"):
            load_dataset(folder_settings("linked"), allowed=paths.allow)
    finally:
        place.unlink()


def test_the_refusal_names_widget_path_config_file_and_an_example(paths, tmp_path):
    with pytest.raises(PathError) as caught:
        paths.allow(tmp_path, widget="folder")
    text = str(caught.value)
    assert text.startswith(f"folder: {tmp_path} lies outside")
    assert str(paths.config_path()) in text
    example = json.loads(text.rsplit("for example: ")[1])
    assert isinstance(example["folders"], list)


def test_an_administrator_adds_a_folder(paths, config, tmp_path):
    config(json.dumps({"folders": [str(tmp_path)]}))
    assert paths.allow(tmp_path / "x.png") == (tmp_path / "x.png").resolve()


def test_a_byte_order_mark_in_the_config_file_does_no_harm(paths, config, tmp_path):
    config("\ufeff" + json.dumps({"folders": [str(tmp_path)]}))
    paths.allow(tmp_path / "x.png")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "D:/x",
        '{"folders": ["D:\\x"]}',
        '["D:/x"]',
        '{"folders": "D:/x"}',
        '{"folders": [3]}',
        '{"folders": ["relative"]}',
    ],
)
def test_a_config_file_of_another_form_is_named_and_allows_nothing(paths, config, content):
    config(content)
    with pytest.raises(PathError, match=r"allowed_folders\.json") as caught:
        paths.allow("here")
    assert paths.EXAMPLE in str(caught.value)


def test_the_config_file_lies_where_the_user_data_routes_cannot_write(paths):
    import folder_paths

    users = Path(folder_paths.get_user_directory()) / "default"
    assert not paths.config_path().resolve().is_relative_to(users.resolve())


@pytest.mark.parametrize(
    "edit",
    ["add", "delete", "rename", "resize", "touch", "in a subfolder", "put another in its place", "write other bytes"],
)
def test_a_fingerprint_changes_with_every_kind_of_edit(paths, input_folder, edit):
    if edit in ("put another in its place", "write other bytes") and os.name == "nt":
        pytest.skip("Windows tells no time of change and no number of a file where a folder is listed")
    folder = input_folder / f"fingerprint {edit}"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.txt"):
        (folder / name).write_bytes(b"12")
        os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    before = paths.fingerprint(folder, subfolders=True)
    assert paths.fingerprint(folder, subfolders=True) == before
    if edit == "add":
        (folder / "new.png").write_bytes(b"")
    elif edit == "delete":
        (folder / "a.png").unlink()
    elif edit == "rename":
        (folder / "a.png").rename(folder / "z.png")
    elif edit == "resize":
        (folder / "a.png").write_bytes(b"123")
        os.utime(folder / "a.png", (1_700_000_000, 1_700_000_000))
    elif edit == "touch":
        os.utime(folder / "a.png", (1_700_000_001, 1_700_000_001))
    elif edit == "in a subfolder":
        (folder / "sub" / "c.txt").write_bytes(b"other")
    else:
        # As large as before, and of the same time.
        other = folder / ("a.png" if edit == "write other bytes" else "b.png")
        other.write_bytes(b"34")
        os.utime(other, (1_700_000_000, 1_700_000_000))
        if edit == "put another in its place":
            other.replace(folder / "a.png")
            (folder / "b.png").write_bytes(b"12")
            os.utime(folder / "b.png", (1_700_000_000, 1_700_000_000))
    assert paths.fingerprint(folder, subfolders=True) != before


def test_a_fingerprint_without_subfolders_ignores_them(paths, input_folder):
    folder = input_folder / "flat"
    (folder / "sub").mkdir(parents=True)
    before = paths.fingerprint(folder, subfolders=False)
    (folder / "sub" / "c.txt").write_bytes(b"other")
    assert paths.fingerprint(folder, subfolders=False) == before


def test_the_fingerprint_of_a_missing_folder_changes_when_it_appears(paths, input_folder):
    folder = input_folder / "appears"
    before = paths.fingerprint(folder, subfolders=True)
    folder.mkdir()
    assert paths.fingerprint(folder, subfolders=True) != before


def test_folders_that_link_to_each_other_end(paths, input_folder):
    folder = input_folder / "circle"
    folder.mkdir()
    link(folder / "again", folder)
    assert paths.fingerprint(folder, subfolders=True)


def test_a_link_in_the_input_folder_tells_where_it_leads_and_what_to_add(paths, input_folder, tmp_path):
    drive = tmp_path / "drive"
    drive.mkdir()
    link(input_folder / "nas_set", drive)
    try:
        with pytest.raises(PathError) as error:
            paths.allow("nas_set", widget="folder")
    finally:
        (input_folder / "nas_set").unlink()
    assert "folder: nas_set lies outside" in str(error.value) and "It is a link in one of them" in str(error.value)
    assert f"add {drive}" in str(error.value) and str(paths.config_path()) in str(error.value)


def test_no_other_path_tells_where_it_leads(paths, input_folder, tmp_path):
    hidden = link(tmp_path / "elsewhere", tmp_path.parent)
    for path in (hidden, input_folder / ".." / "elsewhere"):
        with pytest.raises(PathError) as error:
            paths.allow(path)
        assert "It is a link" not in str(error.value)


@pytest.mark.parametrize("form", ['"{}"', "'{}'", "  {}  "])
def test_quotes_and_blanks_around_a_path_count_for_nothing(paths, input_folder, form):
    (input_folder / "quoted set").mkdir(exist_ok=True)
    assert paths.allow(form.format(input_folder / "quoted set")) == (input_folder / "quoted set").resolve()
    assert paths.allow(form.format("quoted set")) == (input_folder / "quoted set").resolve()


@pytest.mark.skipif(os.name == "nt", reason="there it is the usual sign")
def test_backslashes_are_turned_and_never_lead_out(paths, input_folder, tmp_path):
    (input_folder / "turned" / "set").mkdir(parents=True, exist_ok=True)
    assert paths.allow("turned\\set") == (input_folder / "turned" / "set").resolve()
    (input_folder.parent / "outside").mkdir(exist_ok=True)
    for text in ("..\\outside", "turned\\..\\..\\outside", "\\\\server\\share", str(tmp_path).replace("/", "\\")):
        with pytest.raises(PathError):
            paths.allow(text)


def test_links_in_a_circle_are_part_of_the_fingerprint(paths, input_folder):
    folder = input_folder / "circles"
    folder.mkdir(exist_ok=True)
    before = paths.fingerprint(folder, subfolders=True)
    loop = link(folder / "loop", folder / "loop")
    try:
        assert paths.fingerprint(folder, subfolders=True) != before
        assert paths.fingerprint(folder, subfolders=False) != before
    finally:
        loop.unlink()


def test_masks_below_are_watched_where_subfolders_are_off(paths, input_folder):
    folder = input_folder / "watched"
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    before = paths.fingerprint(folder, subfolders=False)
    (folder / "masks" / "a.png").write_bytes(b"x")
    assert paths.fingerprint(folder, subfolders=False) != before
