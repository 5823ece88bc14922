"""Folders at random, of every naming that people have: each file is used or named, and every mask is its picture's."""

import json
import os
import random
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.folders import anywhere, folder_settings
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import load_mask

FOLDERS = int(os.environ.get("MASKLORA_ANY_FOLDERS", "200"))
GROUPS = 10
STEMS = ["img", "DSC", "Küken am See", "猫", "a.b", "photo final", "IMG_20", "été (2)", "x-y", "портрет", "n"]
STEMS += ["🐈 it's 100% #1"]
PLACES = ["", "", "sub", "deep/er", "Élodie", "3 trip"]
PICTURES = [".png", ".jpg", ".JPG", ".jpeg", ".webp", ".bmp", ".tif", ".PNG", ".jpe", ".tga", ".jfif"]
MASKS = [".png", ".PNG", ".bmp", ".webp", ".tif", ".jpg", ".tga"]
WORDS = ["mask", "masked", "alpha", "matte", "label", "masklabel", "condlabel", "wmask", "MASK", "Mask", "Alpha"]
GAPS = ["-", "_", ".", " ", "__", " - "]
BRACKETS = ["({})", "[{}]"]
MASK_PLACES = ["masks", "mask", "mask_images", "Masks", "masklabels", "alpha", "mattes", "labels"]
SENTENCES = ["a photo of a dog", "a dog in a park at night", "the same dog, seen from afar", "A dog sleeps on a chair."]
TAGS = ["1girl", "solo", "red hair", "smile"]


@dataclass
class Truth:
    """What a folder was made from, and which of its files are used or must be named."""

    root: Path
    rng: random.Random
    masks: dict = field(default_factory=dict)
    captions: dict = field(default_factory=dict)
    used: set = field(default_factory=set)
    named: set = field(default_factory=set)
    lists: dict = field(default_factory=dict)

    def path(self, *parts):
        path = self.root.joinpath(*(part for part in parts if part))
        path.parent.mkdir(parents=True, exist_ok=True)
        assert not path.exists(), path
        return path


def respelt(text, rng):
    return unicodedata.normalize(rng.choice(["NFC", "NFD"]), text)


def recased(text, rng):
    return rng.choice([text, text, text.upper(), text.lower(), text.title()])


def pattern(number):
    """A mask of 16 blocks that no other picture of the folder has; some of it is white, some black."""
    bits = [(number + 1 >> i) & 1 for i in range(7)]
    blocks = np.array([1, 0, *bits, *(1 - bit for bit in bits)], np.uint8).reshape(4, 4)
    return np.kron(blocks, np.ones((8, 8), np.uint8)).astype(bool)


def save_mask(path, mask, mode="L"):
    image = Image.fromarray(mask.astype(np.uint8) * 255).convert(mode)
    image.save(path, **({"lossless": True} if path.suffix == ".webp" else {}))


def save_photo(path, rng, alpha=None):
    noise = np.random.default_rng(rng.randrange(2**31)).integers(0, 256, (32, 32, 3), np.uint8)
    if alpha is not None:
        noise = np.dstack([noise, alpha.astype(np.uint8) * 255])
    Image.fromarray(noise).save(path)


def mask_stem(name, stem, rng):
    """A name for a mask of the picture `name`, of one of the usual kinds."""
    stem = rng.choice([stem, stem, stem, name])
    stem, word = respelt(recased(stem, rng), rng), rng.choice(WORDS)
    kind = rng.randrange(4)
    if kind == 0:
        return f"{word}{rng.choice(GAPS)}{stem}"
    if kind == 1:
        return f"{stem}{rng.choice(['', ' ', '_'])}{rng.choice(BRACKETS).format(word)}"
    return f"{stem}{rng.choice(GAPS)}{word}"


