"""Measures of frames and the fills without a model: hand-made numbers, and the definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rdtf.evaluate.filling import simple_fills
from rdtf.evaluate.frames import (
    alpha_error,
    check_given,
    cleanliness,
    colour_distance,
    flicker,
    frame_scores,
    half_transparent,
    is_frozen,
    loop_seam,
    motion_energy,
    psnr,
    ssim,
)
from rdtf.model.time_axis import known_neighbours


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def grey(*levels: int, alpha: int = 255) -> np.ndarray:
    """A clip of plain 12 px frames."""
    clip = np.full((len(levels), 12, 12, 4), alpha, np.uint8)
    clip[..., :3] = np.array(levels, np.uint8)[:, None, None, None]
    return clip


def disc(*centres: tuple[float, float], size: int = 48) -> np.ndarray:
    """A soft-edged blue disc with a light spot, at each of the places ``(x, y)``."""
    y, x = np.mgrid[:size, :size]
    clip = np.zeros((len(centres), size, size, 4), np.uint8)
    for frame, (cx, cy) in zip(clip, centres, strict=True):
        away = np.hypot(x - cx, y - cy)
        spot = np.clip(6 - np.hypot(x - cx + 3, y - cy + 3), 0, 1)[..., None]
        frame[..., 3] = np.rint(255 * np.clip(11 - away, 0, 1))
        frame[..., :3] = np.rint(np.array([30, 60, 200]) * (1 - spot) + 230 * spot)
    return clip


def ssim_written_out(a: np.ndarray, b: np.ndarray) -> float:
    window = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    weights = np.outer(window, window) / window.sum() ** 2
    values = []
    for row in range(5, a.shape[0] - 5):
        for column in range(5, a.shape[1] - 5):
            x, y = (p[row - 5 : row + 6, column - 5 : column + 6].astype(float) for p in (a, b))
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            cov = (weights * (x - mx) * (y - my)).sum()
            c1, c2 = 2.55**2, 7.65**2
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))


def test_ssim_is_its_definition() -> None:
    a, b = noise(2, 14, 17, 1), noise(2, 14, 17, 1, seed=1)
    b[0] = a[0] // 2 + 40
    found = ssim(a, b)
    assert found == pytest.approx([ssim_written_out(a[i, ..., 0], b[i, ..., 0]) for i in range(2)], rel=1e-6)
    assert ssim(a, a) == pytest.approx([1, 1]) and found[0] > found[1]


def test_ssim_of_plain_pictures_is_the_luminance_term() -> None:
    a, b = np.full((1, 12, 12, 3), 100, np.uint8), np.full((1, 12, 12, 3), 150, np.uint8)
    assert ssim(a, b)[0] == pytest.approx((2 * 100 * 150 + 2.55**2) / (100**2 + 150**2 + 2.55**2))
    with pytest.raises(ValueError, match="11 px"):
        ssim(a[:, :10], b[:, :10])


def test_psnr_of_a_known_error() -> None:
    a = np.zeros((2, 3), np.uint8)
    assert psnr(a, a + 16) == pytest.approx(20 * np.log10(255 / 16)) and psnr(a, a) == 99.0


def test_alpha_error_counts_alpha_alone() -> None:
    a, b = grey(10, alpha=255), grey(200, alpha=204)
    assert alpha_error(a, b) == pytest.approx(0.2)


def test_what_lies_under_full_transparency_is_no_error() -> None:
    truth, made = disc((20, 20), (24, 24)), disc((20, 20), (24, 24))
    made[..., :3] = np.where(made[..., 3:] == 0, 77, made[..., :3])
    scores = frame_scores(made, truth, np.array([True, False]))
    errors = {name: value for name, value in scores.items() if "psnr" not in name and "ssim" not in name}
    assert set(errors.values()) == {0.0}
    assert {value for name, value in scores.items() if "psnr" in name} == {99.0}
    check_given(made, truth, np.array([True, True]))


def test_scores_are_of_unknown_frames_and_each_ground_sees_its_errors() -> None:
    truth = grey(255, 255, 255)
    known = np.array([True, False, True])
    made = grey(0, 255, 0)
    assert frame_scores(made, truth, known)["psnr_white"] == 99
    gone = truth.copy()
    gone[1] = 0  # white on white
    scores = frame_scores(gone, truth, known)
    assert scores["psnr_white"] == 99 and scores["psnr_black"] == 0 and scores["alpha_error"] == 1
    assert set(scores) == {
        "psnr_white",
        "psnr_black",
        "ssim_white",
        "ssim_black",
        "alpha_error",
        "cleanliness",
        "flicker",
    }


def test_changed_given_frames_are_an_error() -> None:
    truth, known = grey(1, 2, 3), np.array([True, False, True])
    check_given(grey(1, 9, 3), truth, known)
    with pytest.raises(ValueError, match=r"\[2\] came back changed"):
        check_given(grey(1, 2, 4), truth, known)


@pytest.mark.parametrize("loop", [False, True])
def test_fills_agree_with_the_networks_view_of_known_neighbours(loop: bool) -> None:
    clip = noise(7, 3, 3, 4)
    clip[..., 3] = 255
    for marks in ("1000000", "0100100", "1010101", "0011100", "1111111"):
        known = np.array([mark == "1" for mark in marks])
        bools = torch.from_numpy(known)[None]
        blend = known_neighbours(bools, torch.ones_like(bools), torch.tensor([loop])).blend[0].double().numpy()
        expected = np.rint(np.einsum("ij,j...->i...", blend, clip.astype(float)))
        assert np.abs(simple_fills(clip, known, loop)["crossfade"] - expected).max() <= 1


def test_motion_by_hand() -> None:
    clip = grey(0, 51, 102, 51)
    assert motion_energy(clip) == pytest.approx(0.75 * 0.2) and not is_frozen(clip)
    assert loop_seam(clip) == pytest.approx(1.0)
    assert loop_seam(grey(0, 51, 102, 153)) == pytest.approx(3.0)
    assert loop_seam(grey(0, 51, 0)) == 0
    still = grey(9, 9, 9)
    assert is_frozen(still) and np.isnan(loop_seam(still))
    with pytest.raises(ValueError, match="2 frames"):
        motion_energy(grey(1))


def test_cleanliness_is_the_distance_to_the_given_colours_above_the_true_clips() -> None:
    given = grey(0, 200)
    truth = grey(200, 203)  # one new colour, 3 levels away
    assert colour_distance(truth, given) == pytest.approx(1.5 * 3**0.5)
    assert cleanliness(truth, truth, given) == 0
    assert cleanliness(given, truth, given) == pytest.approx(-1.5 * 3**0.5)
    assert cleanliness(grey(100, 100), truth, given) == pytest.approx(98.5 * 3**0.5)  # a crossfade's colour
    faint = grey(100)
    faint[..., 3] = 249
    assert np.isnan(colour_distance(faint, given))


def test_half_transparent_pixels_are_counted() -> None:
    frames = grey(50)
    frames[0, 0, :, 3] = 128
    assert half_transparent(frames) == pytest.approx(1 / frames.shape[1])
    frames[0, 0, :, 3] = 20
    assert half_transparent(frames) == 0


def test_flicker_looks_where_the_true_clip_stands_still() -> None:
    truth = np.full((3, 2, 2, 4), 255, np.uint8)
    truth[:, 0, 0, :3] = np.array([0, 100, 200])[:, None]  # moves
    truth[:, 1, 1] = 0  # shows nothing
    made = truth.copy()
    made[1, 0, 0], made[1, 1, 1] = 9, 255
    assert flicker(made, truth) == 0
    made[1, 0, 1, :3] = 155  # one of the two still places is off by 100 in three channels of four, for a frame
    assert flicker(made, truth) == pytest.approx(100 * 0.75 / 2)
    assert flicker(made, truth, np.array([True, False])) == pytest.approx(100 * 0.75 / 2)
    truth[:, :, :, :3] = np.array([0, 100, 200])[:, None, None, None]
    assert np.isnan(flicker(made, truth))
