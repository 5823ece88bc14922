"""Video files opened safely: only as a container of moving pictures, never leading to another file or the network."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from ..errors import DataError

# FFmpeg guesses formats by content, among them playlists and scripts that name other files to open.
_FORMATS = "mov,matroska,webm,avi"
# Decoders that know the alpha which WebM keeps beside the picture; FFmpeg's own leave it out.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# More would keep as many frames in memory, and gain little.
_THREADS = 4


class Video:
    """An opened video file and its one stream of moving pictures.

    Attributes:
        path: Its file.
        container: PyAV's.
        stream: The moving pictures in it: neither a cover nor anything that has no decoder.
    """

    def __init__(self, path: Path, container: Any) -> None:
        self.path, self.container = path, container
        self.stream = _moving_pictures(path, container)

    @property
    def codec(self) -> str:
        """Name of what the pictures are coded with, such as h264 or vp9."""
        return self.stream.codec_context.codec.canonical_name

    @property
    def frames(self) -> int:
        """How many frames are shown, as the container tells it; 0 where it does not."""
        if not self.container.format.name.startswith("mov"):
            return self.stream.frames
        # An edit list leaves out some of those that are stored; fragments are told elsewhere.
        index = list(getattr(self.stream, "index_entries", ()))
        left = sum(bool(getattr(entry, "is_discard", False)) for entry in index)
        return self.stream.frames - left if len(index) == self.stream.frames else 0

    def check_whole(self, *, thoroughly: bool = False) -> None:
        """Refuse an MP4 or MOV with frames that lie behind its end; with `thoroughly` each is looked at.

        Raises:
            DataError: the file was cut off, or its index is damaged.
        """
        # PyAV 16.0 does not tell it.
        index = getattr(self.stream, "index_entries", ())
        if self.container.format.name.startswith("mov") and len(index) > 0:
            size = self.path.stat().st_size
            for entry in index if thoroughly else (index[len(index) - 1],):
                if entry.pos + entry.size > size:
                    raise DataError(torn(self.path))

    @property
    def alpha_beside(self) -> bool:
        """Whether a WebM says that it keeps an alpha beside its pictures."""
        return self.codec in _ALPHA_DECODERS and self.stream.metadata.get("alpha_mode", self._alpha_tag) == "1"

    @property
    def _alpha_tag(self) -> str:
        # Some programs write the tag in capitals.
        return self.stream.metadata.get("ALPHA_MODE", "0")

    def decoder(self, *, threads: bool = True) -> Any:
        """A decoder for the stream, which tells of each frame by `opaque` which packet it is from.

        With `threads` it is faster, and raises faults some packets late.
        """
        context = self.stream.codec_context
        if self.alpha_beside:
            context = av.CodecContext.create(_ALPHA_DECODERS[self.codec], "r")
        context.copy_opaque = True
        context.thread_type, context.thread_count = "AUTO", _THREADS if threads else 1
        return context


@contextmanager
def opened(path: Path) -> Iterator[Video]:
    """A video file, opened; what fails while it is opened becomes a `DataError` that names it.

    Raises:
        DataError: the file is missing, empty, no file, no video, or cannot be read.
    """
    _check_file(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path.name}: the file cannot be read ({error.strerror}). Check its permissions.") from None
    # Given as an open file its name means nothing to FFmpeg, which reads some as addresses.
    with file:
        try:
            options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
            container = av.open(_Nameless(file), container_options=options, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError, OverflowError) as error:
            raise DataError(unreadable(path, error)) from error
        with container:
            yield Video(path, container)


def unreadable(path: Path, error: Exception | str) -> str:
    """What is told of a file that is no video, or of which the beginning cannot be read."""
    return (
        f"{path.name}: expected a video, but the file is truncated, damaged or of another kind ({short(error)}). "
        "Save it again as MP4, WebM, MOV, MKV or AVI, or remove it."
    )


def torn(path: Path, error: Exception | str = "it ends before its index says") -> str:
    """What is told of a video of which a part is not there."""
    return f"{path.name}: the video is truncated or damaged ({short(error)}). Save it again or remove it."


def short(error: Exception | str) -> str:
    """FFmpeg's own words for a fault, without number and file name."""
    return str(getattr(error, "strerror", None) or error)


class _Nameless:
    """An open file of which FFmpeg sees bytes, and no name."""

    name = ""

    def __init__(self, file: Any) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _check_file(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise DataError(f"{path.name}: the file does not exist in {path.parent}. Reload the dataset.") from None
        raise DataError(f"{path.name}: the file cannot be read ({error.strerror}). Check its permissions.") from None
    if not stat.S_ISREG(found.st_mode):
        # To open a pipe would wait for whoever writes to it.
        raise DataError(f"{path.name}: expected a video file, but it is a pipe or a device. Remove it.")
    if found.st_size == 0:
        raise DataError(f"{path.name}: the file is empty (0 bytes). Save it again or remove it.")


def _moving_pictures(path: Path, container: Any) -> Any:
    """The stream that players show: the one marked as default, else the first."""
    videos = list(container.streams.video)
    moving = [stream for stream in videos if not stream.disposition & stream.disposition.attached_pic]
    if not moving:
        held = "a cover picture" if videos else "no pictures"
        raise DataError(f"{path.name}: expected moving pictures, but it holds {held}, at most sound. Remove the file.")
    default = [stream for stream in moving if stream.disposition & stream.disposition.default]
    stream = (default or moving)[0]
    if stream.codec_context is None:
        raise DataError(
            f"{path.name}: its pictures are coded in a way that cannot be decoded here. Save it again as MP4 (H.264)."
        )
    return stream
