"""What needs no model: cross-fade and nearest known frame."""

from __future__ import annotations

import numpy as np

from rdtf.evaluate.filling import simple_fills


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
