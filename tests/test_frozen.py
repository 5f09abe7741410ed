"""A pipeline that an early version saved, with diffusers' base classes: it loads for ever, and makes the same stickers.

Its network has random weights. ``expected.npz`` was made when it was saved; processors round in other ways, hence the
tolerance.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rdtf.loading import load_pipeline
from rdtf.provenance import fingerprint

FOLDER = Path(__file__).parent / "frozen" / "format1"


def made() -> dict[str, np.ndarray]:
    pipe = load_pipeline(FOLDER)
    assert pipe.dtype == torch.float32  # it is saved in half precision
    frame = np.full((16, 16, 4), (200, 40, 90, 255), np.uint8)
    calls = {
        "text": {"prompt": "a red cat", "num_frames": 3},
        "animate": {"prompt": "", "frames": {0: frame}, "num_frames": 4},
        "in-between": {"prompt": "a dog", "frames": {0: frame, 3: 255 - frame // 2}, "num_frames": 4, "loop": True},
    }
    return {name: pipe(**call, seed=7).stickers[0].frames for name, call in calls.items()}


def test_it_makes_the_same_stickers():
    with np.load(FOLDER / "expected.npz") as expected:
        for name, frames in made().items():
            away = np.abs(frames.astype(int) - expected[name].astype(int))
            assert away.max() <= 8 and away.mean() < 0.1, name


def test_its_fingerprint_stays():
    """Notes in stickers name it; a new setting of a network belongs into ``provenance._LATER_DEFAULTS``."""
    assert fingerprint(load_pipeline(FOLDER)).startswith("6f366bcb94582f67")
