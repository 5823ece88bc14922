"""The demo's pictures where ComfyUI's nodes look for them."""

import shutil
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"
FOLDER = "masked-lora-demo"
# Load Image lists the files of the input folder itself, and none of its subfolders.
LISTED = {f"{FOLDER} zibble_0{number}.png": f"alpha/zibble_0{number}.png" for number in (1, 2, 3)}


def place_pictures(folder: Path, *, anew: bool = False) -> None:
    """Copies all pictures into a folder of their own below `folder`, and into it those that Load Image shows.

    Args:
        folder: ComfyUI's input folder.
        anew: Whether files that are there already are written again.
    """
    files = {Path(FOLDER) / path.relative_to(PICTURES): path for path in PICTURES.rglob("*") if path.is_file()}
    files |= {Path(name): PICTURES / picture for name, picture in LISTED.items()}
    for name, source in files.items():
        if anew or not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
