from __future__ import annotations

import numpy as np
import pytest

from rdtf.sheets import BACKGROUNDS, GAP, LABEL_WIDTH, OUTLINE, PAPER, checkerboard, contact_sheet, preview_grid
from rdtf.sticker import Sticker


def plain(n: int, h: int = 10, w: int = 10) -> np.ndarray:
    """Opaque frames whose red is their number times ten."""
    frames = np.full((n, h, w, 4), 255, np.uint8)
    frames[..., 0] = np.arange(n, dtype=np.uint8)[:, None, None] * 10
    return frames


def centre(sheet: np.ndarray, row: int, column: int, *, left: int = GAP, cell: int = 10) -> np.ndarray:
    return sheet[GAP + row * (cell + GAP) + cell // 2, left + column * (cell + GAP) + cell // 2]


def test_frames_are_chosen_evenly_and_missing_ones_left_blank() -> None:
    sheet = np.array(contact_sheet([plain(9), Sticker.at_fps(plain(2))], frames=3, background="light"))
    assert [centre(sheet, 0, column)[0] for column in range(3)] == [0, 40, 80]
    assert [centre(sheet, 1, column)[0] for column in range(2)] == [0, 10]
    assert tuple(centre(sheet, 1, 2)) == PAPER


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_transparent_parts_show_the_background(background: str) -> None:
    empty = np.zeros((1, 16, 16, 4), np.uint8)
    sheet = np.array(contact_sheet([empty], frames=1, background=background))
    cell = sheet[GAP : GAP + 16, GAP : GAP + 16]
    assert np.array_equal(cell, checkerboard(16, 16, background=background))
    assert {tuple(colour) for colour in cell.reshape(-1, 3).tolist()} == set(BACKGROUNDS[background])


def test_given_frames_are_outlined_without_covering_a_pixel() -> None:
    plainly = np.array(contact_sheet([plain(3), plain(3)]))
    outlined = np.array(contact_sheet([plain(3), plain(3)], outlined=[[0, 2], []]))
    changed = (plainly != outlined).any(-1)
    assert (outlined[changed] == OUTLINE).all()
    middle = GAP + 5
    assert changed[middle].nonzero()[0].tolist() == [1, 2, 3, 14, 15, 16, 29, 30, 31, 42, 43, 44]
    assert not changed[2 * GAP + 10 :].any()


def test_sizes_may_differ() -> None:
    sheet = np.array(contact_sheet([plain(1, 10, 10), plain(1, 4, 4)], frames=1, background="dark"))
    small = sheet[GAP + 10 + GAP :][:10, GAP : GAP + 10]
    assert (small[3:7, 3:7] == [0, 255, 255]).all()
    assert (small[:3] == BACKGROUNDS["dark"][0]).all()


@pytest.mark.parametrize("label", ["", "a cat", "猫 🐈 \u200d", "long " * 200, "x" * 500, "two\nlines"])
def test_labels_stay_in_their_column(label: str) -> None:
    rows = [plain(1, 30, 30), plain(1, 30, 30)]
    with_label = np.array(contact_sheet(rows, labels=[label, ""], frames=1))
    without = np.array(contact_sheet(rows, labels=["", ""], frames=1))
    changed = (with_label != without).any(-1)
    assert not changed[:, GAP + LABEL_WIDTH + 2 :].any()
    assert not changed[GAP + 30 + GAP :].any()
    assert changed.any() == bool(label)


def test_contact_sheet_refuses_what_does_not_fit_together() -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
    with pytest.raises(ValueError, match="labels"):
        contact_sheet([plain(1)], labels=["a", "b"])
    with pytest.raises(ValueError, match="outlined"):
        contact_sheet([plain(1)], outlined=[])
    with pytest.raises(ValueError, match="light, dark, checker"):
        contact_sheet([plain(1)], background="pink")


def test_preview_grid_plays_all_and_repeats_the_shorter() -> None:
    long = Sticker(plain(3), np.array([100.0, 200.0, 100.0]))
    grid = preview_grid([long, Sticker.at_fps(plain(2, 6, 6)), Sticker.at_fps(plain(1))], columns=2)
    assert grid.size == (2 * 10 + GAP, 2 * 10 + GAP) and grid.durations.tolist() == [100, 200, 100]
    assert grid.frames[:, 5, 5, 0].tolist() == [0, 10, 20]
    assert grid.frames[:, 5, 19, 0].tolist() == [0, 10, 0]
    assert np.array_equal(grid.frames[:, 10 + GAP :, :10], plain(1).repeat(3, 0))
    assert grid.frames[:, 10 + GAP :, 10 + GAP :].max() == 0
    with pytest.raises(ValueError, match="at least one"):
        preview_grid([], columns=2)
