"""What the parity tests share: one micro-batch with unlike masks, and reductions written as independent lines."""

import dataclasses

import numpy as np
import torch

CELL = 8
GRID = (9, 12)


@dataclasses.dataclass
class Case:
    """One micro-batch: what a trainer sees just before it computes its loss."""

    pixels: torch.Tensor
    pred: torch.Tensor
    target: torch.Tensor
    base: torch.Tensor
    omega: torch.Tensor
    multiplier: torch.Tensor


def make_case(batch):
    """A soft blob, a tiny hard mask and a nearly white one, or the first alone."""
    g = torch.Generator().manual_seed(batch)
    height, width = GRID[0] * CELL, GRID[1] * CELL
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    blob = torch.exp(-((y - 30) ** 2 + (x - 50) ** 2) / 500.0)
    tiny = ((y - 20).abs() + (x - 33).abs() < 9).float()
    white = 1 - 0.9 * ((y > 50) & (x < 20)).float() * torch.rand(height, width, generator=g)
    pixels = (torch.stack([blob, tiny, white])[:batch, None] * 255).round() / 255
    shape = (batch, 4, *GRID)
    return Case(
        pixels=pixels,
        pred=torch.randn(shape, generator=g),
        target=torch.randn(shape, generator=g),
        base=torch.randn(shape, generator=g),
        omega=torch.tensor([0.7, 1.9, 0.2])[:batch],
        multiplier=torch.tensor([1.3, 0.5, 2.0])[:batch],
    )


def block_mean(pixels):
    """The mean of every latent cell, as torch's area interpolation gives for whole cells."""
    return pixels.unfold(2, CELL, CELL).unfold(3, CELL, CELL).mean(dim=(-1, -2))


def triangle_filter(pixels):
    """Antialiased bilinear shrinking: a triangle two cells wide around each cell's centre."""

    def matrix(size):
        centre = (np.arange(size // CELL)[:, None] + 0.5) * CELL
        weight = np.clip(1 - np.abs(np.arange(size)[None] + 0.5 - centre) / CELL, 0, None)
        return torch.from_numpy(weight / weight.sum(1, keepdims=True))

    return matrix(pixels.shape[2]) @ pixels @ matrix(pixels.shape[3]).T


def cubic_taps(pixels):
    """Bicubic shrinking as torch does it: the four pixels about each cell's centre, a = −0.75, no antialiasing."""

    def matrix(size):
        out = np.zeros((size // CELL, size))
        for cell in range(size // CELL):
            for offset, weight in ((-2, -3 / 32), (-1, 19 / 32), (0, 19 / 32), (1, -3 / 32)):
                out[cell, cell * CELL + CELL // 2 + offset] = weight
        return torch.from_numpy(out)

    return matrix(pixels.shape[2]) @ pixels @ matrix(pixels.shape[3]).T


def blissful_weights(pixels, gamma, floor, blur, threshold):
    """The mask as blissful-tuner reads it, and the weight that it gives to what is learned."""
    raw = block_mean(pixels)
    mask = raw
    if blur:
        position = torch.arange(blur, dtype=torch.float64) - (blur - 1) / 2
        sigma = 0.3 * ((blur - 1) * 0.5 - 1) + 0.8
        kernel = torch.exp(-(position**2) / (2 * sigma**2))
        kernel = kernel / kernel.sum()
        padded = torch.nn.functional.pad(raw, [blur // 2] * 4, mode="replicate")
        mask = torch.nn.functional.conv2d(padded, (kernel[:, None] * kernel[None])[None, None]).clamp(0, 1)
    mask = mask**gamma * (1 - floor) + floor
    return raw, mask if threshold is None else mask * (1 - (raw < threshold).double())


def scaled_mean(loss, omega, c):
    """Mean over a sample, times ω and c, then mean over the batch: how most trainers end."""
    return (loss.mean(dim=(1, 2, 3)) * c * omega).mean()
