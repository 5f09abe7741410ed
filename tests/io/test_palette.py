from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdtf.io.palette import Colours
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker


def waves(frames: int, size: int, noise: int = 0) -> np.ndarray:
    """``(n, size, size, 3)`` of smooth colours that move, with noise."""
    y, x = np.mgrid[:size, :size] / size
    clips = [[np.sin(6 * x + 0.3 * n + 2 * y), np.cos(5 * y + 0.2 * n), 2 * x * y - 1] for n in range(frames)]
    shown = 127.5 + 127.5 * np.moveaxis(np.array(clips), 1, -1)
    return (shown + np.random.default_rng(0).integers(-noise, noise + 1, shown.shape)).clip(0, 255).astype(np.uint8)


def flat(size: int) -> np.ndarray:
    """Large areas of one colour, with soft edges between them."""
    tiles = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), np.uint8)
    return np.stack([np.array(Image.fromarray(tile).resize((size, size), Image.Resampling.HAMMING)) for tile in tiles])


def db(difference: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(difference.astype(float)).mean()))


def opaque(colours: np.ndarray) -> np.ndarray:
    return np.concatenate([colours, np.full((*colours.shape[:-1], 1), 255, np.uint8)], -1)


@pytest.mark.parametrize("pixels", [waves(4, 48), waves(4, 48, 12), flat(48)], ids=["waves", "noise", "flat"])
@pytest.mark.parametrize(("size", "slack"), [(16, 0.5), (255, 0.3)])
def test_palettes_are_as_good_as_median_cut_over_all_pixels(pixels: np.ndarray, size: int, slack: float):
    indices, palette = Colours(opaque(pixels)).reduced(size)
    assert len(palette) <= size and (palette[:, 3] == 255).all()
    ours = db(palette[indices][..., :3] - pixels.astype(float))
    pixels = pixels.reshape(-1, 3)
    other = Image.fromarray(pixels[None]).quantize(size, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    theirs = np.array(other.convert("RGB"))[0]
    assert ours > db(theirs - pixels.astype(float)) - slack


def test_the_nearest_colour_is_the_nearest():
    pixels = opaque(np.random.default_rng(2).integers(0, 256, (1, 20, 25, 3), np.uint8))
    indices, palette = Colours(pixels).reduced(20)
    distance = np.square(pixels.reshape(-1, 1, 4).astype(int) - palette).sum(-1)
    np.testing.assert_array_equal(distance[np.arange(500), indices.reshape(-1)], distance.min(1))


def test_a_large_gif_takes_seconds_and_is_the_same_each_time(tmp_path: Path):
    frames = np.dstack([waves(16, 256, 12).reshape(-1, 256, 3), np.full((16 * 256, 256), 255, np.uint8)])
    sticker = Sticker.at_fps(frames.reshape(16, 256, 256, 4))
    began = time.process_time()
    save_sticker(sticker, tmp_path / "a.gif")
    assert time.process_time() - began < 4  # a fifth of that on a processor that has nothing else to do
    save_sticker(sticker, tmp_path / "b.gif")
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
