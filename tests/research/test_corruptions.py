from __future__ import annotations

import numpy as np
import pytest

from rdtf.research.corruptions import DAMAGES, blur, freeze, mosaic, noise, shuffle, veil, warp
from rdtf.world import compose


@pytest.fixture
def clip() -> np.ndarray:
    """Eight different frames of 32 px."""
    drawn = compose(np.random.default_rng(0), body="cat", colour="red", action="grow", frames=8, size=32)
    return drawn.frames


def numbered(count: int) -> np.ndarray:
    """Opaque frames whose grey level is the frame's number."""
    frames = np.full((count, 2, 2, 4), 255, np.uint8)
    frames[..., :3] = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return frames


@pytest.mark.parametrize("kind", DAMAGES)
def test_level_0_is_the_clip_and_higher_levels_are_farther_from_it(kind: str, clip: np.ndarray):
    def distance(level: float) -> float:
        out = DAMAGES[kind](clip, level, np.random.default_rng(0))
        assert out.shape == clip.shape
        assert out.dtype == np.uint8
        return float(np.abs(out[..., 3].astype(float) - clip[..., 3]).mean())

    given = clip.copy()
    levels = [distance(level) for level in (0.0, 0.3, 1.0)]
    assert np.array_equal(clip, given)
    assert levels[0] < 0.01  # but for rounding
    assert levels[0] < levels[1] < levels[2]


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_single_frame_is_a_clip_too(kind: str, clip: np.ndarray):
    assert DAMAGES[kind](clip[:1], 1.0, np.random.default_rng(0)).shape == clip[:1].shape


def test_shuffle_moves_just_that_share_of_frames():
    for level, moved in ((0.25, 2), (0.5, 4), (1.0, 8)):
        out = shuffle(numbered(8), level, np.random.default_rng(1))[:, 0, 0, 0]
        assert (out != np.arange(8)).sum() == moved
        assert sorted(out) == list(range(8))


def test_freeze_holds_just_that_share_of_frames():
    for level, kinds in ((0.0, 9), (0.5, 5), (1.0, 1)):
        out = freeze(numbered(9), level, np.random.default_rng(1))[:, 0, 0, 0]
        assert len(set(out)) == kinds
        assert out[0] == 0
        assert (np.diff(out) >= 0).all()


def test_blur_spreads_an_opaque_dot_and_keeps_its_sum():
    dot = np.zeros((1, 33, 33, 4), np.uint8)
    dot[0, 15:18, 15:18] = (200, 0, 0, 255)
    out = blur(dot, 0.4, np.random.default_rng(0))
    assert out[0, 16, 16, 3] < 255
    assert out[0, 16, 13, 3] > 0
    assert abs(int(out[0, 16, 14, 0]) - 200) < 8  # colour is not darkened by the empty pixels around
    assert int(out[..., 3].sum()) == pytest.approx(9 * 255, rel=0.05)


def test_noise_has_the_deviation_it_says():
    grey = np.full((4, 32, 32, 4), (128, 128, 128, 255), np.uint8)
    out = noise(grey, 0.2, np.random.default_rng(0)).astype(float)
    assert out[..., 0].std() == pytest.approx(255 * 0.06, rel=0.15)
    assert (out[0] != out[1]).mean() > 0.5


def test_warp_moves_edges_and_not_the_inside():
    square = np.zeros((2, 40, 40, 4), np.uint8)
    square[:, 8:32, 8:32] = 255
    out = warp(square, 0.5, np.random.default_rng(0))
    assert (out[:, 18:22, 18:22] == 255).all()
    assert (out != square).any()
    assert (out[0] != out[1]).any()


def test_mosaic_has_blocks_of_one_colour(clip: np.ndarray):
    blocks = mosaic(clip, 1.0, np.random.default_rng(0)).reshape(8, 8, 4, 8, 4, 4)
    assert (blocks == blocks[:, :, :1, :, :1]).all()


def test_veil_shows_in_empty_and_in_solid_pixels():
    pixels = np.array([[[[0, 0, 0, 0], [255, 255, 255, 255]]]], np.uint8)
    out = veil(pixels, 1.0, np.random.default_rng(0))[0, 0]
    assert out[:, 3].tolist() == [64, 191]  # a quarter, and three quarters
