"""Former versions of files, whole and bit for bit, a few of each."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import unicodedata
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..cache.keys import file_digest
from ..errors import DataError

MOST_KEPT = 20
# File systems allow 255 bytes; the time comes before it.
_NAME_BYTES = 180
_MARK = ".edited"


@dataclass(frozen=True)
class Versions:
    """Former versions below a folder, by the path of the file that they are versions of."""

    root: Path

    def keep(self, file: Path, *, of: Path) -> Path:
        """Copies `file` as the newest former version of the path `of`, and drops the oldest beyond `MOST_KEPT`.

        A folder of frames is copied as one.

        Raises:
            OSError: It cannot be copied; then nothing is kept of it.
        """
        folder = self._folder(of)
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-%f")
        name = file.name.encode("utf-8", "replace")[-_NAME_BYTES:].decode("utf-8", "ignore")
        kept, temporary = folder / f"{now}-{name}", folder / f".{uuid.uuid4().hex}.tmp"
        try:
            if file.is_dir():
                shutil.copytree(file, temporary, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(file, temporary)
            temporary.replace(kept)
        finally:
            removed(temporary)
        for old in self.all(of)[MOST_KEPT:]:
            removed(old)
        return kept

    def all(self, of: Path) -> list[Path]:
        """Former versions of a path, newest first."""
        folder = self._folder(of)
        found = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
        return sorted(found, key=lambda path: path.name, reverse=True)

    def mark_edited(self, path: Path) -> None:
        """Note that `path` holds what a person saved by hand, until something else writes it.

        Raises:
            OSError: It cannot be noted.
        """
        folder = self._folder(path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).write_text(file_digest(path), encoding="ascii")

    def is_edited(self, path: Path) -> bool:
        """Whether `path` still holds what a person saved by hand."""
        try:
            return (self._folder(path) / _MARK).read_text(encoding="ascii") == file_digest(path)
        except (OSError, UnicodeDecodeError, DataError):
            return False

    def _folder(self, of: Path) -> Path:
        text = unicodedata.normalize("NFC", str(of)).encode("utf-8", "surrogatepass")
        return self.root / hashlib.blake2b(text, digest_size=10).hexdigest()


def removed(path: Path) -> None:
    """Deletes a file or a folder of frames if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
