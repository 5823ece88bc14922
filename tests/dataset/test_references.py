"""References beside pictures: found by name, told where they are odd, refused where they cannot be used."""

import numpy as np
import pytest
from PIL import Image

from harness.folders import anywhere, folder_settings, grey, picture
from masklora.dataset.loading import from_images, load_dataset
from masklora.dataset.references import load_reference
from masklora.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path):
    """Two pictures of 64×48 with masks, captions that tell what to do, and a reference of each in `before`."""
    root = tmp_path / "set"
    for name in ("cat", "dog"):
        picture(root / f"{name}.jpg", (64, 48), value=200)
        grey(root / f"{name}_mask.png", np.ones((48, 64)))
        (root / f"{name}.txt").write_text(f"give the {name} a hat", encoding="utf-8")
        picture(root / "before" / f"{name}.png", (64, 48))
    return root


def load(root, **options):
    return load_dataset(folder_settings(root, **({"reference_folders": "before"} | options)), allowed=anywhere)


def names(data):
    return [(sample.name, [one.name for one in sample.references]) for sample in data.samples]


def test_a_reference_has_the_name_of_its_picture_and_is_no_picture_itself(root):
    data = load(root)
    assert names(data) == [("cat.jpg", ["before/cat.png"]), ("dog.jpg", ["before/dog.png"])]
    assert [sample.caption for sample in data.samples] == ["give the cat a hat", "give the dog a hat"]
    assert all(sample.mask_path is not None for sample in data.samples)
    assert "2 pictures with every reference, 0 without." in data.report.to_text()
    # Where no reference folder is named, its files are pictures of the set as any others.
    assert len(load(root, reference_folders="").samples) == 4


def test_reference_folders_lie_anywhere_and_go_by_subfolders(root, tmp_path):
    picture(root / "inner" / "cat.jpg", (64, 48))
    picture(tmp_path / "elsewhere" / "inner" / "cat.webp", (64, 48))
    picture(tmp_path / "elsewhere" / "CAT.png", (64, 48))
    data = load(
        root, reference_folders=f'"{tmp_path / "elsewhere"}"', missing_reference="skip image", mask_source="none"
    )
    assert sorted(names(data)) == sorted(
        [("cat.jpg", ["elsewhere/CAT.png"]), ("inner/cat.jpg", ["elsewhere/inner/cat.webp"])]
        + [("before/cat.png", ["elsewhere/CAT.png"])] * 0
    )
    assert "left out, because they lack a reference: before/cat.png, before/dog.png, dog.jpg" in data.report.to_text()


def test_a_set_inside_its_reference_folder_is_no_reference(root):
    """As where the pictures to learn lie in a folder below those they were made from."""
    for name in ("cat", "dog"):
        (root / "before" / f"{name}.png").rename(root.parent / f"{name}.png")
    data = load(root, reference_folders=str(root.parent), subfolders=True)
    pairs = dict(names(data))
    assert pairs["cat.jpg"] == [f"{root.parent.name}/cat.png"]
    assert "fit no picture" not in data.report.to_text()


def test_masks_are_never_looked_for_among_references(root):
    for name in ("cat", "dog"):
        (root / f"{name}_mask.png").unlink()
        (root / "before" / f"{name}.png").rename(root / "before" / f"{name}_mask.png")
    for name in ("cat", "dog"):
        picture(root / "before" / f"{name}.png", (64, 48))
    data = load(root)
    assert all(sample.mask_path is None for sample in data.samples)
    assert "2 references fit no picture" in data.report.to_text()


def test_masks_in_a_mask_folder_stay_masks(root):
    grey(root / "shapes" / "cat.png", np.ones((48, 64)))
    (root / "cat_mask.png").unlink()
    data = load(root, mask_folder="shapes")
    assert data.samples[0].mask_path == root / "shapes" / "cat.png"
    assert names(data)[0] == ("cat.jpg", ["before/cat.png"])


def test_each_subject_of_a_picture_has_its_references(root):
    (root / "cat_mask.png").unlink()
    for subject in ("head", "tail"):
        grey(root / "shapes" / f"cat.{subject}.png", np.ones((48, 64)))
    data = load(root, mask_folder="shapes")
    of_cat = [sample for sample in data.samples if sample.picture == "cat.jpg"]
    assert len(of_cat) == 3
    assert all([one.name for one in sample.references] == ["before/cat.png"] for sample in of_cat)


def odd_missing(root):
    (root / "before" / "dog.png").unlink()


def odd_empty(root):
    for file in (root / "before").iterdir():
        file.rename(file.with_name(f"other {file.name}"))


def odd_two(root):
    picture(root / "before" / "cat.webp", (64, 48))


def odd_twin(root):
    picture(root / "cat.png", (64, 48))


def odd_damaged(root):
    file = root / "before" / "dog.png"
    file.write_bytes(file.read_bytes()[:40])


def odd_text(root):
    (root / "before" / "dog.png").write_text("no picture", encoding="utf-8")


def odd_moving(root):
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    frames[0].save(root / "before" / "dog.gif", save_all=True, append_images=frames[1:])
    (root / "before" / "dog.png").unlink()


def odd_clip(root):
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    frames[0].save(root / "dog.gif", save_all=True, append_images=frames[1:])
    (root / "dog.jpg").unlink()


def odd_nothing(root):
    """The folder is as it should be, and a setting is odd."""


