"""Content-hash keys of cache entries, and the memo that spares reading unchanged files again.

A key stands for everything that an entry's numbers depend on and for nothing else, so that an edit makes
exactly the affected entries stale, and undoing it finds the old ones again.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..clips.sequences import sequence_pictures
from ..dataset.geometry import Geometry
from ..errors import DataError
from ..settings import MaskTransform

VERSION = 1
RACY_SECONDS = 2.0
_CHUNK = 1 << 20


def digest(*parts: Any) -> str:
    """40 hexadecimal digits that stand for JSON-ready `parts`, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode("ascii"), digest_size=20).hexdigest()


def file_digest(path: Path) -> str:
    """40 hexadecimal digits of a file's bytes, read in pieces.

    Raises:
        DataError: The file cannot be read.
    """
    hasher = hashlib.blake2b(digest_size=20)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the file and its rights.") from error
    return hasher.hexdigest()


def content_digest(content: bytes) -> str:
    """What `file_digest` gives of a file that holds `content`."""
    return hashlib.blake2b(content, digest_size=20).hexdigest()


def array_digest(array: np.ndarray) -> str:
    """40 hexadecimal digits of an array's values, shape and dtype."""
    hasher = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=20)
    hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def mask_identity(source: str, *, channel: str, transform: MaskTransform) -> str:
    """What a mask is before geometry: where its values come from, the channel read, the pixel transforms."""
    return digest("mask identity", VERSION, source, channel, transform.lasting())


def latent_key(
    image: str,
    geometry: Geometry,
    *,
    resize: str,
    fill: str,
    fill_mask: str | None,
    encoder: str,
    still: bool = False,
) -> str:
    """Key of a latent: image bytes, geometry and its kernel, fill with the mask it follows, VAE.

    Args:
        image: Digest of the picture's bytes.
        geometry: Where every pixel of the picture goes.
        resize: Kernel of the picture's resize.
        fill: What replaces the outside; "keep" leaves the mask out of the key.
        fill_mask: `mask_identity` of the mask, or None without one.
        encoder: Identity of the VAE.
        still: Whether the fill is made once for all frames of a clip.
    """
    outside = None if fill == "keep" or fill_mask is None else [fill, fill_mask, *(["still"] if still else [])]
    return digest("latent", VERSION, image, geometry.to_dict(), resize, outside, encoder)


def start_key(latent: str) -> str:
    """Key of what a network is given to continue: a clip's first frame followed by grey ones, of its latent's key."""
    return digest("start", VERSION, latent)


def cut_out_key(latent: str, mask: str) -> str:
    """Key of a picture without what its mask covers, of the keys of its latent and of that mask."""
    return digest("cutout", VERSION, latent, mask)


def mask_key(identity: str | None, geometry: Geometry, *, hard: bool) -> str:
    """Key of a mask at the training geometry; None, a picture without a mask, depends on the size only."""
    if identity is None:
        # A turned crop weighs nothing beyond the picture.
        return digest("ones", VERSION, geometry.to_dict() if geometry.angle else list(geometry.size))
    return digest("mask", VERSION, identity, geometry.to_dict(), hard)


def shrunk_key(key: str, shrink: Any | None) -> str:
    """Key of a mask of key `key` after its random shrinking, a dataclass; the key itself without one."""
    return key if shrink is None else digest("shrunk", VERSION, key, asdict(shrink))


def infill_key(
    bare: str, infill: Any, *, mask: str | None, donor: tuple[str, str | None] | None, still: bool = False
) -> str:
    """Key of the latent of a picture whose background was replaced.

    Args:
        bare: Key of the picture's latent without fill.
        infill: The dataclass that says what was put there.
        mask: `mask_identity` of the mask.
        donor: Digest of the other picture's bytes and identity of its mask, where it lends its background.
        still: Whether it is made once for all frames of a clip, of the clip itself.
    """
    what = {name: value for name, value in asdict(infill).items() if name != "donor"} | ({"still": 1} if still else {})
    return digest("infill", VERSION, bare, what, mask, donor)


def reference_key(image: str, geometry: Geometry, *, resize: str, fill: str | None, encoder: str) -> str:
    """Key of a reference's latent.

    Args:
        image: Digest of the reference's bytes.
        geometry: Where every pixel of it goes.
        resize: Kernel of its resize.
        fill: What replaces what its own alpha leaves out; None where nothing does.
        encoder: Identity of the VAE.
    """
    return digest("reference", VERSION, image, geometry.to_dict(), resize, fill, encoder)


def text_key(text: str, *, encoder: str, pictures: tuple[str, ...] = ()) -> str:
    """Key of a caption's embedding: the text and everything on the text encoder's side.

    Args:
        text: The caption.
        encoder: Identity of the text encoder.
        pictures: Where it sees the references too: in which way, and their digests.
    """
    return digest("text", VERSION, text, encoder, *([list(pictures)] if pictures else []))


class Memo:
    """What is already known of files and masks: digests by (path, size, times), facts by mask identity.

    A file written within the last two seconds is not remembered: a second write in the same tick of the
    file system's clock would go unseen. What was changed by another hand than ours is not believed: latents would be
    taken for another picture's.
    """

    def __init__(self, values: Any = None) -> None:
        """A memo from `merged_into`'s values; anything of another shape, or without their seal, is dropped."""
        values = values if isinstance(values, dict) else {}
        files, masks = values.get("files"), values.get("masks")
        whole = isinstance(files, dict) and isinstance(masks, dict) and values.get("seal") == _seal(files, masks)
        self._files: dict[str, list[Any]] = dict(files) if whole else {}
        self._masks: dict[str, dict[str, Any]] = dict(masks) if whole else {}
        self._fresh: dict[str, dict[str, Any]] = {"files": {}, "masks": {}}

    def file(self, path: Path) -> str:
        """Digest of the file's bytes, read only if its size or one of its times changed; of a folder's its pictures'.

        Raises:
            DataError: The file cannot be read.
        """
        if path.is_dir():
            return digest("folder", [[one.name, self.file(one)] for one in sequence_pictures(path)])
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Was it moved or deleted?") from error
        # The time of the last change of any kind too: the other one can be set back by whoever copies files.
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        name = str(path)
        known = self._files.get(name)
        if known is not None and known[:-1] == state:
            return known[-1]
        value = file_digest(path)
        if time.time() - stat.st_mtime > RACY_SECONDS:
            self._files[name] = self._fresh["files"][name] = [*state, value]
        return value

    def facts(self, identity: str) -> dict[str, Any] | None:
        """What was noted under this identity; None if nothing was."""
        return self._masks.get(identity)

    def note(self, identity: str, **values: Any) -> dict[str, Any]:
        """Remember values for an identity and return all that is known of it."""
        merged = {**self._masks.get(identity, {}), **values}
        self._masks[identity] = self._fresh["masks"][identity] = merged
        return merged

    @property
    def changed(self) -> bool:
        """Whether anything was learnt since the memo was read."""
        return any(self._fresh.values())

    def merged_into(self, other: Memo) -> dict[str, Any]:
        """JSON-ready values of `other`, another process's newer memo, with what was learnt here added."""
        files = {**other._files, **self._fresh["files"]}
        masks = {**other._masks, **self._fresh["masks"]}
        return {"files": files, "masks": masks, "seal": _seal(files, masks)}


def _seal(files: dict[str, Any], masks: dict[str, Any]) -> str:
    return digest("memo", 2, files, masks)
