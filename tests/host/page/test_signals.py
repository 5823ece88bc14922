"""The end of a process while it trains, without a server: on the main thread, on another, and at its exit."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from masklora.host.page.signals import Interrupts, OrderlyEnd

ROOT = Path(__file__).resolve().parents[3]


def alone(folder, code):
    """Runs code in a process of its own, where the module is `masklora_host` and knows no ComfyUI."""
    stub = folder / "masklora_host.py"
    source = (ROOT / "masklora" / "host" / "page" / "signals.py").read_text(encoding="utf-8")
    stub.write_text(source.replace("from server import PromptServer", "PromptServer = None"), encoding="utf-8")
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_a_signal_on_the_main_thread_is_noted_then_passed_on():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        end = OrderlyEnd()
        with end.awaited():
            assert signal.getsignal(signal.SIGTERM) != before
            signal.raise_signal(signal.SIGTERM)
            assert (end.wished, heard) == (True, [])
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_signal_does_not_wait():
    before = signal.getsignal(signal.SIGINT)
    end = OrderlyEnd()
    with pytest.raises(KeyboardInterrupt), end.awaited():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_without_a_signal_nothing_stays():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with OrderlyEnd().awaited() as end:
        assert not end.wished
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_training_on_another_thread_without_a_server_is_let_be():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with OrderlyEnd().awaited() as end:
            seen.append((end.wished, signal.getsignal(signal.SIGINT) == before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


def test_an_exit_waits_for_the_training_on_a_daemon_thread(tmp_path):
    code = f"""
        import sys, threading, time
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from masklora_host import OrderlyEnd
        begun = threading.Event()
        def work():
            end = OrderlyEnd()
            with end.awaited():
                begun.set()
                while not end.wished:
                    time.sleep(0.02)
                time.sleep(0.3)
                Path({str(tmp_path / "saved")!r}).write_text("whole")
        threading.Thread(target=work, daemon=True).start()
        begun.wait()
    """
    done = alone(tmp_path, code)
    assert (done.returncode, (tmp_path / "saved").read_text()) == (0, "whole"), done.stderr


def test_without_a_page_the_first_signal_is_one_wish_and_the_training_puts_in_no_handler():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts().awaited() as interrupts, OrderlyEnd().awaited() as end:
        assert signal.getsignal(signal.SIGTERM) is interrupts
        assert not interrupts.take()
        signal.raise_signal(signal.SIGTERM)
        assert (interrupts.take(), interrupts.take(), end.wished) == (True, False, False)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_file_in_its_place_is_the_first_signal(tmp_path):
    interrupts = Interrupts(file=tmp_path / "cancel")
    assert not interrupts.take()
    (tmp_path / "cancel").touch()
    # The disk is looked at twice a second.
    assert not interrupts.take()
    time.sleep(0.6)
    assert (interrupts.take(), interrupts.take()) == (True, False)


@pytest.mark.skipif(sys.platform == "win32", reason="the number is another there")
def test_without_a_page_the_second_signal_ends_at_once_with_its_number(tmp_path):
    code = """
        import signal, sys
        from masklora_host import Interrupts
        with Interrupts().awaited():
            signal.raise_signal(signal.SIGINT)
            print("first", flush=True)
            signal.raise_signal(signal.SIGINT)
            print("second", flush=True)
    """
    done = alone(tmp_path, code)
    assert (done.returncode, done.stdout) == (130, "first\n"), done.stderr
