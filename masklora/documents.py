"""JSON that lies in a run's folder: whatever may have happened to a file, reading it gives its content or nothing.

People copy folders, disks fill, and processes are killed. A file that is empty, cut short, of another shape or no text
at all counts as not there; whoever needs to know why passes `complain`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Far more than any file of ours, and little enough to read at once.
MOST_BYTES = 256 * 2**20

Kind = type | tuple[type, ...]
"""What a value may be; `float` takes whole numbers too, and only `bool` takes truth values."""


def read_document(
    path: Path,
    fields: Mapping[str, Kind] | None = None,
    *,
    optional: Mapping[str, Kind] | None = None,
    complain: Callable[[str], None] | None = None,
) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no file, or none of this shape. NaN and infinity become None.

    Args:
        path: Of the file.
        fields: Keys that must be there, with what their values may be; others may come with them.
        optional: Keys that may be missing or null.
        complain: Receives a sentence on a file that is there and cannot be used.
    """
    try:
        if not path.exists():
            return None
        document = parse_object(_bytes(path))
        wrong = None if document is None else _misfit(document, fields or {}, optional or {})
        why = "it is no JSON object" if document is None else wrong
    except OSError as error:
        document, why = None, str(error)
    if why is None:
        return document
    if complain is not None:
        complain(f"{path} cannot be used and counts as missing: {why}.")
    return None


def parse_object(content: bytes | str) -> dict[str, Any] | None:
    """The JSON object in `content`, None where there is none; NaN and infinity become None."""
    try:
        found = json.loads(content, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def metric_rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file that can be used: each has a `step`, and its other numbers are finite or None.

    What a crash cut short, or somebody else wrote, is left out.
    """
    for line in lines:
        row = parse_object(line) if line.strip() else None
        if row is None or not fits(row.get("step"), int) or row["step"] < 0:
            continue
        if all(key in ("samples", "step", "expert") or _is_number(value) for key, value in row.items()):
            yield row


def strict_json(value: Any) -> str:
    """JSON text that every browser reads: NaN and infinity become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def fits(value: Any, kind: Kind) -> bool:
    """Whether a JSON value is of a kind; see `Kind`."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        # To open a pipe may wait for ever.
        raise OSError("it is no regular file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(f"it is larger than {MOST_BYTES >> 20} MiB")
    return content


def _misfit(document: dict[str, Any], fields: Mapping[str, Kind], optional: Mapping[str, Kind]) -> str | None:
    for key, kind in fields.items():
        if not fits(document.get(key), kind):
            return f"{key} is missing or of another kind"
    for key, kind in optional.items():
        if document.get(key) is not None and not fits(document[key], kind):
            return f"{key} is of another kind"
    return None


def _is_number(value: Any) -> bool:
    return value is None or (fits(value, float) and -math.inf < value < math.inf)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value
