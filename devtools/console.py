"""Progress lines for the person at the terminal, and the one error type that ends a command."""

import sys
import time

_START = time.monotonic()


class DevError(Exception):
    """A command cannot go on; the message says what is missing and what to do."""


def say(message):
    """Writes one line to stderr, with the seconds since the command began; stdout stays for results."""
    sys.stderr.write(f"[{time.monotonic() - _START:6.1f}s] {message}\n")
    sys.stderr.flush()


def result(message):
    """Writes one line to stdout."""
    sys.stdout.write(f"{message}\n")
    sys.stdout.flush()
