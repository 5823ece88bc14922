"""Joins the shipped weights and the generated text encoder into one checkpoint that ComfyUI loads.

`python -m demo.assemble FOLDER`, from the repository's root, writes it and says where. The repository
ships 26 MB; the text encoder, a quarter of a gigabyte of mostly zeros, is generated.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from .text import encoder_tensors

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "base.safetensors"
SOURCES = (WEIGHTS, HERE / "text.py")
NAME = "masked-lora-demo"


def content_hash() -> str:
    """Twelve hex digits of what determines the checkpoint: the weights and the text table's source."""
    digest = hashlib.sha256()
    for source in SOURCES:
        data = source.read_bytes()
        digest.update(data.replace(b"\r\n", b"\n") if source.suffix == ".py" else data)
    return digest.hexdigest()[:12]


def build_checkpoint(destination: Path) -> Path:
    """The path of the complete checkpoint in the folder `destination`, written unless it is there already.

    The file's name carries a hash of its contents, and it appears in one step, so that an interrupted or
    a parallel call never leaves half a file under the final name.

    Raises:
        OSError: the folder cannot be made or the disk is full.
    """
    target = Path(destination) / f"{NAME}-{content_hash()}.safetensors"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        save_file(load_file(WEIGHTS) | encoder_tensors(), partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


if __name__ == "__main__":
    sys.stdout.write(f"{build_checkpoint(Path(sys.argv[1]))}\n")