REFUSED = [
    (odd_missing, {}, DataError, r"1 picture without a reference: dog\.jpg \(in before\).*missing_reference"),
    (odd_empty, {}, DataError, r"no file in .*before has the name of a picture\. The first picture is cat\.jpg"),
    (odd_two, {}, DataError, r"cat\.jpg: expected one reference in .*before, got two: before/cat\.\w+ and before/cat"),
    (odd_twin, {"mask_source": "none"}, DataError, r"before/cat\.png: this reference fits both cat\.jpg and cat\.png"),
    (odd_damaged, {}, DataError, r"dog\.jpg \(reference before/dog\.png\)"),
    (odd_text, {}, DataError, r"dog\.jpg \(reference before/dog\.png\)"),
    (odd_moving, {}, DataError, r"dog\.jpg: its reference before/dog\.gif is a clip"),
    (odd_clip, {}, DataError, r"dog\.gif: it is a clip, and before/dog\.png would be its reference"),
    (odd_nothing, {"reference_folders": "gone"}, DataError, r"reference_folders: .*gone does not exist"),
    (odd_nothing, {"reference_folders": "cat.txt"}, DataError, r"reference_folders: .*cat\.txt"),
    (
        odd_nothing,
        {"reference_folders": "before\n before/ "},
        ConfigError,
        r"reference_folders: .*before is named twice",
    ),
    (odd_nothing, {"reference_folders": "."}, ConfigError, r"reference_folders: .* is the picture folder itself"),
    (odd_nothing, {"reference_folders": "a\0b"}, ConfigError, r"reference_folders: .*zero byte"),
    (odd_nothing, {"missing_reference": "guess"}, ConfigError, r"missing_reference: expected one of error, skip image"),
]


@pytest.mark.parametrize(("make", "options", "kind", "words"), REFUSED, ids=map(str, range(len(REFUSED))))
def test_odd_pairs_are_refused_with_their_file(root, make, options, kind, words):
    make(root)
    with pytest.raises(kind, match=words):
        load(root, **options)


@pytest.mark.parametrize(
    ("policy", "expected", "words"),
    [
        ("skip image", [1], "1 left out, because it lacks a reference: dog.jpg."),
        (
            "train without",
            [1, 0],
            "1 picture lacks a reference and is learned with what is there, where a second one counts as the first",
        ),
    ],
)
def test_a_missing_reference_means_what_the_setting_says(root, policy, expected, words):
    odd_missing(root)
    data = load(root, missing_reference=policy)
    assert [len(sample.references) for sample in data.samples] == expected
    assert words in data.report.to_text()


def turned(root):
    picture(root / "before" / "cat.png", (48, 64))


def other_aspect(root):
    picture(root / "before" / "cat.png", (64, 60))


def small(root):
    picture(root / "before" / "cat.png", (32, 24))


def large(root):
    picture(root / "before" / "cat.png", (128, 96))


def same_file(root):
    (root / "before" / "cat.png").unlink()
    (root / "before" / "cat.jpg").write_bytes((root / "cat.jpg").read_bytes())


def extra(root):
    picture(root / "before" / "bird.png", (64, 48))


@pytest.mark.parametrize(
    ("make", "words", "level"),
    [
        (turned, "1 reference lies where its picture stands, or the reverse", "warning"),
        (other_aspect, "1 reference has another aspect than its picture", "note"),
        (small, "1 reference is smaller than its picture and is enlarged", "note"),
        (large, "", ""),
        (
            same_file,
            "1 reference is the very file of its picture: no change is learned there: before/cat",
            "warning",
        ),
        (extra, "1 reference fits no picture (same name in the same subfolder expected): before/bird.png.", "warning"),
    ],
)
def test_what_is_odd_about_a_pair_is_told(root, make, words, level):
    usual = {finding.text for finding in load(root).report.findings()}
    make(root)
    found = [finding for finding in load(root).report.findings() if finding.text not in usual]
    assert [(finding.text.startswith(words), finding.level) for finding in found] == ([(True, level)] if words else [])


def test_references_are_read_as_pictures_are(root):
    """Sixteen bits, a palette, and EXIF's orientation, of which the last decides the size."""
    wide = np.full((48, 64), 0x8080, np.uint16)
    Image.fromarray(wide).save(root / "before" / "cat.png")
    lying = Image.new("RGB", (48, 64), "red")
    exif = lying.getexif()
    exif[0x0112] = 6
    (root / "before" / "dog.png").unlink()
    lying.save(root / "before" / "dog.jpg", exif=exif, quality=100)
    cat, dog = (sample.references[0] for sample in load(root).samples)
    assert dog.size == (64, 48)
    assert load_reference(cat).rgb.shape == (48, 64, 3)
    assert np.all(np.abs(load_reference(cat).rgb.astype(int) - 128) <= 1)
    assert load_reference(dog).rgb.shape == (48, 64, 3)
    Image.new("P", (64, 48), 3).save(root / "before" / "cat.png")
    assert load_reference(load(root).samples[0].references[0]).rgb.shape == (48, 64, 3)


def test_pictures_of_other_nodes_have_references_too():
    images = [np.full((48, 64, 3), value, np.float32) for value in (0.25, 0.5)]
    beside = [np.full((48, 64, 4), value, np.float32) for value in (0.5, 1.0)]
    data = from_images(images, references=beside)
    first, second = (sample.references for sample in data.samples)
    assert np.all(load_reference(first[0]).rgb == 128)
    assert float(load_reference(first[0]).alpha.max()) == 0.5
    assert load_reference(second[0]).alpha is None
    assert "2 pictures with every reference" in data.report.to_text()
    assert [len(sample.references) for sample in from_images(images, references=beside[:1]).samples] == [1, 1]
    assert all(sample.references == () for sample in from_images(images).samples)
    with pytest.raises(DataError, match="references: expected none, one, or 2"):
        from_images(images, references=beside * 2)
    with pytest.raises(DataError, match=r"picture-0001, reference: expected values in 0\.\.1"):
        from_images(images, references=[np.full((48, 64, 3), np.nan, np.float32)])
