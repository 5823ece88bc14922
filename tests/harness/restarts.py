"""ComfyUIs that end and start anew in one base folder."""

import os
import shutil
import signal

# Seconds that ComfyUI may take to end by a signal that it hears, on a machine that has nothing else to do.
LIMIT = 8.0


def limit():
    """The same on this machine now: as much longer as its processors have more to do than they can."""
    return LIMIT * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Restarts:
    """ComfyUIs, one after the other, with one base folder and the models of the shared one."""

    def __init__(self, shared, base):
        self.shared, self.base, self.server = shared, base, None
        shutil.copytree(shared.base / "input" / "train demo", base / "input" / "train demo")

    def up(self):
        """The one that runs, or a new one."""
        from devtools.comfy import ComfyServer

        if self.server is None or not self.server.running:
            self.server = ComfyServer(self.shared.host, self.base, models=self.shared.base / "models")
            self.server.start()
        return self.server

    def forget(self):
        """As if nothing had been done here yet."""
        for folder in ("user/masked_lora", "output/loras"):
            shutil.rmtree(self.base / folder, ignore_errors=True)
        # ComfyUI refuses a graph while a folder of LoRAs that it has listed is away.
        (self.base / "output" / "loras").mkdir(parents=True, exist_ok=True)
        if self.server is not None and self.server.running:
            self.server.post("/free", {"unload_models": True, "free_memory": True})
            # Between two graphs at the latest ComfyUI forgets what its nodes gave out.
            self.server.run(
                {
                    "1": {"class_type": "PrimitiveInt", "inputs": {"value": 1}},
                    "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
                }
            )

    def stop(self):
        if self.server is not None:
            self.server.stop()


def ended_in_order(server, number):
    """Whether a process has ended as it would have without us, with no thread that was in the way."""
    said = server.log_tail()
    if number is signal.SIGINT and "ComfyUI ends; writing a checkpoint" in said:
        # The queue's last line comes before the server's: nobody writes while Python takes its threads down.
        return server.process.returncode == 0 and 0 <= said.rfind("Prompt executed") < said.rfind("Stopped server")
    # After Ctrl-C ComfyUI ends by itself, and now and then Python aborts while it takes its threads down.
    endings = (0, -signal.SIGABRT) if number is signal.SIGINT else (-number,)
    return server.process.returncode in endings and "could not acquire lock" not in said
