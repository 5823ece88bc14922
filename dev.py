"""Two commands for a fresh machine: `python dev.py demo` and `python dev.py test`. Standard library only."""

import argparse
import signal
import sys

if sys.version_info < (3, 10):  # noqa: UP036 - run before any packaging metadata is read
    sys.exit(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}.")

from devtools.console import DevError, result
from devtools.host import find_host


def host_command(options, _rest):
    """Prints the host as one JSON line."""
    host = find_host(options.comfyui)
    result(host.as_json() if options.json else f"{host.python}\n{host.comfyui}")
    return 0


def test_command(options, rest):
    """Runs pytest, then the web module tests."""
    from devtools.testing import run_tests

    return run_tests(find_host(options.comfyui), rest)


def pictures_command(options, rest):
    """Takes the pictures of the help pages anew."""
    from devtools.testing import take_pictures

    return take_pictures(find_host(options.comfyui), rest)


def templates_command(options, _rest):
    """Writes the templates "Start here" anew."""
    from devtools.start_here.write import write_templates

    return write_templates(find_host(options.comfyui))


def run_command(options, rest):
    """Runs a script of ours in the host, such as benchmarks/train_step.py."""
    from devtools.running import run_script

    return run_script(find_host(options.comfyui), options.script, rest)


def train_command(options, rest):
    """Executes a graph without a page."""
    from devtools.running import train

    return train(find_host(options.comfyui), rest)


def demo_command(options, _rest):
    """Trains a LoRA with a masked loss in a real ComfyUI and shows what it learned."""
    from devtools.demo import run_demo

    return run_demo(find_host(options.comfyui), checkpoint=options.checkpoint, serve=options.serve)


def make_parser():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--comfyui", metavar="PATH", help="a ComfyUI folder to use (else COMFYUI_PATH)")
    host = commands.add_parser("host", parents=[shared], help="find or build the ComfyUI that is used")
    host.add_argument("--json", action="store_true", help="one JSON line")
    host.set_defaults(run=host_command)
    demo = commands.add_parser("demo", parents=[shared], help="train a LoRA through an example workflow")
    demo.add_argument(
        "--serve", action="store_true", help="print the page's address at once, and leave ComfyUI running afterwards"
    )
    demo.add_argument("--checkpoint", metavar="NAME", help="a checkpoint of yours instead of the demo's")
    demo.set_defaults(run=demo_command)
    test = commands.add_parser(
        "test",
        parents=[shared],
        help="run the tests, with --all the long ones and both web frontends too; other arguments go to pytest",
        add_help=False,
    )
    test.set_defaults(run=test_command)
    pictures = commands.add_parser(
        "pictures",
        parents=[shared],
        help="take the pictures of the help pages anew; other arguments go to pytest",
        add_help=False,
    )
    pictures.set_defaults(run=pictures_command)
    templates = commands.add_parser("templates", parents=[shared], help="write the templates in workflows/ anew")
    templates.set_defaults(run=templates_command)
    train = commands.add_parser(
        "train",
        parents=[shared],
        help="train from a terminal: GRAPH.json [--set node.widget=value …]; `python train.py --help` tells the rest",
        add_help=False,
    )
    train.set_defaults(run=train_command)
    run = commands.add_parser("run", parents=[shared], help="run one of our scripts, with its arguments, in the host")
    run.add_argument("script", metavar="SCRIPT")
    run.set_defaults(run=run_command)
    return parser


def main(arguments=None):
    """Runs one command; the exit status is non-zero when it failed."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in ("test", "pictures", "run", "train"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    # Without this, an ended dev.py would leave the ComfyUI that it started behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return options.run(options, rest)
    except DevError as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
