"""What is shown of each sample: a picture as it is, of a clip the parts that are learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..clips.frames import choose_frames
from ..clips.reading import CLIP_EXTENSIONS
from ..dataset.moving import times_of
from ..dataset.sample import Sample, source_path
from ..errors import ConfigError
from ..settings import CacheSettings

Frames = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Shot:
    """A sample as it is shown.

    Attributes:
        index: Position of the sample in the data set.
        sample: The sample.
        frames: Numbers of the frames of a clip that are shown; () for a picture.
        name: Of the sample, with the frames where the clip is shown in several parts.
    """

    index: int
    sample: Sample
    frames: Frames
    name: str

    @property
    def key(self) -> str:
        """The sample's unique key, with the frames of a clip."""
        return f"{self.sample.key} {self.frames[0]}-{self.frames[-1]}" if self.frames else self.sample.key


@dataclass(frozen=True)
class ClipRule:
    """What a VAE makes of clips.

    Attributes:
        clips: Whether it is one for clips.
        step: How many frames become one latent frame, the first of a clip alone.
        starts: Whether the latent of each clip's first frame followed by grey frames is kept too, for a network that
            continues it.
        cut_outs: Whether the latent of each picture without what its mask covers is kept too, for a network that
            fills that in.
    """

    clips: bool = False
    step: int = 1
    starts: bool = False
    cut_outs: bool = False

    def latent_frames(self, frames: Sequence[int]) -> int:
        """How many latent frames these frames make; 0 for a picture, also where it is a clip's single frame."""
        return 1 + (len(frames) - 1) // self.step if len(frames) > 1 else 0


def shots_of(
    samples: Sequence[Sample],
    settings: CacheSettings,
    *,
    rule: ClipRule,
    check_cancel: Callable[[], None] = lambda: None,
) -> list[Shot]:
    """The shots of all samples in their order.

    Args:
        samples: Of the data set.
        settings: Which frames of a clip count: `clip_frames`, `clip_rate`, `clip_chunking`, `clip_chunks`,
            `clip_start`, `clip_end`.
        rule: Of the VAE.
        check_cancel: Called between samples; raises to stop.

    Raises:
        ConfigError: A clip for a VAE of pictures, or nothing is left of one.
        DataError: A clip cannot be read.
        MaskError: A mask has another number of frames than its clip.
    """
    found: list[Shot] = []
    for index, sample in enumerate(samples):
        check_cancel()
        parts = _parts(sample, settings, rule) if sample.moving is not None else [()]
        for frames in parts:
            name = f"{sample.name} [{frames[0]}–{frames[-1]}]" if len(parts) > 1 else sample.name
            found.append(Shot(index, sample, frames, name))
    return found


def _parts(sample: Sample, settings: CacheSettings, rule: ClipRule) -> list[Frames]:
    if not rule.clips and settings.clip_frames > 1:
        path = source_path(sample)
        if path.suffix.lower() in CLIP_EXTENSIONS or path.is_dir():
            raise ConfigError(
                f"clip_frames: {sample.name} is a clip, and the VAE is one for pictures. Connect a video model's, or "
                "set clip_frames in Cache Dataset to 1 to learn the first frame of each clip."
            )
        # An animated picture is a picture to a model of pictures.
        return [()]
    times = times_of(sample)
    header = sample.moving
    assert header is not None
    if header.rate <= 0 and settings.clip_rate > 0:
        # A folder of pictures tells no rate: its frames are taken to be those that were asked for.
        times = times / settings.clip_rate
    try:
        return choose_frames(
            times,
            rate=settings.clip_rate,
            frames=settings.clip_frames,
            step=rule.step,
            chunking=settings.clip_chunking,
            chunks=settings.clip_chunks,
            start=settings.clip_start,
            end=settings.clip_end,
        )
    except ConfigError as error:
        raise ConfigError(f"{sample.name}: {error}") from error
