"""The model in the package: whole, small, and the same stickers as on the day it was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from rdtf import hub
from rdtf.loading import load_pipeline
from rdtf.pipeline import StickerPipeline
from rdtf.world import draw_sticker

EXPECTED = Path(__file__).parent / "frozen" / "shipped.npz"
CALLS = {
    "text": {"prompt": "rainbow, noto style", "num_frames": 1},
    "animate": {"prompt": "", "frames": {0: draw_sticker(3, 0, size=128).frames[0]}, "num_frames": 3},
    "in-between": {
        "prompt": "",
        "frames": {0: draw_sticker(3, 0, size=128).frames[0], 2: draw_sticker(3, 0, size=128).frames[-1]},
        "num_frames": 3,
        "output_size": 192,
    },
}


@pytest.fixture(scope="module")
def shipped() -> StickerPipeline:
    return load_pipeline(hub.SHIPPED)


def made(shipped: StickerPipeline) -> dict[str, np.ndarray]:
    return {name: shipped(**call, num_inference_steps=4, seed=7).stickers[0].frames for name, call in CALLS.items()}


def test_its_files_are_few_and_in_half_precision():
    files = [path for path in hub.SHIPPED_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 64 << 20
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) == 4 and {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".png", ".webp"}
    for path in weights:
        with safe_open(path, "np") as tensors:
            assert {tensors.get_slice(key).get_dtype() for key in tensors.keys()} == {"F16"}  # noqa: SIM118


def test_it_makes_the_same_stickers(shipped: StickerPipeline):
    with np.load(EXPECTED) as expected:
        for name, frames in made(shipped).items():
            away = np.abs(frames.astype(int) - expected[name].astype(int))
            assert away.mean() < 1, name


def test_it_draws_what_it_says_it_knows(shipped: StickerPipeline):
    assert shipped.known is not None and shipped.known.fit("rainbow").caption == "rainbow, noto style"
    assert shipped.known.fit("a rainbow over the sea").caption == "rainbow, noto style"
    rainbow = made(shipped)["text"][0].astype(float)
    colours = rainbow[rainbow[..., 3] > 200][:, :3]
    assert len(colours) > 1000
    red = (colours[:, 0] > colours[:, 2] + 60).mean()
    blue = (colours[:, 2] > colours[:, 0] + 60).mean()
    assert min(red, blue) > 0.1
