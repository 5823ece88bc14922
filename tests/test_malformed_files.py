"""A thousand malformed files: each gives what the undamaged one gives, or an error that names it.

Formats without checksums may give the pixels that Pillow itself makes of the damaged file. Usually a sample is tried;
`python dev.py test --all tests/test_malformed_files.py` tries all of them.
"""

import io
import json
import shutil
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save as save_tensors

from harness.caching import SETTINGS, Bench, blob, picture, save
from harness.damage import damaged, many
from harness.folders import anywhere, folder_settings
from harness.toy import Recorder, same, toy_job, train_toy
from masklora.adapters import from_file
from masklora.dataset.loading import load_dataset
from masklora.errors import AdapterError, DataError, MaskLoraError
from masklora.host.training import read_lora
from masklora.pictures.reading import read_header, read_image, read_mask
from masklora.runs.history import read_curve
from masklora.runs.run_list import RunList

LONGEST = 30
FORMATS = {
    "png": {},
    "webp": {"lossless": True},
    "jpg": {"quality": 95},
    "tif": {},
    "bmp": {},
    "gif": {},
    "avif": {"quality": 95},
}
# Damage inside the pixels of these cannot be seen.
WITHOUT_CHECKSUMS = ("webp", "jpg", "tif", "bmp", "gif", "avif")


@pytest.fixture(autouse=True)
def soon():
    """Fails a case that takes longer than `LONGEST` seconds."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < LONGEST * many(1, 20)


def files_of(kind):
    """One whole file of each format: colours, or a mask."""
    colours = np.random.default_rng(3).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    image = Image.fromarray(colours if kind == "picture" else colours[..., 0] // 128 * 255)
    found = {}
    for extension, options in FORMATS.items():
        if f".{extension}" not in Image.registered_extensions():
            continue
        buffer = io.BytesIO()
        image.save(buffer, format=Image.registered_extensions()[f".{extension}"], **options)
        found[extension] = buffer.getvalue()
    return found


def as_pillow_reads(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("kind", ["picture", "mask"])
@pytest.mark.parametrize("extension", FORMATS)
def test_damaged_pictures_and_masks_are_right_or_refused_by_name(tmp_path, kind, extension):
    whole = files_of(kind)
    if extension not in whole:
        pytest.skip(f"this Pillow reads no {extension}")
    path = tmp_path / f"Bild (1).{extension}"
    read = (lambda p: read_image(p).rgb) if kind == "picture" else (lambda p: read_mask(p))
    path.write_bytes(whole[extension])
    truth = read(path)
    others = [content for name, content in whole.items() if name != extension] + [b"<html>404</html>"]
    for seed in range(many(9, 36)):
        content, how = damaged(whole[extension], seed + 1000 * (kind == "mask"), others=others)
        path.write_bytes(content)
        try:
            read_header(path)
            found = read(path)
        except DataError as error:
            assert path.name in str(error), (seed, how)
            continue
        if found.shape == truth.shape and np.array_equal(found, truth):
            continue
        assert how == "another" or extension in WITHOUT_CHECKSUMS or kind == "mask", (seed, how)
        if kind == "picture":
            assert np.array_equal(found, as_pillow_reads(path)), (seed, how)


CAPTIONS = ["a plain caption", "ünïcödé, 猫, 🐈", "1girl\nsolo\nred hair", "(a:1.3) [b] {c|d} embedding:x"]


@pytest.mark.parametrize("text", CAPTIONS)
def test_damaged_captions_are_read_or_refused_by_name(tmp_path, text):
    save(picture(1), tmp_path / "a b.png")
    whole = text.encode()
    for seed in range(many(15, 45)):
        content, how = damaged(whole, seed, others=[whole.decode().encode("utf-16"), b"\xff\xfe\x00", b"\x00" * 40])
        (tmp_path / "a b.txt").write_bytes(content)
        try:
            (sample,) = load_dataset(folder_settings(tmp_path), allowed=anywhere).samples
        except DataError as error:
            assert "a b.txt" in str(error), (seed, how)
        else:
            assert sample.caption is None or isinstance(sample.caption, str)
            sample.caption and sample.caption.encode("utf-8")


def lora_file():
    rng = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in ("first", "second"):
        tensors[f"diffusion_model.{layer}.lora_down.weight"] = torch.randn(2, 6, generator=rng)
        tensors[f"diffusion_model.{layer}.lora_up.weight"] = torch.randn(5, 2, generator=rng)
        tensors[f"diffusion_model.{layer}.alpha"] = torch.tensor(2.0)
    return save_tensors(tensors)


Names = SimpleNamespace(aliases={f"diffusion_model.{layer}": layer for layer in ("first", "second")})


def test_damaged_lora_files_are_right_or_refused_by_name(tmp_path):
    whole, path = lora_file(), tmp_path / "start here.safetensors"
    path.write_bytes(whole)
    truth = read_lora(path, names=Names)
    for seed in range(many(40, 180)):
        content, how = damaged(whole, seed, others=[b"PK\x03\x04", json.dumps({"a": 1}).encode()])
        path.write_bytes(content)
        try:
            found = read_lora(path, names=Names)
        except AdapterError as error:
            assert path.name in str(error), (seed, how)
            continue
        # Values have no checksum; names, shapes and numbers that are none are looked at.
        assert found.keys() <= truth.keys(), (seed, how)
        assert all(torch.isfinite(f.down).all() and torch.isfinite(f.up).all() for f in found.values()), (seed, how)


@pytest.mark.parametrize("value", [torch.tensor([1.0, 2.0, 3.0]), torch.tensor(float("nan")), torch.zeros(0)])
def test_an_alpha_that_is_no_number_names_the_file(value):
    tensors = {"diffusion_model.first.lora_down.weight": torch.ones(2, 6), "diffusion_model.first.alpha": value}
    tensors["diffusion_model.first.lora_up.weight"] = torch.ones(5, 2)
    with pytest.raises(AdapterError, match=r"odd\.safetensors"):
        from_file(tensors, aliases=Names.aliases, file="odd.safetensors")


@pytest.fixture
def bench(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    for seed, name in enumerate("abc"):
        save(picture(seed), root / f"{name}.png")
        save(blob(seed), root / f"{name}_mask.png")
        (root / f"{name}.txt").write_text(f"picture {name}", encoding="utf-8")
    return Bench(root, tmp_path / "store")


def all_of(cache):
    found = [cache.latent(e, v) for e in cache.entries for v in range(len(e.variants))]
    found += [cache.mask(e, v) for e in cache.entries for v in range(len(e.variants))]
    return [*found, *(cache.text(c.key)["cond"] for e in cache.entries for c in e.captions)]


def test_damaged_cache_files_are_made_anew_with_the_same_numbers(bench):
    bench.build(SETTINGS)
    truth, fingerprint = all_of(bench.cache), bench.cache.fingerprint
    files = sorted(path for path in bench.store.rglob("*") if path.is_file())
    for seed in range(many(30, 170)):
        victim = files[seed % len(files)]
        content, how = damaged(victim.read_bytes(), seed, others=[path.read_bytes() for path in files[:3]])
        victim.write_bytes(content)
        # While the cache is in use, and when it is built again.
        held = bench.cache if seed % 2 else None
        if held is None:
            bench.build(SETTINGS)
            held = bench.cache
        found = all_of(held)
        assert held.fingerprint == fingerprint
        assert all(torch.equal(a, b) for a, b in zip(found, truth, strict=True)), (seed, how, victim.name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a toy run that was stopped at step 6 of 10, and what it becomes undisturbed."""
    folder = tmp_path_factory.mktemp("toy")
    job = toy_job(save_every=2)
    train_toy(folder, job, Recorder(stop_at=6))
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    return folder, train_toy(copy, toy_job(save_every=2)).adapter


