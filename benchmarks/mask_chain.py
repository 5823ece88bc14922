"""Pictures a second through the chain of mask transforms: `python dev.py run benchmarks/mask_chain.py [pictures]`.

Invert, binarize, fill holes, min area 64, grow 8, feather 8 on masks of 1 Mpx with noise and holes, made one by
one; decoding and making are not counted. Processor time of one thread. Memory: the peak above the start of the
first tenth of the pictures and of all of them; flat means that the two are alike. Writes mask_chain.json.
"""

import json
import platform
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.memory import peak_above_start
from masklora.loss.masks import transform_mask
from masklora.settings import MaskTransform

SIDE = 1024
PICTURES = 500
CHAIN = MaskTransform(invert=True, binarize=True, fill_holes=True, min_area=64, grow=8, feather=8)
RESULT = Path(__file__).with_suffix(".json")


def noisy_mask(seed):
    """An ellipse, grey, black on white, with a hole and one speck in a hundred pixels: (1024, 1024) float32."""
    random = np.random.default_rng(seed)
    mask = np.full((SIDE, SIDE), 0.95, np.float32)
    centre, axes = random.integers(300, 724, 2).tolist(), random.integers(120, 400, 2).tolist()
    cv2.ellipse(mask, centre, axes, float(random.uniform(0, 180)), 0, 360, 0.05, -1)
    cv2.circle(mask, centre, 40, 0.95, -1)
    specks = random.random((SIDE, SIDE), dtype=np.float32) < 0.01
    mask[specks] = 1 - mask[specks]
    return mask


def measure(pictures):
    """Processor seconds of each picture's chain."""
    seconds = []
    for seed in range(pictures):
        mask = noisy_mask(seed)
        start = time.process_time()
        out = transform_mask(mask, CHAIN)
        seconds.append(time.process_time() - start)
        assert out.shape == mask.shape and 0 < out.mean() < 1
    return seconds


def run(pictures):
    """All figures of a run as a JSON-ready dict."""
    cv2.setNumThreads(1)
    measure(3)
    seconds = []
    early = peak_above_start(lambda: measure(max(1, pictures // 10)))
    whole = peak_above_start(lambda: seconds.extend(measure(pictures)))
    return {
        "pictures": pictures,
        "megapixels": SIDE * SIDE / 1e6,
        "pictures per second and core": pictures / sum(seconds),
        "slowest seconds": max(seconds),
        "peak megabytes, first tenth": None if early is None else early / 1e6,
        "peak megabytes, all": None if whole is None else whole / 1e6,
        "machine": f"{platform.machine()}, OpenCV {cv2.__version__}",
    }


def main():
    """Measure, print and store."""
    found = run(int(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
