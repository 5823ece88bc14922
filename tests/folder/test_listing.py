"""Which pictures, masks and captions belong together, by name alone."""

import os
import time
import unicodedata

import numpy as np
import pytest
from PIL import Image

from harness.folders import anywhere, folder_settings, picture
from masklora.errors import ConfigError, DataError, MaskError, PathError
from masklora.file_names import natural_key
from masklora.folder.listing import match, scan


def coloured(path):
    """A picture of many colours, as a photograph has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return path


def found(folder, **values):
    """Mask name (or None) by picture."""
    items = scan(folder_settings(folder, **values), allowed=anywhere)
    return {item.relative: item.mask and item.mask.name for item in items}


def test_pictures_come_in_natural_order(tmp_path):
    for name in ("img10.png", "img2.png", "IMG1.png", "b/a.png", "10.png", "9.png"):
        picture(tmp_path / name)
    names = [item.relative for item in scan(folder_settings(tmp_path), allowed=anywhere)]
    assert names == ["9.png", "10.png", "b/a.png", "IMG1.png", "img2.png", "img10.png"]


def test_natural_order_is_total():
    names = ["a1.png", "A1.png", "a01.png", "a", "1", "a/b", "1/a"]
    assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key)


def test_every_image_extension_in_any_case_is_a_picture(tmp_path):
    for name in ("a.PNG", "b.Jpg", "c.jpeg", "d.webp", "e.bmp", "f.tiff", "g.gif"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "._a.png").write_bytes(b"")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "z.png").write_bytes(b"")
    assert len(found(tmp_path)) == 7


def test_subfolders_can_be_left_out(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "deep" / "er" / "b.png")
    assert list(found(tmp_path)) == ["a.png", "deep/er/b.png"]
    assert list(found(tmp_path, subfolders=False)) == ["a.png"]


@pytest.mark.parametrize(
    "sidecar",
    ["a-masklabel.png", "a_mask.webp", "a_mask.jpg", "a.mask.png", "a.mask.tif", "a_wmask.png", "a_Mask.PNG"],
)
def test_sidecars_of_every_name_are_found_and_never_pictures(tmp_path, sidecar):
    picture(tmp_path / "s" / "a.jpg")
    picture(tmp_path / "s" / sidecar)
    for source in ("auto", "sidecar"):
        assert found(tmp_path, mask_source=source) == {"s/a.jpg": sidecar}
    for source in ("alpha", "none"):
        assert found(tmp_path, mask_source=source) == {"s/a.jpg": None}


def test_a_sidecar_without_its_picture_is_a_picture_and_is_noted(tmp_path):
    picture(tmp_path / "portrait_mask.png")
    items, report = match(folder_settings(tmp_path), allowed=anywhere)
    assert [item.relative for item in items] == ["portrait_mask.png"]
    assert "portrait_mask.png is named like a mask" in report.to_text()


def test_a_mask_whose_picture_is_not_beside_it_is_left_out_and_named(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "other" / "a_mask.png")
    items, report = match(folder_settings(tmp_path), allowed=anywhere)
    assert [item.relative for item in items] == ["a.png"]
    assert "looks like a mask of a picture that is not here, and is left out: other/a_mask.png." in report.to_text()


def test_a_picture_in_colours_that_is_only_named_like_a_mask_is_a_picture_and_is_told(tmp_path):
    picture(tmp_path / "a.png")
    coloured(tmp_path / "other" / "carnival_mask.png")
    items, report = match(folder_settings(tmp_path), allowed=anywhere)
    assert len(items) == 2 and any("other/carnival_mask.png is named like a mask" in line for line in report.warnings)


def test_two_sidecars_for_one_picture_are_an_error_that_names_them(tmp_path):
    for name in ("a.png", "a_mask.png", "a-masklabel.png"):
        picture(tmp_path / name)
    with pytest.raises(MaskError, match=r"a\.png: expected one sidecar mask, got 2: a-masklabel\.png, a_mask\.png"):
        found(tmp_path)
    assert found(tmp_path, mask_source="alpha") == {"a.png": None}


def test_one_mask_for_two_pictures_is_an_error(tmp_path):
    for name in ("a.png", "a.jpg", "a_mask.png"):
        picture(tmp_path / name)
    with pytest.raises(MaskError, match=r"a_mask\.png.*a\.jpg and a\.png"):
        found(tmp_path)


def test_two_pictures_of_one_stem_without_masks_are_fine(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "a.jpg")
    assert len(found(tmp_path)) == 2


def test_mask_folder_matches_relative_path_and_stem_with_any_extension(tmp_path):
    for name in ("p/a.jpg", "p/x/a.jpg", "p/x/b.png"):
        picture(tmp_path / name)
    for name in ("m/a.png", "m/x/a.webp", "m/c.png"):
        picture(tmp_path / name)
    settings = folder_settings(tmp_path / "p", mask_source="folder", mask_folder=str(tmp_path / "m"))
    items, report = match(settings, allowed=anywhere)
    masks = {item.relative: item.mask and item.mask.relative_to(tmp_path).as_posix() for item in items}
    assert masks == {"a.jpg": "m/a.png", "x/a.jpg": "m/x/a.webp", "x/b.png": None}
    assert report.matched == ("a.jpg", "x/a.jpg") and report.missing == ("x/b.png",)
    assert report.orphaned == ("c.png",) and "c.png" in report.to_text()


def test_a_mask_folder_inside_the_picture_folder_holds_no_pictures(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "masks" / "a.png")
    for source in ("folder", "auto"):
        assert found(tmp_path, mask_source=source, mask_folder="masks") == {"a.png": "a.png"}


def test_masks_stay_masks_when_the_source_is_switched(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "masks" / "a.png")
    for source in ("alpha", "none"):
        assert found(tmp_path, mask_source=source, mask_folder="masks") == {"a.png": None}
        assert found(tmp_path, mask_source=source, mask_folder=str(tmp_path / "masks")) == {"a.png": None}
        assert found(tmp_path, mask_source=source, mask_folder="nowhere")["a.png"] is None


def test_pictures_in_a_folder_that_is_named_like_masks_are_pictures_and_noted(tmp_path):
    picture(tmp_path / "a.png")
    coloured(tmp_path / "Masks" / "venice.png")
    items, report = match(folder_settings(tmp_path), allowed=anywhere)
    assert len(items) == 2 and "name Masks as mask_folder" in report.to_text()


def test_a_picture_folder_inside_the_mask_folder_holds_no_masks(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "pictures" / "a.jpg")
    picture(tmp_path / "pictures" / "b.jpg")
    settings = folder_settings(tmp_path / "pictures", mask_source="folder", mask_folder=str(tmp_path))
    items, report = match(settings, allowed=anywhere)
    assert [item.mask and item.mask.name for item in items] == ["a.png", None] and report.orphaned == ()


def test_two_masks_in_the_folder_for_one_picture_are_an_error(tmp_path):
    for name in ("p/a.jpg", "m/a.png", "m/a.webp"):
        picture(tmp_path / name)
    with pytest.raises(MaskError, match=r"a\.jpg: expected one mask-folder mask, got 2: a\.png, a\.webp"):
        found(tmp_path / "p", mask_source="folder", mask_folder=str(tmp_path / "m"))


def test_auto_prefers_the_folder_then_the_sidecar(tmp_path):
    for name in ("a.png", "a_mask.png", "b.png", "b_mask.png", "m/a.png"):
        picture(tmp_path / name)
    assert found(tmp_path, mask_folder="m") == {"a.png": "a.png", "b.png": "b_mask.png"}


def test_the_picture_folder_as_mask_folder_is_an_error(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="is the picture folder itself"):
        found(tmp_path, mask_source="folder", mask_folder=str(tmp_path))


def test_masks_that_fit_no_picture_at_all_are_an_error_with_an_example(tmp_path):
    for name in ("p/cat.jpg", "m/cat_cutout.png"):
        picture(tmp_path / name)
    for source in ("folder", "auto"):
        with pytest.raises(MaskError, match=r"no mask fits.*cat\.jpg.*cat_cutout\.png"):
            found(tmp_path / "p", mask_source=source, mask_folder=str(tmp_path / "m"))


def test_an_empty_mask_folder_is_an_error_only_when_it_is_the_source(tmp_path):
    picture(tmp_path / "p" / "cat.jpg")
    (tmp_path / "m").mkdir()
    assert found(tmp_path / "p", mask_folder=str(tmp_path / "m")) == {"cat.jpg": None}
    with pytest.raises(MaskError, match="no picture file at all"):
        found(tmp_path / "p", mask_source="folder", mask_folder=str(tmp_path / "m"))


def test_source_folder_without_a_folder_names_the_widget(tmp_path):
    with pytest.raises(ConfigError, match="mask_folder"):
        found(tmp_path, mask_source="folder")


def test_missing_and_wrong_folders_are_named(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"folder: .*nowhere does not exist"):
        found(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a file, expected a folder"):
        found(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"mask_folder: .*nowhere does not exist"):
        found(tmp_path, mask_folder=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="folder: expected a folder, got nothing"):
        found("  ")


def test_an_empty_folder_says_what_is_expected(tmp_path):
    (tmp_path / "deep").mkdir()
    with pytest.raises(DataError, match=r"no picture in this folder.*png.*Put pictures in it"):
        found(tmp_path)
    picture(tmp_path / "deep" / "a.png")
    with pytest.raises(DataError, match="subfolders are off"):
        found(tmp_path, subfolders=False)


@pytest.mark.parametrize("field", ["mask_source", "mask_channel", "missing_mask"])
def test_unknown_choices_name_the_widget(tmp_path, field):
    with pytest.raises(ConfigError, match=field):
        found(tmp_path, **{field: "guess"})


def test_names_with_spaces_accents_and_cjk_match_in_any_unicode_form(tmp_path):
    names = ["Küken am See.png", "猫 1.png", "a.b.c.png", "Élodie à Nîmes/0.png"]
    for name in names:
        picture(tmp_path / unicodedata.normalize("NFC", name))
        decomposed = unicodedata.normalize("NFD", name)
        picture(tmp_path / "masks" / decomposed)
        caption = tmp_path / unicodedata.normalize("NFC", name).rpartition("/")[0] / decomposed.rpartition("/")[2]
        caption.with_suffix(".txt").write_text(f"zu {name}", "utf-8")
    items = scan(folder_settings(tmp_path, mask_folder="masks"), allowed=anywhere)
    assert [item.text for item in items] == [f"zu {item.relative}" for item in items]
    assert len(items) == 4 and all(item.mask for item in items)


def test_captions_are_read_with_the_extension_asked_for(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("tags")
    (tmp_path / "a.caption").write_text("sentence")
    for extension, text in ((".txt", "tags"), ("caption", "sentence")):
        items = scan(folder_settings(tmp_path, caption={"extension": extension}), allowed=anywhere)
        assert items[0].text == text


def test_a_caption_of_another_encoding_stops_the_scan_and_is_named(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"a\.txt: expected UTF-8.*byte 3"):
        scan(folder_settings(tmp_path), allowed=anywhere)


def test_missing_captions_are_reported_and_are_an_error_if_asked(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "a.txt").write_text("x")
    _, report = match(folder_settings(tmp_path), allowed=anywhere)
    assert report.no_caption == ("b.png",) and "without a caption: b.png" in report.to_text()
    with pytest.raises(DataError, match=r"b\.png: expected a caption \.txt.*1 of 2"):
        match(folder_settings(tmp_path, caption={"missing": "error"}), allowed=anywhere)


def test_a_folder_outside_the_allowed_roots_is_refused_before_it_is_read(tmp_path):
    def allowed(path):
        raise PathError(f"{path} is outside")

    with pytest.raises(PathError, match="secret"):
        scan(folder_settings(tmp_path / "secret"), allowed=allowed)


def inside(root):
    def allowed(path):
        if root.resolve() not in (path.resolve(), *path.resolve().parents):
            raise PathError(f"{path} is outside of {root}")
        return path

    return allowed


@pytest.mark.parametrize("kind", ["picture", "folder", "mask folder", "caption"])
def test_links_out_of_the_allowed_roots_are_refused(tmp_path, kind):
    root, outside = tmp_path / "root", tmp_path / "outside"
    picture(root / "a.png")
    picture(outside / "b.png")
    (outside / "secret.txt").write_text("secret")
    link, target = {
        "picture": (root / "b.png", outside / "b.png"),
        "folder": (root / "linked", outside),
        "mask folder": (root / "masks", outside),
        "caption": (root / "a.txt", outside / "secret.txt"),
    }[kind]
    try:
        link.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("this system does not let us make links")
    mask_folder = "masks" if kind == "mask folder" else ""
    with pytest.raises(PathError, match="is outside of"):
        scan(folder_settings(root, mask_folder=mask_folder), allowed=inside(root))


def test_a_linked_folder_that_leads_back_is_walked_once(tmp_path):
    picture(tmp_path / "a" / "x.png")
    try:
        (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("this system does not let us make links")
    assert list(found(tmp_path)) == ["a/x.png"]


def test_ten_thousand_pictures_are_matched_without_decoding_in_ten_seconds(tmp_path):
    # Not one of these files could be decoded.
    for name in ("p", "m"):
        for sub in range(10):
            (tmp_path / name / str(sub)).mkdir(parents=True)
    for i in range(10_000):
        (tmp_path / "p" / str(i % 10) / f"{i}.jpg").write_bytes(b"")
        if i % 10 < 2:
            (tmp_path / "p" / str(i % 10) / f"{i}.txt").write_bytes(b"a caption")
        (tmp_path / "m" / str(i % 10) / f"{i}.png").write_bytes(b"")
    settings = folder_settings(tmp_path / "p", mask_folder=str(tmp_path / "m"))
    start = time.process_time()
    items = scan(settings, allowed=anywhere)
    assert time.process_time() - start < 10
    assert len(items) == 10_000 and all(item.mask for item in items)
    assert sum(item.text == "a caption" for item in items) == 2_000


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs permissions")
def test_an_unreadable_folder_is_named(tmp_path):
    picture(tmp_path / "locked" / "a.png")
    (tmp_path / "locked").chmod(0)
    try:
        with pytest.raises(DataError, match="locked: the folder cannot be read"):
            found(tmp_path)
    finally:
        (tmp_path / "locked").chmod(0o755)
