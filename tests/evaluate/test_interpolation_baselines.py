"""What needs no model: cross-fade, nearest known frame and optical flow."""

from __future__ import annotations

import numpy as np
import pytest

from rdtf.evaluate.filling import HAS_OPENCV, flow_fill, simple_fills
from rdtf.evaluate.frames import check_given, psnr
from rdtf.pixels import premultiply
from tests.evaluate.test_frames import disc

needs_opencv = pytest.mark.skipif(not HAS_OPENCV, reason="needs OpenCV")


def fading(count: int) -> np.ndarray:
    """Opaque frames whose grey level is 10 x the frame's number."""
    clip = np.full((count, 4, 4, 4), 255, np.uint8)
    clip[..., :3] = (10 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    return clip


def test_crossfade_of_a_linear_fade_is_exact() -> None:
    clip = fading(7)
    known = np.array([1, 0, 0, 1, 0, 0, 1], bool)
    assert np.array_equal(simple_fills(clip, known)["crossfade"], clip)


def test_nearest_repeats_the_nearest_known_frame() -> None:
    clip = fading(5)
    levels = simple_fills(clip, np.array([1, 0, 0, 0, 1], bool))["nearest"][:, 0, 0, 0]
    assert levels[[0, 1, 3, 4]].tolist() == [0, 0, 40, 40]
    assert levels[2] in (0, 40)


def test_extension_repeats_the_last_known_frame() -> None:
    clip = fading(4)
    for fill in simple_fills(clip, np.array([1, 1, 0, 0], bool)).values():
        assert fill[:, 0, 0, 0].tolist() == [0, 10, 10, 10]


def test_a_loop_fades_back_to_its_start() -> None:
    levels = simple_fills(fading(4), np.array([1, 0, 1, 0], bool), loop=True)["crossfade"][:, 0, 0, 0]
    assert levels.tolist() == [0, 10, 20, 10]


def test_crossfade_is_of_premultiplied_colour() -> None:
    clip = np.zeros((3, 1, 1, 4), np.uint8)
    clip[0] = (255, 0, 0, 255)  # and frame 2 is empty: its colour must not darken the middle
    assert simple_fills(clip, np.array([1, 0, 1], bool))["crossfade"][1, 0, 0].tolist() == [255, 0, 0, 128]


@needs_opencv
def test_flow_follows_a_disc_that_a_crossfade_doubles() -> None:
    clip = disc((18, 20), (20.5, 21), (23, 22), (25.5, 23), (28, 24))
    known = np.array([1, 0, 0, 0, 1], bool)
    flow, fade = flow_fill(clip, known), simple_fills(clip, known)["crossfade"]
    check_given(flow, clip, known)
    for i in (1, 2, 3):
        better = psnr(premultiply(flow[i]), premultiply(clip[i])) - psnr(premultiply(fade[i]), premultiply(clip[i]))
        assert better > 3
        # The middle of what is shown lies where the disc is.
        alpha = flow[i, ..., 3].astype(float)
        at = [(alpha.sum(axis) * np.arange(48)).sum() / alpha.sum() for axis in (0, 1)]
        assert at == pytest.approx([18 + 2.5 * i, 20 + i], abs=0.7)


@needs_opencv
def test_flow_repeats_the_nearest_frame_beyond_the_known_ones_and_leaves_stillness_alone() -> None:
    clip = disc((18, 20), (22, 20), (26, 20), (30, 20))
    known = np.array([0, 1, 1, 0], bool)
    filled = flow_fill(clip, known)
    assert np.array_equal(premultiply(filled), premultiply(clip[[1, 1, 2, 2]]))
    turn = disc((18, 20), (22, 20), (26, 20), (22, 20))
    closed = flow_fill(turn, np.array([1, 0, 1, 0], bool), loop=True)
    assert np.abs(premultiply(closed).astype(int) - premultiply(turn)).mean() < 0.5
    assert np.array_equal(premultiply(flow_fill(turn, known[[3, 1, 2, 0]])[3]), premultiply(turn[2]))
    still = disc(*[(20, 20)] * 3)
    middle = flow_fill(still, np.array([1, 0, 1], bool))[1]
    assert np.abs(premultiply(middle).astype(int) - premultiply(still[1])).max() <= 1