def test_damaged_files_of_a_run_end_in_the_undisturbed_lora_or_an_error_that_names_one(undisturbed, tmp_path):
    whole, adapter = undisturbed
    names = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file() and p.name != "run.lock")
    assert len(names) > 8
    for seed in range(many(30, 220)):
        folder = tmp_path / str(seed)
        shutil.copytree(whole, folder)
        victim = folder / names[seed % len(names)]
        content, how = damaged(victim.read_bytes(), seed, others=[b"null", b"[]", b'{"step": NaN}', b"[" * 50_000])
        victim.write_bytes(content)
        try:
            found = train_toy(folder, toy_job(save_every=2))
        except MaskLoraError as error:
            assert folder.name in str(error), (seed, how, victim.name)
        else:
            assert same(found.adapter, adapter), (seed, how, victim.name)
        shutil.rmtree(folder)


def test_one_damaged_run_never_hides_the_others(undisturbed, tmp_path):
    whole, _ = undisturbed
    (run,) = [path for path in whole.iterdir() if path.is_dir()]
    shutil.copytree(run, tmp_path / "good-0123456789")
    names = sorted(p.relative_to(run) for p in run.rglob("*") if p.is_file() and p.name != "run.lock")
    listing = RunList()
    for seed in range(many(30, 120)):
        bad = tmp_path / "bad-0123456789"
        shutil.copytree(run, bad)
        victim = bad / names[seed % len(names)]
        victim.write_bytes(damaged(victim.read_bytes(), seed, others=[b"null", b"5", b"[" * 50_000, b"\xff"])[0])
        assert "good" in {row.run.name for row in listing.rows(tmp_path)}
        json.dumps([row for row in read_curve(bad)], allow_nan=False)
        shutil.rmtree(bad)


def test_the_cases_run_in_a_thread_of_their_own_too(tmp_path):
    """ComfyUI reads in threads: an error there must be the same, not a dead worker."""
    path, caught = tmp_path / "x.png", []
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 30)

    def read():
        try:
            read_image(path)
        except DataError as error:
            caught.append(str(error))

    worker = threading.Thread(target=read)
    worker.start()
    worker.join(LONGEST)
    assert not worker.is_alive() and "x.png" in caught[0]