def add_mask(truth, place, name, stem, mask, home):
    rng = truth.rng
    kind = rng.choice(["beside", "beside", "beside", "numbered", "dot mask", "folder"])
    if kind == "folder" and home:
        base = place.rpartition("/")[0] if home[1] and place else place
        inner = place.rpartition("/")[2] if home[1] and place else ""
        where = "/".join(part for part in (base, home[0]) if part)
        named = rng.choice([stem, respelt(stem, rng), mask_stem(name, stem, rng)])
        path = truth.path(where, f"{named}{rng.choice(MASKS)}")
        del inner
        save_mask(path, mask, rng.choice(["L", "RGB"]))
    elif kind == "dot mask":
        path = truth.path(place, f"{respelt(rng.choice([stem, name]), rng)}.mask")
        Image.fromarray(mask.astype(np.uint8) * 255).save(path, format="PNG")
    elif kind == "numbered":
        halves = [mask.copy(), mask.copy()][: rng.choice([1, 2])]
        if len(halves) == 2:
            halves[0][:16], halves[1][16:] = False, False
        ending = rng.choice([("_mask_", ""), ("-mask", ""), (" mask (", ")"), (".mask.", "")])
        for number, half in enumerate(halves):
            path = truth.path(place, f"{stem}{ending[0]}{number}{ending[1]}.png")
            save_mask(path, half)
            truth.used.add(path)
        return
    else:
        path = truth.path(place, f"{mask_stem(name, stem, rng)}{rng.choice(MASKS)}")
        save_mask(path, mask, rng.choice(["L", "RGB"]))
    truth.used.add(path)


def add_caption(truth, place, name, stem):
    """The caption of a picture by one of the conventions, and what it must be read as."""
    rng = truth.rng
    kind = rng.choice(["none", "text", "text", "whole name", "other", "sentences", "tags", "list", "case"])
    if kind == "none":
        return None
    words = f"a picture of {stem}"
    if kind == "list":
        where = rng.choice([place, ""])
        below = f"{place}/{name}" if place and not where else name
        key, text = rng.choice(["file_name", "file_name", "image"]), rng.choice(["text", "caption", "prompt"])
        truth.lists.setdefault(where, []).append({key: respelt(below, rng), text: words})
        return words
    extension = rng.choice([".caption", ".cap", ".tags"]) if kind == "other" else rng.choice([".txt", ".txt", ".TXT"])
    bare = {"whole name": name, "case": recased(stem, rng)}.get(kind, stem)
    path = truth.path(place, f"{respelt(bare, rng)}{extension}")
    lines = [words]
    if kind == "sentences":
        lines = rng.sample(SENTENCES, rng.randint(2, 4))
    if kind == "tags":
        lines = rng.sample(TAGS, rng.randint(2, 4))
    mark, end = rng.choice(["", "\ufeff"]), rng.choice(["\n", "\r\n"])
    path.write_bytes((mark + end.join(lines) + rng.choice(["", end])).encode())
    truth.used.add(path)
    return ", ".join(lines) if kind == "tags" else "\n".join(lines)


def add_junk(truth):
    """What is no data: each file must be named, by itself or by the folder that it lies in."""
    rng = truth.rng
    for name in rng.sample(["@eaDir", "#recycle", "lost+found", "Thumbnails", "__MACOSX", ".thumbnails"], 2):
        path = truth.path(rng.choice(["", "sub"]), name, "img.jpg")
        save_photo(path, rng)
        truth.named.add(path.parent)
    for name in rng.sample(["Thumbs.db", ".DS_Store", "._img.png", "desktop.ini"], 2):
        path = truth.path(name)
        path.write_bytes(b"x")
        truth.named.add(path)
    kinds = ["a.heic", "b.jxl", "c.dng", "d.psd", "noextension", "e.wmv", "notes.md", "gone.txt", "f.caption", "m.json"]
    for name in rng.sample(kinds, 4):
        path = truth.path(rng.choice(PLACES), f"zz {name}")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" if name == "noextension" else b"words")
        truth.named.add(path)
    path = truth.path(rng.choice(PLACES), f"zz gone{rng.choice(GAPS)}{rng.choice(WORDS)}.png")
    save_mask(path, pattern(99))
    truth.named.add(path)
    if rng.random() < 0.3:
        path = truth.path("zz loop.png")
        try:
            path.symlink_to(rng.choice(["zz loop.png", "nowhere.png"]))
        except OSError:
            return
        truth.named.add(path)


