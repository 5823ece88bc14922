"""Errors that tell a person what was expected, what was found and what to do about it."""

from .findings import printable


class MaskLoraError(Exception):
    """Base of every error that this library raises on purpose; its message can be printed and sent anywhere.

    ComfyUI prints errors from the thread that works off its queue, and a name that no stream can carry ended it.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class ConfigError(MaskLoraError):
    """A setting is out of range or two settings contradict each other; names the widget."""


class DataError(MaskLoraError):
    """A picture, caption or folder cannot be used; names the file."""


class MaskError(DataError):
    """A mask is missing, unreadable or does not fit its picture; names both files."""


class MaskConflictError(MaskError):
    """A mask was changed elsewhere while it was being edited; names the picture."""


class BusyError(MaskLoraError):
    """Something cannot be done now, but can once something else has ended; says what."""


class CaptionConflictError(DataError):
    """A caption was changed elsewhere while it was being edited; names the picture."""


class CacheError(MaskLoraError):
    """The cache folder cannot be written or an entry is damaged beyond rebuilding."""


class FamilyError(MaskLoraError):
    """The model is of no family we know, or VAE or CLIP do not fit it; names the known ones."""


class AdapterError(MaskLoraError):
    """No layer matches the targets, or a LoRA file belongs to another model."""


class RunError(MaskLoraError):
    """A run folder cannot be written, read or resumed."""


class NonFiniteLossError(RunError):
    """The loss became NaN or infinite; names the step and the samples."""


class PathError(MaskLoraError):
    """A path lies outside the folders that may be read or written."""
