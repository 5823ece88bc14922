"""A small denoiser and cache that train like the real ones: captions, masks, buckets, variants; no ComfyUI."""

import contextlib
from dataclasses import dataclass, replace

import torch
from torch import nn

from masklora.cache.captions import Caption
from masklora.cache.plan import Variant
from masklora.loss.noise import Schedule
from masklora.runs.run import Run
from masklora.settings import LossSettings, OptimizerSettings, TrainSettings
from masklora.training.job import Hooks, TrainJob
from masklora.training.trainer import train
from masklora.viewing.training_sample import false_colours

CHANNELS, HIDDEN, RANK, CAPTION = 4, 12, 3, 5
GRIDS = {(64, 64): (8, 8), (96, 48): (6, 12)}


TRIGGERED = Caption("x", "x", "plain x", "plain x")


@dataclass(frozen=True)
class ToyEntry:
    name: str
    bucket: tuple = (64, 64)
    latent_frames: int = 0
    reference_sizes: tuple[tuple[int, int], ...] = ()
    empty_key: str = ""
    weight: float = 1.0
    multiplier: float = 1.0
    regularisation: bool = False
    caption_dropout: float = 0.25
    variants: tuple = (Variant("upright", None, "a", "a"), Variant("flipped", None, "b", "b"))
    captions: tuple = (TRIGGERED, Caption("y", "y"))
    picture: str = ""
    has_mask: bool = True


def with_infills(entry, *keys):
    """The entry with replaced backgrounds, the same for all its variants."""
    return replace(entry, variants=tuple(replace(variant, infills=keys) for variant in entry.variants))


class ToyCache:
    """Random but repeatable latents, half masks and caption vectors; counts what was read."""

    def __init__(self, entries):
        self.entries = entries
        self.mask_reads = 0

    def latent(self, entry, variant, infill=-1):
        height, width = GRIDS[entry.bucket]
        return torch.randn(CHANNELS, height, width, generator=seeded(entry.name, variant + 100 * (infill + 1)))

    def mask(self, entry, variant):
        self.mask_reads += 1
        width, height = entry.bucket
        mask = torch.zeros(1, height, width)
        mask[..., : width // 2 + 3] = 1.0
        return mask

    def text(self, key):
        return {"cond": torch.randn(CAPTION, generator=seeded(key, 7)), "name": key}

    def untouched(self):
        return self

    def empty_text(self):
        return {"cond": torch.zeros(CAPTION), "name": ""}


def seeded(text, number):
    return torch.Generator().manual_seed(sum(ord(c) * 31**i for i, c in enumerate(text)) % 10**9 + number)


class ToyNet(nn.Module):
    """Two frozen layers, low-rank additions to both, a caption vector and the noise level mixed in; a `Trainable`."""

    def __init__(self, schedule=None):
        super().__init__()
        g = torch.Generator().manual_seed(3)

        def weight(*shape, scale=0.3):
            return torch.randn(*shape, generator=g) * scale

        self.first, self.second = weight(HIDDEN, CHANNELS), weight(CHANNELS, HIDDEN)
        self.caption, self.level = weight(HIDDEN, CAPTION), weight(HIDDEN, 1)
        shapes = {"first": (HIDDEN, CHANNELS), "second": (CHANNELS, HIDDEN)}
        self.params = {}
        for name, (out, into) in shapes.items():
            self.params[f"{name}.lora_A.weight"] = nn.Parameter(weight(RANK, into))
            self.params[f"{name}.lora_B.weight"] = nn.Parameter(torch.zeros(out, RANK))
        self.dropout = nn.Dropout(0.1)
        self.bare = False
        self.schedule = schedule or Schedule("flow")
        self.device, self.tokens, self.grad_scaling = torch.device("cpu"), None, False
        self.inpaints = False
        self.preview = false_colours

    def grid_of(self, bucket):
        return GRIDS[bucket]

    def latent_in(self, latent):
        return latent

    def collate(self, texts, geometries, shape, *, keys):
        return torch.stack([text["cond"] for text in texts])

    def with_references(self, conditioning, references):
        return conditioning + sum(latents.mean() for latents in references)

    def with_cut_outs(self, conditioning, cut_outs, masks):
        return conditioning + (cut_outs * masks.mean()).mean()

    def with_first_frames(self, conditioning, starts):
        return conditioning

    def denoise(self, noisy, u, conditioning, **planned):
        return self(noisy, u, conditioning, **planned)

    def autograd_scope(self):
        return contextlib.nullcontext()

    def set_training(self, on):
        self.train(on)

    @contextlib.contextmanager
    def without_adapter(self):
        self.bare = True
        try:
            yield
        finally:
            self.bare = False

    def layer(self, name, x):
        base = getattr(self, name) @ x
        if self.bare:
            return base
        p = self.params
        return base + p[f"{name}.lora_B.weight"] @ (p[f"{name}.lora_A.weight"] @ self.dropout(x))

    def forward(self, noisy, u, conditioning):
        flat = noisy.flatten(2)
        hidden = self.layer("first", flat)
        hidden = hidden + (conditioning @ self.caption.T + u[:, None] @ self.level.T)[:, :, None]
        return self.layer("second", torch.tanh(hidden)).view_as(noisy)


def toy_entries(count=6):
    buckets = list(GRIDS)
    return [ToyEntry(f"picture {i}.png", bucket=buckets[i % 2]) for i in range(count)]


def toy_job(*, entries=None, loss=None, optim=None, net=None, **train_settings):
    """A job on a fresh copy of the same toy: 10 steps, batch 2, a checkpoint at the end; no prior, no leak."""
    settings = TrainSettings(steps=10, batch_size=2, save_every=0, seed=11, leak_every=-1)
    return TrainJob(
        net or ToyNet(),
        ToyCache(entries or toy_entries()),
        loss=loss or LossSettings(prior_weight=0.0),
        optim=optim or OptimizerSettings(learning_rate=1e-2),
        train=replace(settings, **train_settings),
    )


class Recorder(Hooks):
    """Keeps what it is told; can stop or raise at the start of a given step."""

    def __init__(self, *, stop_at=None, raise_at=None, error=KeyboardInterrupt):
        self.stop_at, self.raise_at, self.error = stop_at, raise_at, error
        self.started = 0
        self.reports, self.validations, self.checkpoints, self.messages = [], [], [], []
        self.last_step = 0

    def check_cancel(self):
        if self.raise_at is not None and self.last_step == self.raise_at:
            raise self.error("as asked")

    def should_stop(self):
        return self.stop_at is not None and self.last_step == self.stop_at

    def after_step(self, step):
        self.last_step = step

    def on_step(self, report):
        self.reports.append(report)

    def on_validation(self, step, loss):
        self.validations.append((step, loss))

    def on_checkpoint(self, step, folder):
        self.checkpoints.append(step)

    def on_message(self, text):
        self.messages.append(text)


def open_run(folder, fingerprint="f" * 64):
    return Run.open(folder, "toy", fingerprint, settings={})


def train_toy(folder, job, hooks=None):
    with open_run(folder) as run:
        return train(job, run=run, hooks=hooks)


def same(one, other):
    """Whether two dicts of tensors agree bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
