from __future__ import annotations

import numpy as np
import pytest

from rdtf.data.augment import FIRST_AUGMENTED, Augmentation


def disc(colour: tuple[int, int, int], centre: tuple[int, int] = (16, 16), radius: int = 8) -> np.ndarray:
    y, x = np.mgrid[:32, :32]
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    frame = np.zeros((1, 32, 32, 4), np.uint8)
    frame[0, inside] = (*colour, 255)
    return frame


STILL = {"angle": 0.0, "scale": 1.0, "shift": (0.0, 0.0), "hue": 0.0, "mirror": False}


def test_no_change_changes_nothing() -> None:
    frames = disc((200, 30, 60))
    assert np.array_equal(Augmentation(**STILL).apply(frames), frames)


def test_shift_moves_right_and_down() -> None:
    moved = Augmentation(**{**STILL, "shift": (4 / 32, 2 / 32)}).apply(disc((200, 30, 60)))
    assert np.abs(moved.astype(int) - disc((200, 30, 60), (18, 20))).max() <= 2


def test_scale_shrinks_the_covered_area() -> None:
    small = Augmentation(**{**STILL, "scale": 0.5}).apply(disc((200, 30, 60)))
    assert small[..., 3].sum() == pytest.approx(disc((200, 30, 60))[..., 3].sum() / 4, rel=0.1)


def test_hue_turns_red_to_green_and_keeps_alpha() -> None:
    frames = disc((255, 0, 0))
    green = Augmentation(**{**STILL, "hue": 1 / 3}).apply(frames)
    assert np.array_equal(green[..., 3], frames[..., 3])
    r, g, b, _ = green[0, 16, 16].astype(int)
    assert g > 240 and r < 12 and b < 12


def test_mirror_is_left_right() -> None:
    mirrored = Augmentation(**{**STILL, "mirror": True}).apply(disc((9, 9, 200), (16, 10)))
    assert np.array_equal(mirrored, disc((9, 9, 200), (16, 21)))


def test_soft_edges_keep_their_colour() -> None:
    turned = Augmentation(**{**STILL, "angle": 10.0}).apply(disc((255, 0, 0)))
    soft = turned[(turned[..., 3] > 40) & (turned[..., 3] < 255)]
    assert len(soft) and (soft[:, 0] > 230).all()


def test_draw_is_a_pure_function_and_variants_differ() -> None:
    first = Augmentation.draw("a", FIRST_AUGMENTED, mirror=True)
    assert first == Augmentation.draw("a", FIRST_AUGMENTED, mirror=True)
    assert first != Augmentation.draw("a", FIRST_AUGMENTED + 1, mirror=True)
    assert first != Augmentation.draw("b", FIRST_AUGMENTED, mirror=True)


def test_forbidden_mirror_is_never_drawn() -> None:
    assert not any(Augmentation.draw("a", variant, mirror=False).mirror for variant in range(50))
    assert any(Augmentation.draw("a", variant, mirror=True).mirror for variant in range(50))
