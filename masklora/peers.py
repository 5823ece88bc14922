"""Processes that train one LoRA together, each with the model on a card of its own; usually there is only one.

Each computes its share of a step's micro-batches. Their gradients, and the numbers to report, are then added up in one
message, so that all take the same step. The first process alone is asked by people, writes files and tells; before
each step's message all meet, and there it gives the others its word: go on, wait, or end.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from . import pulse
from .errors import MaskLoraError, RunError
from .pulse import Pulse
from .torchrun import MEETING, Place, place

# Of several words that are given in a meeting the largest counts.
GO, WAIT, STOP, ENDED, FAILED = range(5)
_REASON_BYTES = 2048
# While the first one draws pictures or measures, the others wait for it; one that has died is noticed at once, and one
# that hangs by its pulse. This is for what neither tells: a machine that is lost, or a card's own messages.
_PATIENCE = datetime.timedelta(hours=12)


class PeerError(MaskLoraError):
    """Another process of the training failed, or is not there any more."""


class LostPeerError(PeerError):
    """Another process of the training is not there any more."""


class Peers:
    """This process alone; what it would do together with others, it has then done.

    Attributes:
        number: which process this is, from 0.
        count: how many there are.
        local: the same two among those of this machine.
        messages: how many messages with tensors were exchanged.
        sent_bytes: how large these were.
        lost: why another one is known not to be there any more; empty while that is not known.
    """

    def __init__(self, number: int = 0, count: int = 1, local: tuple[int, int] = (0, 1)) -> None:
        """Process `number` of `count`."""
        self.number, self.count, self.local = number, count, local
        self.messages = self.sent_bytes = 0
        self.lost = ""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes, and is asked."""
        return self.number == 0

    def meet(self, word: int = GO, has: Sequence[bool] = (), *, reason: str = "") -> tuple[int, list[bool]]:
        """The word that counts, once all are here, and which of `has` any has.

        Args:
            word: GO, WAIT, STOP, ENDED, or FAILED.
            has: as many truth values in every process.
            reason: why it failed.

        Raises:
            PeerError: another one failed, or ended.
            LostPeerError: another one is not there any more.
        """
        return word, list(has)

    def agree(self, what: str, text: str) -> None:
        """Nothing if `text`, which stands for `what`, is the same in all.

        Raises:
            PeerError: it is not; or as `meet`.
        """

    def add_up(self, flat: Tensor) -> Tensor:
        """The sum of all processes' tensors, each of shape (n,), in place."""
        return flat

    def mirror(self, folder: Path, files: Sequence[Path]) -> None:
        """Write the first process's `files` into the others' `folder`, at the same places below it.

        Args:
            folder: of this process; an absent or empty one in all but the first.
            files: below the first one's folder; not looked at in the others.

        Raises:
            RunError: one cannot be read or written here.
            PeerError: as `meet`.
        """

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While this lasts, the others wait for this process only as long as it does something: see `move`."""
        yield

    def move(self) -> None:
        """Something was done. Whatever takes long says so in between; see `pulse`."""

    def fail(self, error: BaseException) -> None:
        """Tell the others, who wait in a meeting or will come to one, that this one ends by an error."""

    def end(self, code: int, reason: str = "") -> int:
        """The exit code of the first one, once all have ended; this one's where they cannot be asked any more.

        Args:
            code: of this one.
            reason: why this one failed, by itself.
        """
        return code


class Group(Peers):
    """Several processes, over `torch.distributed`."""

    def __init__(self, own: Place, device: torch.device) -> None:
        """Join those that torchrun has started with this one; `device` is the one that computes here."""
        super().__init__(own.number, own.count, (own.local, own.there))
        # Windows has no NCCL.
        over_cards = device.type == "cuda" and dist.is_nccl_available()
        store = _store(own)
        self._pulse = Pulse(dist.PrefixStore("pulse", store), own.number, own.count)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if over_cards else "gloo",
            timeout=_PATIENCE,
            store=dist.PrefixStore("group", store),
            rank=own.number,
            world_size=own.count,
        )
        self._over_cards = over_cards
        # A message has not arrived, and none can be sent any more.
        self._stuck = False

    def meet(self, word: int = GO, has: Sequence[bool] = (), *, reason: str = "") -> tuple[int, list[bool]]:
        """See `Peers.meet`. What is exchanged lies in main memory: no card is waited for."""
        words = self._words(word)
        while word == GO and max(words) == WAIT:
            words = self._words(word)
        heard = max(words)
        if heard == FAILED:
            self._raise_failure(reason, own=word == FAILED)
        elif heard == ENDED and min(words) != ENDED:
            raise PeerError("Another process of this training has ended before this one. Look at what it has said.")
        elif heard == GO and has:
            # By itself: one that fails or ends does not know how much the others have to say.
            said = torch.tensor(has, dtype=torch.uint8)
            self._all_reduce(said, dist.ReduceOp.MAX)
            return heard, said.bool().tolist()
        return heard, list(has)

    def agree(self, what: str, text: str) -> None:
        """See `Peers.agree`."""
        self.meet()
        for number, other in enumerate(self._gathered(text)):
            if other != text:
                raise PeerError(
                    f"Process {number} has another {what} than process {self.number}. Give all the same graph, the "
                    "same pictures and masks, and the same versions of ComfyUI and this pack."
                )

    def add_up(self, flat: Tensor) -> Tensor:
        """See `Peers.add_up`."""
        held = flat if self._over_cards else flat.cpu()
        self._all_reduce(held, dist.ReduceOp.SUM)
        return flat if held is flat else flat.copy_(held)

    def mirror(self, folder: Path, files: Sequence[Path]) -> None:
        """See `Peers.mirror`."""
        listed = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files] if self.first else []
        self.meet()
        failed: OSError | None = None
        for name, size in json.loads(self._from_first(json.dumps(listed).encode())):
            content = bytes(size)
            try:
                if self.first:
                    content = _whole(folder / name, size)
            except OSError as error:
                failed = error
            content = self._from_first(content, size)
            try:
                if not self.first:
                    _write(folder / name, content)
            except OSError as error:
                failed = error
        # Only now: the others are in the midst of the same messages.
        if failed:
            raise RunError(f"The checkpoint could not be given to all processes: {failed}.") from failed

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """See `Peers.watched`."""
        with self._pulse.watched():
            yield

    def move(self) -> None:
        """See `Peers.move`."""
        self._pulse.move()

    def fail(self, error: BaseException) -> None:
        """See `Peers.fail`."""
        if isinstance(error, PeerError):
            return
        # An interrupt is no failure: the others stop as if the first one had been asked to.
        word = FAILED if isinstance(error, Exception) or not self.first else STOP
        with contextlib.suppress(PeerError):
            self.meet(word, reason=str(error) or type(error).__name__)

    def end(self, code: int, reason: str = "") -> int:
        """See `Peers.end`."""
        if reason:
            with contextlib.suppress(PeerError):
                self.meet(FAILED, reason=reason)
        while True:
            try:
                self.meet(ENDED)
                told = torch.tensor([code if self.first else 0])
                self._all_reduce(told, dist.ReduceOp.SUM)
                return int(told)
            except LostPeerError:
                return code
            except PeerError:
                # That one is still at work, or has just told why it ends, and comes here too.
                continue

    def leave(self) -> None:
        """Be alone again."""
        # It would wait for the message that did not arrive.
        if not self._stuck:
            dist.destroy_process_group()

    def _words(self, word: int) -> list[int]:
        said = torch.zeros(self.count, dtype=torch.uint8)
        said[self.number] = word
        self._all_reduce(said, dist.ReduceOp.MAX)
        return said.tolist()

    def _raise_failure(self, reason: str, *, own: bool) -> None:
        reasons = self._gathered(reason)
        if not own:
            number = next(number for number, text in enumerate(reasons) if text)
            raise PeerError(f"Process {number} of this training failed: {reasons[number]}")

    def _gathered(self, text: str) -> list[str]:
        """The texts of all, each cut off at `_REASON_BYTES`."""
        rows = torch.zeros(self.count, _REASON_BYTES, dtype=torch.uint8)
        content = text.encode("utf-8", "replace")[:_REASON_BYTES]
        rows[self.number, : len(content)] = torch.tensor(list(content), dtype=torch.uint8)
        self._all_reduce(rows, dist.ReduceOp.MAX)
        return [bytes(row.tolist()).rstrip(b"\0").decode("utf-8", "ignore") for row in rows]

    def _from_first(self, content: bytes, size: int = -1) -> bytes:
        if size < 0:
            told = torch.tensor([len(content)])
            self._exchange(lambda: dist.broadcast(told, 0, async_op=True), told)
            size = int(told)
        if not size:
            return b""
        held = torch.frombuffer(bytearray(content) if self.first else bytearray(size), dtype=torch.uint8)
        self._exchange(lambda: dist.broadcast(held, 0, async_op=True), held)
        return bytes(held.numpy())

    def _all_reduce(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
        self._exchange(lambda: dist.all_reduce(tensor, operation, async_op=True), tensor)

    def _exchange(self, message: Callable[[], Any], tensor: Tensor) -> None:
        self.messages += 1
        self.sent_bytes += tensor.numel() * tensor.element_size()
        self._pulse.move()
        if self._stuck:
            raise LostPeerError(self.lost)
        try:
            sent = message()
            if tensor.device.type == "cpu":
                self._await(sent)
            else:
                sent.wait()
        except RuntimeError as error:
            self.lost = (
                "Another process of this training is not there any more; it may have been killed, or its machine lost. "
                f"Start the same command again, with any number of processes, to go on. ({_first_line(error)})"
            )
            raise LostPeerError(self.lost) from error

    def _await(self, sent: Any) -> None:
        """Wait for a message to arrive, as long as those are at work whom it needs."""
        seen: dict[int, tuple[int, int]] = {}
        while True:
            try:
                sent.wait(datetime.timedelta(seconds=pulse.LOOK_SECONDS))
                return
            except RuntimeError:
                if sent.is_completed():
                    # It failed, or has arrived meanwhile.
                    sent.wait()
                    return
            self._pulse.move()
            if (silent := self._pulse.silent(seen)) is not None:
                self._give_up(silent)

    def _give_up(self, silent: int) -> None:
        minutes = round(pulse.LOOK_SECONDS * pulse.MOST_LOOKS / 60)
        self._stuck = True
        self.lost = (
            f"Process {silent} of this training has done nothing for {minutes} minutes, and the others waited for it. "
            "Its card or a drive may not answer any more. End what is left of it, and start the same command again, "
            "with any number of processes, to go on."
        )
        # A thread of the message that did not arrive would keep this process from ending.
        atexit.register(_end_at_once)
        raise LostPeerError(self.lost)


def _store(own: Place) -> dist.Store:
    """By which the processes find each other: a file where one is named, else as torchrun says."""
    if meeting := os.environ.get(MEETING):
        return dist.FileStore(meeting, own.count)
    found = next(dist.rendezvous("env://", own.number, own.count, timeout=_PATIENCE))[0]
    found.set_timeout(_PATIENCE)
    return found


def _end_at_once() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)


def exchanged(params: Mapping[str, nn.Parameter], rows: Tensor, peers: Peers) -> Tensor:
    """Add up the gradients of all processes, in place; the rows of all their micro-batches, in the order of these.

    One message carries both. A parameter that has no gradient in any process stays without one.

    Args:
        params: the same in all processes.
        rows: the numbers of this process's micro-batches, (M, n); every `count`-th of the step's from `number` on.
        peers: the processes.

    Returns:
        (M · count, n).

    Raises:
        PeerError: as `Peers.meet`.
        StopAskedError: the first process stops before this step.
    """
    if peers.count == 1:
        return rows
    each = [one for one in params.values() if one.requires_grad]
    table = rows.new_zeros(len(rows) * peers.count, rows.shape[1])
    table[peers.number :: peers.count] = rows
    # Made before all meet: who lacks the memory for it can still say so.
    grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in each]
    flat = torch.cat([*(grad.flatten().to(rows) for grad in grads), table.flatten()])
    word, has = peers.meet(GO, [one.grad is not None for one in each])
    if word == STOP:
        raise StopAskedError
    peers.add_up(flat)
    start = 0
    for one, any_has in zip(each, has, strict=True):
        # A text encoder may be trained elsewhere than the model.
        one.grad = flat[start : start + one.numel()].view_as(one).to(one) if any_has else None
        start += one.numel()
    return flat[start:].view_as(table)


class StopAskedError(Exception):
    """The first process has stopped; nothing of the step in progress counts."""


_ALONE = Peers()
_here: list[Peers] = []


def here() -> Peers:
    """The processes that this one works with."""
    return _here[-1] if _here else _ALONE


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Peers]:
    """While this lasts, this process works with those that torchrun has started with it, if it has."""
    own = place()
    if own is None:
        yield _ALONE
        return
    if not dist.is_available():
        raise PeerError("This torch was built without torch.distributed; start one process, without torchrun.")
    # Where it is imported while there is a group, as optimizers do, it keeps that: threads of it outlive Python, which
    # then may abort at the end of a training that went well.
    importlib.import_module("torch._dynamo")
    group = Group(own, device)
    _here.append(group)
    try:
        yield group
    finally:
        _here.pop()
        group.leave()


def _whole(path: Path, size: int) -> bytes:
    content = path.read_bytes()
    if len(content) != size:
        raise OSError(f"{path} has changed meanwhile")
    return content


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
