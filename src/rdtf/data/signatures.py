"""What a sticker looks like over time, in a few bytes, and how alike two of them are.

The signature of a sticker is a perceptual hash over time and alpha: small pictures of four parts of its time, taken
within a square that moves and grows with what is drawn, so that margins, sizes, codecs and frame rates drop
out. Two stickers are near-duplicates if their signatures differ little on the whole and nowhere much: the faces of
two clocks are alike but for the hands. Or if they do so when one of them begins at another point of its loop, is
played backwards, or is mirrored.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from rdtf.pixels import premultiply

WINDOWS, GRID = 4, 16
SIGNATURE_BYTES = WINDOWS * GRID * GRID * 4

MAX_DIFFERENCE = 0.045
"""Root mean square difference up to which two signatures (0..1) are alike."""
MAX_LOCAL_DIFFERENCE = 0.16
"""The same for the worst cell of the grid, over time and channels."""

_SPREAD = 1.1  # the square's side: of a filled square drawing, a little more than its own
_SAME = 1.0  # mean difference, of 255, of frames that show the same
_STARTS = 8  # where a loop may begin, in each window
_FINE = 8  # parts of a window, for its weights
_ROUNDING = 1e-3  # of a root mean square that was worked out by way of sums of squares


class Likeness(IntEnum):
    """How one of two near-duplicates comes of the other."""

    COPY = 0
    BEGUN_LATER = 1
    BACKWARDS = 2
    MIRRORED = 3
    MIRRORED_BACKWARDS = 4

    @property
    def shows_the_same(self) -> bool:
        """Whether it shows the same thing: a hand that points to the left is none that points to the right."""
        return self <= Likeness.BEGUN_LATER

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


def signature(frames: np.ndarray, durations: np.ndarray) -> tuple[bytes, float]:
    """What a sticker looks like over time, for :func:`compare`.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha; the colour under alpha 0 does not count.
        durations: ``(n,)`` of the frames, in any unit.

    Returns:
        :data:`SIGNATURE_BYTES` bytes, premultiplied RGBA of ``(windows, rows, columns, channels)``, and the side of
        the square they were taken from in parts of the canvas height.
    """
    pixels = premultiply(frames).astype(np.float32)
    starts = _changes(pixels)
    ends = np.append(0, np.cumsum(durations))
    pixels = pixels[starts]
    count, height, width, _ = pixels.shape
    weights = _over_time(ends[np.append(starts, -1)] / ends[-1]).astype(np.float32)
    means = (weights @ pixels.reshape(count, -1)).reshape(WINDOWS, height, width, 4)
    y, x, side = _square(means[..., 3].mean(0))
    rows = _cells(y - side / 2, side, height)
    columns = _cells(x - side / 2, side, width)
    cells = columns @ (rows @ means.reshape(WINDOWS, height, -1)).reshape(WINDOWS, GRID, width, 4)
    return np.rint(cells.clip(0, 255)).astype(np.uint8).tobytes(), side / height


def _changes(pixels: np.ndarray) -> list[int]:
    """Where another picture begins: encoders make one frame of several that are alike, or leave them."""
    starts = [0]
    for i in range(1, len(pixels)):
        if np.abs(pixels[i] - pixels[starts[-1]]).mean() > _SAME:
            starts.append(i)
    return starts


def _over_time(borders: np.ndarray) -> np.ndarray:
    """``(WINDOWS, n)``: how much of each frame is seen through each window.

    A window has most weight in its middle and none beyond the middles of its neighbours, so that little depends on
    where in the loop they lie.
    """
    fine = WINDOWS * _FINE
    distance = np.abs((np.arange(fine) + 0.5)[None] - (np.arange(WINDOWS)[:, None] + 0.5) * _FINE)
    hats = (1 - np.minimum(distance, fine - distance) / _FINE).clip(min=0) / _FINE
    return hats @ _in_parts(borders, fine)


def _in_parts(borders: np.ndarray, parts: int) -> np.ndarray:
    """``(parts, n)``: how much of each frame is in each equal part of 0..1, where frames fade into each other.

    Each fades into the next one, the last into the first, from its beginning on: a copy at half the frame rate then
    looks nearly as its original, where frames that are held would be others.
    """
    count = len(borders) - 1
    cuts = np.unique(np.append(borders, np.linspace(0, 1, parts + 1)))
    middles, lengths = (cuts[:-1] + cuts[1:]) / 2, np.diff(cuts)
    frame = np.searchsorted(borders, middles, side="right") - 1
    into_next = (middles - borders[frame]) / (borders[frame + 1] - borders[frame])
    part = (middles * parts).astype(np.int64)
    weights = np.zeros((parts, count))
    np.add.at(weights, (part, frame), lengths * (1 - into_next))
    np.add.at(weights, (part, (frame + 1) % count), lengths * into_next)
    return weights * parts


def _shares(parts: int, borders: np.ndarray) -> np.ndarray:
    """``(parts, n)``: how much of each equal part of 0..1 lies between two of the ``n + 1`` rising borders."""
    edges = np.linspace(0, 1, parts + 1)
    overlap = np.minimum(edges[1:, None], borders[1:]) - np.maximum(edges[:-1, None], borders[:-1])
    return overlap.clip(min=0) * parts


def _cells(start: float, side: float, length: int) -> np.ndarray:
    """``(GRID, length)`` weights that average pixels into equal cells of a stretch; outside there is nothing."""
    return _shares(GRID, (np.arange(length + 1) - start) / side).astype(np.float32)


def _square(alpha: np.ndarray) -> tuple[float, float, float]:
    """Centre (y, x) and side of the square around what is drawn, by its centre of mass and its spread.

    Unlike a box around it, these do not jump where a faint edge comes or goes.
    """
    height, width = alpha.shape
    total = float(alpha.sum())
    if total <= 0:
        return height / 2, width / 2, float(max(height, width))
    rows, columns = alpha.sum(1) / total, alpha.sum(0) / total
    y, x = np.arange(height) + 0.5, np.arange(width) + 0.5
    centre_y, centre_x = float(rows @ y), float(columns @ x)
    variance = float(rows @ (y - centre_y) ** 2 + columns @ (x - centre_x) ** 2)
    # The variance of a filled square is a sixth of its area (both axes together).
    return centre_y, centre_x, _SPREAD * max(4.0, (6 * variance) ** 0.5)


def compare(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How alike signatures ``(n, SIGNATURE_BYTES)`` uint8 are, row by row.

    Returns:
        ``(n,)`` bool, whether they are near-duplicates; ``(n,)`` int8, the first :class:`Likeness` by which they are,
        or are most alike; and ``(n,)`` float32 root mean square differences, in 0..1, then.
    """
    one, other = (_windows(signatures) for signatures in (first, second))
    alike, whole = _judge(one, other)
    how = np.full(len(one), Likeness.COPY, np.int8)
    rest = np.flatnonzero(~alike)
    if not len(rest):
        return alike, how, whole
    moved = _Moved(one[rest], other[rest])
    for likeness in list(Likeness)[1:]:
        # Unless they are alike by an earlier one already.
        left = np.flatnonzero(~alike[rest])
        least, starts = moved.least(likeness)
        better = left[least[left] < whole[rest[left]] - _ROUNDING]
        how[rest[better]], whole[rest[better]] = likeness, least[better]
        near = left[least[left] <= MAX_DIFFERENCE + _ROUNDING]
        if len(near):
            now, exact = _judge(one[rest[near]], moved.begun(near, likeness, starts[near]))
            found = rest[near[now]]
            alike[found], how[found], whole[found] = True, likeness, exact[now]
    return alike, how, whole


