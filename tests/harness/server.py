"""A client that listens to a real ComfyUI's events while it runs a graph."""

import time
import uuid
from dataclasses import dataclass, field

from devtools.events import EventStream

END_OF_RUN = ("execution_success", "execution_error", "execution_interrupted")


@dataclass
class Run:
    """What one graph did: its outputs by node id, every event, and how it ended."""

    prompt_id: str
    record: dict
    events: list = field(default_factory=list)

    @property
    def outputs(self):
        return self.record["outputs"]

    @property
    def succeeded(self):
        return self.record["status"]["status_str"] == "success"

    @property
    def ending(self):
        """`execution_success`, `execution_error` or `execution_interrupted`."""
        return next(kind for kind, _ in reversed(self.record["status"]["messages"]) if kind in END_OF_RUN)

    @property
    def error(self):
        """The failing node's message, or None."""
        for kind, data in self.record["status"]["messages"]:
            if kind == "execution_error":
                return data["exception_message"].strip()
        return None

    def of_kind(self, kind):
        return [data for name, data in self.events if name == kind]


class ComfyClient:
    """Runs graphs in API form on a `ComfyServer` and collects the websocket's events."""

    def __init__(self, server):
        self.server = server
        self.client_id = uuid.uuid4().hex
        self._stream = EventStream(server.port, self.client_id)
        self.events = self._stream.events

    def close(self):
        self._stream.close()

    def submit(self, prompt):
        """Queues a graph; a refused one raises `ComfyError` with ComfyUI's reasons."""
        return self.server.submit(prompt, client_id=self.client_id)

    def run(self, prompt, *, timeout=300, check=True):
        """Queues a graph and waits for its end; with `check`, a failure raises with the node's message."""
        return self.finish(self.submit(prompt), timeout=timeout, check=check)

    def refusal(self, prompt):
        """Queues a graph in which a node is expected to fail: its message."""
        run = self.run(prompt, check=False)
        assert run.ending == "execution_error", run.outputs
        return run.error

    def finish(self, prompt_id, *, timeout=300, check=True):
        record = self.server.wait(prompt_id, timeout=timeout, every=0.1, check=check)
        run = Run(prompt_id, record, self.events)
        # The record may be readable a moment before the last event has arrived.
        self.wait_for(lambda kind, data: kind in END_OF_RUN and data["prompt_id"] == prompt_id, timeout=10)
        return run

    def wait_for(self, condition, *, timeout=60):
        """The first event, past ones included, for which `condition(kind, data)` holds."""
        deadline = time.monotonic() + timeout
        seen = 0
        while time.monotonic() < deadline:
            while seen < len(self.events):
                kind, data = self.events[seen]
                seen += 1
                if condition(kind, data):
                    return data
            time.sleep(0.02)
        kinds = sorted({kind for kind, _ in self.events})
        raise AssertionError(f"no such event within {timeout} s; kinds seen: {kinds}")

    def interrupt(self):
        self.server.interrupt()
