"""The command line of a training without a page. Standard library only: ComfyUI imports torch first."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from ...torchrun import place
from .graph import SavedGraph, read_graph
from .output import Output, open_output
from .problems import RefusedError
from .start import find_comfyui, pack_package, start_comfyui

_CODES = """exit codes:
  0    everything in the graph was executed
  1    a node failed; it says why
  2    refused before anything was executed: the command line, the graph, --set, a file or a package that is missing,
       or a ComfyUI that does not start
  3    stopped by Ctrl-C, SIGTERM or Ctrl-Break after the step, with a checkpoint: the same command goes on from there
  130  ended at once by a second Ctrl-C (128 and the number of the signal)

Everything else on the command line is ComfyUI's: --lowvram, --base-directory, --extra-model-paths-config and the rest
(`python main.py --help` in ComfyUI's folder). Nothing listens on the network."""


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and what is left for ComfyUI. Wrong usage ends the process with 2, as help does with 0."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Executes a graph in ComfyUI's API format without a page: trains a LoRA from a terminal.",
        epilog=_CODES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("graph", metavar="GRAPH.json", type=Path, help="from Save for headless in the training panel")
    parser.add_argument(
        "--set",
        metavar="NODE.WIDGET=VALUE",
        action="append",
        default=[],
        dest="changes",
        help="change a widget; the node by its id, or by its title or class where only one has that; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON for every event, for machines")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard's event files into the run's folder as well"
    )
    parser.add_argument(
        "--cancel-file",
        metavar="PATH",
        type=Path,
        help="do what Ctrl-C does once there is a file at PATH, for those who cannot send signals",
    )
    parser.add_argument("--comfyui", metavar="PATH", help="ComfyUI's folder (else COMFYUI_PATH, else around the pack)")
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        # A value of one of ComfyUI's flags could not be told from it.
        parser.error("GRAPH.json comes first, before all options")
    return parser.parse_known_args(arguments)


def main(arguments: list[str], pack: Path) -> int:
    """Carry out a command line; the exit code.

    Args:
        arguments: without the script's name.
        pack: the folder of this pack, for where ComfyUI has not loaded it from one of its own.
    """
    options, flags = parse(arguments)
    own = place()
    with open_output(json_lines=options.json, silent=own is not None and own.number > 0) as output:
        try:
            saved = _prepared(options)
            comfyui = find_comfyui(options.comfyui, pack)
            return _start_and_run(options, comfyui, flags, pack=pack, saved=saved, output=output)
        except RefusedError as refusal:
            return output.refuse(refusal.problems)
        except KeyboardInterrupt:
            return output.end("stopped", "before anything was executed")
        except Exception:
            # Whoever reads the lines waits for the last one.
            traceback.print_exc()
            return output.end("failed", "the reason is above")


def _prepared(options: argparse.Namespace) -> SavedGraph:
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise RefusedError(
            f"--tensorboard needs the package tensorboard, which {sys.executable} lacks. Install it with "
            f"{sys.executable} -m pip install tensorboard, or leave --tensorboard out."
        )
    return read_graph(options.graph)


def _start_and_run(
    options: argparse.Namespace, comfyui: Path, flags: list[str], *, pack: Path, saved: SavedGraph, output: Output
) -> int:
    with start_comfyui(comfyui, flags):
        package = pack_package(pack)
        # From here on in the pack as ComfyUI has loaded it: its runs, hooks and errors exist once.
        running: Any = importlib.import_module(f"{package}.{__package__.partition('.')[2]}.running")
        code = running.run(
            saved, options.changes, output=output, event_files=options.tensorboard, cancel=options.cancel_file
        )
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        return code
