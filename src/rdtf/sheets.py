"""Pictures of many stickers at once: contact sheets for people to judge by, animated grids for previews."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rdtf.pixels import Background, composite
from rdtf.sticker import Sticker

BACKGROUNDS: dict[str, tuple[Background, Background]] = {
    "light": ((255, 255, 255), (255, 255, 255)),
    "dark": ((24, 26, 32), (24, 26, 32)),
    "checker": ((255, 255, 255), (208, 208, 208)),
}
"""The two colours of the checkerboard that stickers are shown on; equal ones make it plain."""

PAPER = (255, 255, 255)
INK = (40, 40, 40)
OUTLINE = (230, 60, 120)
GAP = 4  # pixels between cells; the outline of a given frame is drawn in it
LABEL_WIDTH = 140
FONT_SIZE = 11
CHARACTERS = 24  # of a line, about


def checkerboard(h: int, w: int, *, background: str = "checker", square: int = 8) -> np.ndarray:
    """A picture of :data:`BACKGROUNDS` ``[background]``: ``(h, w, 3)`` uint8, in squares of ``square`` pixels.

    Raises:
        ValueError: unknown background.
    """
    if background not in BACKGROUNDS:
        raise ValueError(f"unknown background {background!r}; use one of {', '.join(BACKGROUNDS)}")
    odd = (np.arange(h)[:, None] // square + np.arange(w) // square) % 2
    return np.array(BACKGROUNDS[background], np.uint8)[odd]


def contact_sheet(
    rows: Sequence[Sticker | np.ndarray],
    *,
    labels: Sequence[str] | None = None,
    frames: int = 8,
    background: str = "checker",
    outlined: Sequence[Collection[int]] | None = None,
) -> Image.Image:
    """One sticker a row, its frames in columns, its label at the left.

    Args:
        rows: stickers, or their straight ``(n, h, w, 4)`` uint8 frames. Sizes may differ.
        labels: a text for each row; wrapped, and cut where it does not fit.
        frames: columns. Of a longer sticker evenly spaced frames are shown, the first and the last among them;
            a shorter one leaves the rest of its row blank.
        background: a key of :data:`BACKGROUNDS`.
        outlined: for each row the indices of the frames to outline (the ones a model was given).

    Returns:
        An RGB picture.

    Raises:
        ValueError: no rows, unknown background, labels or outlines for another number of rows.
    """
    if not len(rows):
        raise ValueError("a contact sheet needs at least one sticker")
    for name, given in (("labels", labels), ("outlined", outlined)):
        if given is not None and len(given) != len(rows):
            raise ValueError(f"{name} must have one entry for each of the {len(rows)} rows, got {len(given)}")
    clips = [row.frames if isinstance(row, Sticker) else row for row in rows]
    cell_h, cell_w = max(clip.shape[1] for clip in clips), max(clip.shape[2] for clip in clips)
    left = LABEL_WIDTH + 2 * GAP if labels is not None else GAP
    sheet = Image.new("RGB", (left + frames * (cell_w + GAP), GAP + len(clips) * (cell_h + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    ground = checkerboard(cell_h, cell_w, background=background)
    for row, clip in enumerate(clips):
        top = GAP + row * (cell_h + GAP)
        if labels is not None:
            sheet.paste(_label(labels[row], cell_h), (GAP, top))
        for column, index in enumerate(evenly(len(clip), frames)):
            cell = ground.copy()
            frame = clip[index]
            y, x = (cell_h - frame.shape[0]) // 2, (cell_w - frame.shape[1]) // 2
            inside = cell[y : y + frame.shape[0], x : x + frame.shape[1]]
            inside[:] = composite(frame, inside)
            corner = left + column * (cell_w + GAP)
            sheet.paste(Image.fromarray(cell), (corner, top))
            if outlined is not None and index in outlined[row]:
                border = GAP - 1
                box = (corner - border, top - border, corner + cell_w + border - 1, top + cell_h + border - 1)
                draw.rectangle(box, outline=OUTLINE, width=border)
    return sheet


def preview_grid(stickers: Sequence[Sticker], columns: int) -> Sticker:
    """Several stickers side by side, as one animated sticker with the frames' times of the longest of them.

    Frames are shown one after the other; shorter stickers start again.

    Raises:
        ValueError: no stickers, or fewer than one column.
    """
    if not len(stickers) or columns < 1:
        raise ValueError("a preview grid needs at least one sticker and one column")
    cell_h, cell_w = max(sticker.size[0] for sticker in stickers), max(sticker.size[1] for sticker in stickers)
    longest = max(stickers, key=len)
    columns = min(columns, len(stickers))
    height = math.ceil(len(stickers) / columns) * (cell_h + GAP) - GAP
    out = np.zeros((len(longest), height, columns * (cell_w + GAP) - GAP, 4), np.uint8)
    for place, sticker in enumerate(stickers):
        row, column = divmod(place, columns)
        top = row * (cell_h + GAP) + (cell_h - sticker.size[0]) // 2
        left = column * (cell_w + GAP) + (cell_w - sticker.size[1]) // 2
        shown = sticker.frames[np.arange(len(longest)) % len(sticker)]
        out[:, top : top + sticker.size[0], left : left + sticker.size[1]] = shown
    return Sticker(out, longest.durations)


def grid_cells(grid: Sticker, size: int, columns: int, count: int) -> list[Sticker]:
    """The first ``count`` stickers of a :func:`preview_grid` of ``size`` x ``size`` pixels, as long as the grid.

    What lies beyond the grid is transparent.
    """
    cells = []
    for row, column in (divmod(number, columns) for number in range(count)):
        top, left = row * (size + GAP), column * (size + GAP)
        part = grid.frames[:, top : top + size, left : left + size]
        if not part.size:
            part = np.zeros((len(grid), size, size, 4), np.uint8)
        cells.append(Sticker(part, grid.durations))
    return cells


def evenly(count: int, wanted: int) -> list[int]:
    """``wanted`` evenly spaced indices of ``count`` items with the first and the last, or all if there are fewer."""
    if count <= wanted:
        return list(range(count))
    return [round(index) for index in np.linspace(0, count - 1, wanted).tolist()]


def _label(text: str, height: int) -> Image.Image:
    """A picture of ``text`` as wide as the column of labels, wrapped, and cut where it does not fit."""
    font = ImageFont.load_default(FONT_SIZE)
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow without FreeType has a Latin-1 bitmap font only
        text = text.encode("latin-1", "replace").decode("latin-1")
    lines = textwrap.wrap(text, CHARACTERS, max_lines=max(1, height // (FONT_SIZE + 3)), placeholder=" ...")
    label = Image.new("RGB", (LABEL_WIDTH, height), PAPER)
    draw = ImageDraw.Draw(label)
    for number, line in enumerate(lines):
        draw.text((0, number * (FONT_SIZE + 3)), line, INK, font)
    return label