def _windows(signatures: np.ndarray) -> np.ndarray:
    """``(n, windows, rows, columns, channels)`` float32 in 0..1."""
    out = signatures.reshape(-1, WINDOWS, GRID, GRID, 4).astype(np.float32)
    out /= 255
    return out


def _judge(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(n,)`` bool and float32: whether windows as they are are alike, and their root mean square difference."""
    squares = one - other
    np.square(squares, out=squares)
    cells = squares.mean((1, 4))
    whole = np.sqrt(cells.mean((1, 2)))
    return (whole <= MAX_DIFFERENCE) & (np.sqrt(cells.max((1, 2))) <= MAX_LOCAL_DIFFERENCE), whole


class _Moved:
    """Windows beside others that begin elsewhere, by their spectra over time.

    A later beginning turns phases, playing backwards conjugates. Energies and products of spectra say how far two
    are apart from each beginning, so that only those that are near are worked out.
    """

    def __init__(self, one: np.ndarray, other: np.ndarray) -> None:
        self._one, self._other = spectra(one), spectra(other)
        frequencies = np.arange(WINDOWS // 2 + 1)
        starts = np.arange(WINDOWS * _STARTS) / (WINDOWS * _STARTS)
        self._turns = np.exp(-2j * np.pi * frequencies[:, None] * starts).astype(np.complex64)
        self._turns[-1].imag = 0  # the last one has no phase
        self._sides = np.where((frequencies == 0) | (2 * frequencies == WINDOWS), 1, 2)  # frequencies below 0 too
        energies = [np.square(np.abs(s)).sum((2, 3, 4), dtype=np.float64) for s in (self._one, self._other)]
        turned = energies[1] * self._sides @ np.square(np.abs(self._turns))
        self._energy = (energies[0] * self._sides).sum(1)[:, None] + turned

    def least(self, likeness: Likeness) -> tuple[np.ndarray, np.ndarray]:
        """The least root mean square differences ``(n,)`` of all beginnings, and which ones these are."""
        products = np.einsum("nfyxc,nfyxc->nf", self._one.conj(), self._changed(slice(None), likeness))
        squares = self._energy - 2 * (products * self._sides @ self._turns).real
        starts = squares.argmin(1)
        least = np.take_along_axis(squares, starts[:, None], 1)[:, 0].clip(min=0)
        return np.sqrt(least / SIGNATURE_BYTES).astype(np.float32), starts

    def begun(self, rows: np.ndarray, likeness: Likeness, starts: np.ndarray) -> np.ndarray:
        """The other windows of some rows, changed and begun there."""
        turned = self._changed(rows, likeness) * self._turns.T[starts][..., None, None, None]
        return np.fft.irfft(turned, WINDOWS, axis=1, norm="ortho").astype(np.float32)

    def _changed(self, rows: np.ndarray | slice, likeness: Likeness) -> np.ndarray:
        spectrum = self._other[rows]
        if likeness in (Likeness.MIRRORED, Likeness.MIRRORED_BACKWARDS):
            spectrum = spectrum[:, :, :, ::-1]
        if likeness in (Likeness.BACKWARDS, Likeness.MIRRORED_BACKWARDS):
            spectrum = spectrum.conj()
        return spectrum


def spectra(windows: np.ndarray) -> np.ndarray:
    """Of pictures over time ``(n, windows, ...)``, ``(n, windows // 2 + 1, ...)`` complex64; energies stay."""
    return np.fft.rfft(windows, axis=1, norm="ortho").astype(np.complex64)
