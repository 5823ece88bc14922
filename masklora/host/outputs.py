"""Where the pack writes: runs in the user folder, LoRA files under `output/loras`, masks where a person says."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..errors import PathError
from ..file_names import name_fault
from .paths import allow, allowed_roots, own_folder


def runs_folder() -> Path:
    """Folder of all runs: settings, metrics and checkpoints."""
    return own_folder() / "runs"


def lora_path(name: str) -> Path:
    """The file for a LoRA called `name`, which may hold folders.

    Raises:
        PathError: The name is empty, leads out of `output/loras`, or is none that every system takes.
    """
    folder = (Path(folder_paths.get_output_directory()) / "loras").resolve()
    plain = name.strip().removesuffix(".safetensors").replace("\\", "/")
    # Decided on the text: resolving a Windows share would already ask another machine.
    leads_away = not plain or plain.startswith("/") or plain.endswith("/") or ":" in plain or "\0" in plain
    fault = None if leads_away else name_fault(plain, folder=folder)
    if fault:
        raise PathError(f"name: {fault}")
    target = folder if leads_away else _resolved(folder / f"{plain}.safetensors", name)
    if leads_away or not target.is_relative_to(folder):
        raise PathError(f"name: {name!r} does not lie inside output/loras. Use a plain file name such as my-lora.")
    return target


def embeddings_folder() -> Path:
    """Folder of new words that were learned, where prompts find them as `embedding:name`."""
    return (Path(folder_paths.get_output_directory()) / "embeddings").resolve()


def offer_embeddings() -> None:
    """Let ComfyUI look for embeddings there too, as it looks for LoRA files in its output folder."""
    folder_paths.add_model_folder_path("embeddings", str(embeddings_folder()))


def _resolved(path: Path, name: str) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise PathError(f"name: {name[:60]!r} is no usable file name ({error}). Choose another.") from error


def shown_path(path: Path) -> str:
    """A written file as people are told of it: below ComfyUI's folder where it lies there, with `/`."""
    output = Path(folder_paths.get_output_directory()).resolve()
    return path.relative_to(output.parent).as_posix() if path.is_relative_to(output) else str(path)


def listed_lora(shown: str) -> str | None:
    """The name under which ComfyUI's lists hold a LoRA file as `shown_path` tells it; None where it is not there."""
    file = (Path(folder_paths.get_output_directory()).resolve().parent / shown).resolve()
    for root in map(Path, folder_paths.get_folder_paths("loras")):
        if file.is_file() and file.is_relative_to(root.resolve()):
            return str(file.relative_to(root.resolve()))
    return None


def save_folder(text: str, *, widget: str = "destination") -> Path:
    """The real path of a folder to write pictures to: a relative one lies in ComfyUI's output folder.

    Raises:
        PathError: Nothing is named, a relative path leads out of the output folder, or an absolute one out of
            the folders that `allow_writing` knows.
    """
    name = text.strip()
    if not name or any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in name):
        raise PathError(f"{widget}: expected a folder, got {text!r}. Name one, such as my-set/masks.")
    if Path(name).is_absolute() or name.startswith(("/", "\\")):
        return allow_writing(Path(name), widget=widget)
    output = Path(folder_paths.get_output_directory()).resolve()
    # Decided on the text first: resolving a Windows share would already ask another machine.
    target = None if ":" in name else (output / name).resolve()
    if target is None or not target.is_relative_to(output) or target == output:
        raise PathError(
            f"{widget}: {text!r} does not lie inside {output}. Name a folder in it, or write the absolute path of an "
            "allowed folder."
        )
    return target


def allow_writing(path: Path | str, *, widget: str = "") -> Path:
    """The real path if pictures and captions may be written there: where reading is allowed, except the user folder.

    ComfyUI keeps settings in its user folder, and this pack the list of allowed folders.

    Raises:
        PathError: The path lies elsewhere.
    """
    real = allow(path, widget=widget)
    user = Path(folder_paths.get_user_directory()).resolve()
    added = [root for root in allowed_roots() if root != user and root.is_relative_to(user)]
    if real.is_relative_to(user) and not any(real.is_relative_to(root) for root in added):
        head = f"{widget}: " if widget else ""
        raise PathError(f"{head}{path} lies in ComfyUI's user folder, where nothing is saved. Name another folder.")
    return real