def build(root, seed):
    """A folder, and the truth it was made from."""
    rng = random.Random(seed)
    truth = Truth(root, rng)
    # A folder of masks in the folder of the pictures, or beside it.
    home = rng.choice([None, (rng.choice(MASK_PLACES), False), (rng.choice(MASK_PLACES), True)])
    for number in range(rng.randint(1, 8)):
        place = respelt(rng.choice(PLACES), rng)
        stem = f"{rng.choice(STEMS)} {number}x"
        name = f"{respelt(stem, rng)}{rng.choice(PICTURES)}"
        path, mask = truth.path(place, name), pattern(number)
        relative = path.relative_to(root).as_posix()
        truth.used.add(path)
        source = rng.choice(["file", "file", "file", "alpha", "opaque", "none"])
        if source in ("alpha", "opaque"):
            path = path.rename(path.with_suffix(".png")) if path.exists() else path.with_suffix(".png")
            truth.used = (truth.used - {root / relative}) | {path}
            relative, name = path.relative_to(root).as_posix(), path.name
            save_photo(path, rng, mask if source == "alpha" else np.ones((32, 32), bool))
        else:
            save_photo(path, rng)
        truth.masks[relative] = mask if source in ("file", "alpha") else None
        if source == "file":
            add_mask(truth, place, name, stem, mask, home)
        truth.captions[relative] = add_caption(truth, place, name, stem)
    for place, rows in truth.lists.items():
        path = truth.path(place, "metadata.jsonl")
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        truth.used.add(path)
    add_junk(truth)
    return truth


def named_in(report, root):
    """Every path that the report names in full."""
    return {root / left.name for left in report.left} | {root / name for name in report.orphaned}


def check(truth):
    dataset = load_dataset(folder_settings(truth.root), allowed=anywhere)
    by_name = {sample.name: sample for sample in dataset.samples}
    assert set(by_name) == set(truth.masks)
    for name, expected in truth.masks.items():
        mask = load_mask(by_name[name])
        assert (mask is None) == (expected is None), name
        assert mask is None or np.array_equal(mask > 0.5, expected), name
        assert by_name[name].caption == truth.captions[name], name
    assert set(dataset.report.matched) == {name for name, mask in truth.masks.items() if mask is not None}
    named = named_in(dataset.report, truth.root)
    for path in truth.root.rglob("*"):
        if not path.is_dir() or path.is_symlink():
            covered = path in truth.used or any(part in named for part in (path, *path.parents))
            assert covered, path
    assert truth.named <= named


@pytest.mark.parametrize("group", range(GROUPS))
def test_every_file_is_used_or_named_and_every_mask_is_that_of_its_picture(tmp_path, group):
    for number in range(FOLDERS // GROUPS):
        seed = group + number * GROUPS
        truth = build(tmp_path / str(seed), seed)
        try:
            check(truth)
        except Exception as error:
            files = "\n".join(sorted(p.relative_to(truth.root).as_posix() for p in truth.root.rglob("*")))
            raise AssertionError(f"folder of seed {seed}: {error}\n{files}") from error


@pytest.mark.parametrize("source", ["none", "alpha", "folder"])
def test_masks_that_are_not_asked_for_are_named_and_never_learned(tmp_path, source):
    for seed in range(1000, 1000 + FOLDERS // 10):
        truth = build(tmp_path / "p" / str(seed), seed)
        name = next(iter(truth.masks))
        extra = {}
        if source == "folder":
            path = tmp_path / "m" / str(seed) / name
            path.parent.mkdir(parents=True)
            save_mask(path.with_suffix(".png"), pattern(0))
            extra = {"mask_folder": str(tmp_path / "m" / str(seed))}
        if source == "alpha":
            save_photo(truth.path("own cut 77.png"), truth.rng, pattern(77))
            truth.masks["own cut 77.png"] = pattern(77)
        dataset = load_dataset(folder_settings(truth.root, mask_source=source, **extra), allowed=anywhere)
        assert {sample.name for sample in dataset.samples} == set(truth.masks), seed
        named = named_in(dataset.report, truth.root)
        pictures = {truth.root / name for name in truth.masks}
        text = (".txt", ".caption", ".cap", ".tags", ".jsonl")
        masks = {path for path in truth.used - pictures if not path.name.lower().endswith(text)}
        assert masks <= named, seed
