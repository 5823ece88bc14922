"""Checks a graph as ComfyUI does, puts it into ComfyUI's queue, and waits for its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import execution
from server import PromptServer

import nodes

from ...peers import Peers, joined
from ..page.signals import Interrupts
from .client import CLIENT, PackLog, Terminal
from .event_files import EventFiles
from .graph import Graph, SavedGraph, Schema, as_from_the_page, change, titled
from .output import Output
from .problems import RefusedError
from .refusals import problems_of
from .shared import shared_training

_POLL_SECONDS = 0.05
# For what ComfyUI's queue still does: Python aborts if it ends while another thread writes to the same stream.
_REST_SECONDS = 0.2
# torchrun hands Ctrl-C on to processes that have heard it from the terminal.
_SAME_WISH_SECONDS = 3.0
_QUEUE_ENDED = "a node ended the thread of ComfyUI's queue; the reason is above"
_PACKAGE = __package__.removesuffix(".masklora.host.headless")
_STOPPING = "Stopping after this step, with a checkpoint. A second signal ends at once, without one."


def run(saved: SavedGraph, changes: list[str], *, output: Output, event_files: bool, cancel: Path | None = None) -> int:
    """Execute a graph in the ComfyUI of this process, which has started; the exit code.

    Of several processes the first one goes through the whole graph, and its exit code is that of all; the others
    execute the node that trains, and what it needs.

    Args:
        saved: the graph. As the page shows it, it is kept with the run where nothing is changed.
        changes: see `graph.change`.
        output: where everything is told.
        event_files: whether TensorBoard's event files are written too.
        cancel: as soon as there is such a file, that is as a first signal.
    """
    with joined(comfy.model_management.get_torch_device()) as peers:
        cancel = cancel if peers.first else None
        code, reason = _run(
            saved, changes, peers, output=output, event_files=event_files and peers.first, cancel=cancel
        )
        return peers.end(code, reason)


def _run(
    saved: SavedGraph, changes: list[str], peers: Peers, *, output: Output, event_files: bool, cancel: Path | None
) -> tuple[int, str]:
    """The exit code, and why what was executed failed."""
    server: Any = PromptServer.instance
    graph, shown = saved.graph, None if changes else saved.workflow
    with contextlib.ExitStack() as ends:
        ends.enter_context(_tidy_log(output))
        try:
            change(graph, changes, inputs_of)
            outputs = server.loop.run_until_complete(_checked(server, graph))
            trains = shared_training(graph) if peers.count > 1 else []
            files = _event_files() if event_files else None
        except RefusedError as refusal:
            return output.refuse(refusal.problems), str(refusal)
        if files is not None:
            ends.callback(files.close)
        terminal = Terminal(graph, output, files)
        ends.enter_context(_heard(server, terminal, output))
        heard = Interrupts(apart=_SAME_WISH_SECONDS if trains else 0.0, file=cancel)
        interrupts = ends.enter_context(heard.awaited())
        wanted = outputs if peers.first else trains
        # The others end as the first one does, not in a step: they may have the only weights that are left.
        interrupts = interrupts if peers.first else Interrupts()
        record = server.loop.run_until_complete(_executed(server, (graph, wanted, shown), terminal, interrupts))
    if record is None:
        return output.end("failed", _QUEUE_ENDED), _QUEUE_ENDED
    _tell_previews(record["outputs"], graph, terminal)
    events = dict(record["status"]["messages"])
    failed = events.get("execution_error")
    own = failed is not None and not failed["exception_type"].endswith("PeerError")
    reason = failed["exception_message"].strip() if own else ""
    if "execution_interrupted" in events and peers.lost:
        # torchrun has asked this one to end because another one is gone, before it could notice that.
        output.told("", "", peers.lost, level="error")
        return output.end("failed", "another process was lost"), reason
    return _ended(record["status"], graph, terminal, output), reason


def inputs_of(class_type: str) -> Schema:
    """What a node class says of its inputs; empty for one that no pack has."""
    found = nodes.NODE_CLASS_MAPPINGS.get(class_type)
    if found is None:
        return {}
    kinds = found.INPUT_TYPES()
    inputs = {**kinds.get("required", {}), **kinds.get("optional", {})}
    return {name: (one[0], one[1] if len(one) > 1 else {}) for name, one in inputs.items()}


async def _checked(server: Any, graph: Graph) -> list[str]:
    """The ids of the nodes whose outputs are wanted, once other packs had their say on the graph, as from the page."""
    asked = as_from_the_page(server, graph, CLIENT)
    graph.clear()
    graph.update(asked)
    _, error, outputs, by_node = await execution.validate_prompt(str(uuid.uuid4()), graph, None)
    if problems := problems_of(graph, error, by_node, schema=inputs_of, known=nodes.NODE_CLASS_MAPPINGS):
        raise RefusedError(*problems)
    return outputs


def _event_files() -> EventFiles:
    try:
        return EventFiles()
    except ImportError as error:
        raise RefusedError(f"--tensorboard: tensorboard cannot be loaded ({error}). Install it anew.") from error


async def _executed(
    server: Any, prompt: tuple[Graph, list[str], Any], terminal: Terminal, interrupts: Interrupts
) -> dict[str, Any] | None:
    """What ComfyUI's history keeps of the graph once it has ended; None where a node ended the queue's thread."""
    graph, outputs, shown = prompt
    sending = asyncio.create_task(server.publish_loop())
    worker = next((one for one in threading.enumerate() if "prompt_worker" in one.name), None)
    name = str(uuid.uuid4())
    extra = {"client_id": CLIENT, "create_time": int(time.time() * 1000)}
    if shown is not None:
        extra["extra_pnginfo"] = {"workflow": shown}
    server.prompt_queue.put((0, name, graph, extra, outputs, {}))
    while not (found := server.prompt_queue.get_history(prompt_id=name)):
        if sending.done():
            sending.result()
        if worker is not None and not worker.is_alive():
            return None
        # ComfyUI forgets an interrupt from before the start.
        if terminal.started and interrupts.take():
            comfy.model_management.interrupt_current_processing()
            terminal.say(_STOPPING)
        await asyncio.sleep(_POLL_SECONDS)
    while not server.messages.empty():
        await asyncio.sleep(0)
    sending.cancel()
    await asyncio.sleep(_REST_SECONDS)
    return found[name]


@contextlib.contextmanager
def _heard(server: Any, terminal: Terminal, output: Output) -> Iterator[None]:
    """The terminal is among ComfyUI's clients, and hears the pack's log."""
    told = PackLog(server, lines=output.lines)
    pack = logging.getLogger(_PACKAGE)
    level = pack.level
    server.sockets[CLIENT] = terminal
    pack.addHandler(told)
    pack.setLevel(logging.INFO)
    try:
        yield
    finally:
        pack.setLevel(level)
        pack.removeHandler(told)
        server.sockets.pop(CLIENT, None)


@contextlib.contextmanager
def _tidy_log(output: Output) -> Iterator[None]:
    """What the terminal tells itself is not told by ComfyUI's log beside it, and log lines do not break the bar."""

    def wanted(record: logging.LogRecord) -> bool:
        told_here = record.name.startswith(_PACKAGE)
        told_here |= record.module == "execution" and record.levelno >= logging.ERROR
        if not told_here:
            output.make_room()
        return not told_here

    console = [one for one in logging.getLogger().handlers if type(one) is logging.StreamHandler]
    for handler in console:
        handler.addFilter(wanted)
    try:
        yield
    finally:
        for handler in console:
            handler.removeFilter(wanted)


def _tell_previews(outputs: dict[str, Any], graph: Graph, terminal: Terminal) -> None:
    """Without a page nobody sees pictures that are kept nowhere."""

    def temporary(entries: Any) -> bool:
        listed = entries if isinstance(entries, list) else []
        return any(isinstance(one, dict) and one.get("type") == "temp" for one in listed)

    shown = [node for node, told in outputs.items() if node in graph and any(map(temporary, told.values()))]
    if shown:
        names = ", ".join(titled(graph, node) for node in shown)
        terminal.say(f"Drawn and not kept: {names}. Save Image in its place keeps pictures.")


def _ended(status: dict[str, Any], graph: Graph, terminal: Terminal, output: Output) -> int:
    events = dict(status["messages"])
    if (error := events.get("execution_error")) is not None:
        terminal.fail(error)
        return output.end("failed", f"{titled(graph, error['node_id'])} failed")
    if "execution_interrupted" in events:
        at = f"at step {terminal.step}; the same command goes on from there"
        return output.end("stopped", at if terminal.step else "before the first step")
    return output.end("finished")
