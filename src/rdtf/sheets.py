"""Pictures of many stickers at once: contact sheets for people to judge by, animated grids for previews."""

from __future__ import annotations

import math
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
    scale: int = 1,
    background: str = "checker",
    outlined: Sequence[Collection[int]] | None = None,
) -> Image.Image:
    """One sticker a row, its frames in columns, its label at the left.

    Args:
        rows: stickers, or their straight ``(n, h, w, 4)`` uint8 frames. Sizes may differ.
        labels: a text for each row; wrapped, and cut where it does not fit.
        frames: columns. Of a longer sticker evenly spaced frames are shown, the first and the last among them;
            a shorter one leaves the rest of its row blank.
        scale: whole-number enlargement, pixels repeated.
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
    cell_h = max(clip.shape[1] for clip in clips) * scale
    cell_w = max(clip.shape[2] for clip in clips) * scale
    left = LABEL_WIDTH + 2 * GAP if labels is not None else GAP
    sheet = Image.new("RGB", (left + frames * (cell_w + GAP), GAP + len(clips) * (cell_h + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    ground = checkerboard(cell_h, cell_w, background=background)
    for row, clip in enumerate(clips):
        top = GAP + row * (cell_h + GAP)
        if labels is not None:
            _write_label(draw, labels[row], (GAP, top), (LABEL_WIDTH, cell_h))
        for column, index in enumerate(evenly(len(clip), frames)):
            cell = ground.copy()
            frame = clip[index].repeat(scale, 0).repeat(scale, 1)
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
    """Several stickers playing side by side, as one animated sticker as long as the longest of them.

    Shorter ones start again until then. A new frame begins whenever one of them changes; changes less than 10 ms
    apart fall together.

    Raises:
        ValueError: no stickers, or fewer than one column.
    """
    if not len(stickers) or columns < 1:
        raise ValueError("a preview grid needs at least one sticker and one column")
    cell_h = max(sticker.size[0] for sticker in stickers)
    cell_w = max(sticker.size[1] for sticker in stickers)
    lengths = [float(sticker.durations.sum()) for sticker in stickers]
    total = max(lengths)
    starts = [np.cumsum(sticker.durations) - sticker.durations for sticker in stickers]
    changes = np.unique(
        np.concatenate(
            [(np.arange(math.ceil(total / n))[:, None] * n + s).ravel() for s, n in zip(starts, lengths, strict=True)]
        )
    )
    tolerance = 10.0
    times = [0.0]
    for change in changes[changes < total - tolerance]:
        if change >= times[-1] + tolerance:
            times.append(float(change))
    columns = min(columns, len(stickers))
    height = math.ceil(len(stickers) / columns) * (cell_h + GAP) - GAP
    out = np.zeros((len(times), height, columns * (cell_w + GAP) - GAP, 4), np.uint8)
    for place, (sticker, start, length) in enumerate(zip(stickers, starts, lengths, strict=True)):
        row, column = divmod(place, columns)
        top = row * (cell_h + GAP) + (cell_h - sticker.size[0]) // 2
        left = column * (cell_w + GAP) + (cell_w - sticker.size[1]) // 2
        # Just before the tolerance ends: changes that fell together with an earlier one have happened by then.
        now = (np.array(times) + tolerance - 1e-3) % length
        shown = sticker.frames[np.searchsorted(start, now, side="right") - 1]
        out[:, top : top + sticker.size[0], left : left + sticker.size[1]] = shown
    return Sticker(out, np.diff(np.append(times, total)))


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


def _write_label(draw: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], room: tuple[int, int]) -> None:
    """Write ``text`` into the box at ``corner``, wrapped at spaces or, where there are none, anywhere."""
    font = ImageFont.load_default(FONT_SIZE)
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow without FreeType has a Latin-1 bitmap font only
        text = text.encode("latin-1", "replace").decode("latin-1")
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= room[0]:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if font.getlength(lines[-1] + character) > room[0]:
                lines.append("")
            lines[-1] += character
    fitting = max(1, room[1] // (FONT_SIZE + 3))
    if len(lines) > fitting:
        lines = [*lines[: fitting - 1], lines[fitting - 1][:-3] + "..."]
    for number, line in enumerate(lines):
        draw.text((corner[0], corner[1] + number * (FONT_SIZE + 3)), line, INK, font)
