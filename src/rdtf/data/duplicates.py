"""Near-duplicates: the same sticker in another format, size, quality or speed, found by what it looks like over time.

The signature of a sticker is a perceptual hash over time and alpha: small pictures of four equal parts of its time,
taken within a square that moves and grows with what is drawn, so that margins, sizes, codecs and frame rates drop
out. Two stickers are near-duplicates if their signatures differ little on the whole and nowhere much: the faces of
two clocks are alike but for the hands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.spatial import cKDTree

from rdtf.pixels import premultiply

WINDOWS, GRID = 4, 16
SIGNATURE_BYTES = WINDOWS * GRID * GRID * 4

MAX_DIFFERENCE = 0.045
"""Root mean square difference up to which two signatures (0..1) are alike."""
MAX_LOCAL_DIFFERENCE = 0.16
"""The same for the worst cell of the grid, over time and channels."""
MAX_SCALE = 1.5
"""Of a pair, how many times larger one may be drawn on its canvas: a small square is not a large one."""

NEIGHBOURS = 32
"""Each sticker is compared with so many of the most alike. Of crowds of copies this leaves a net without holes."""

_SPREAD = 1.1  # the square's side: of a filled square drawing, a little more than its own
_SAME = 1.0  # mean difference, of 255, of frames that show the same
_BLOCK = 4  # cells of the grid that are averaged for the search, each way
_DIMENSIONS = 24
_SAMPLE = 5000
_CHUNK = 1 << 9  # rows at a time, a few MB each of which several are held


def signature(frames: np.ndarray, durations: np.ndarray) -> tuple[bytes, float]:
    """What a sticker looks like over time, for :func:`near_pairs`.

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
    """``(WINDOWS, n)``: how much of each frame is in each equal part of 0..1, where frames fade into each other.

    Each fades into the next one, the last into the first, from its beginning on: a copy at half the frame rate then
    looks nearly as its original, where frames that are held would be others.
    """
    count = len(borders) - 1
    cuts = np.unique(np.append(borders, np.linspace(0, 1, WINDOWS + 1)))
    middles, lengths = (cuts[:-1] + cuts[1:]) / 2, np.diff(cuts)
    frame = np.searchsorted(borders, middles, side="right") - 1
    into_next = (middles - borders[frame]) / (borders[frame + 1] - borders[frame])
    window = (middles * WINDOWS).astype(np.int64)
    weights = np.zeros((WINDOWS, count))
    np.add.at(weights, (window, frame), lengths * (1 - into_next))
    np.add.at(weights, (window, (frame + 1) % count), lengths * into_next)
    return weights * WINDOWS


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


def near_pairs(parts: Sequence[np.ndarray], extents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of near-duplicates, each once.

    The search looks among averages of blocks, on the axes on which they differ most. Averages differ no more than
    what they are of, so that nothing near is missed, but for stickers with more than :data:`NEIGHBOURS` copies,
    which are not paired with all of them.

    Args:
        parts: ``(n, SIGNATURE_BYTES)`` uint8 signatures, in one array or several, which may be mapped files.
        extents: ``(n,)`` for all of them, one after the other.

    Returns:
        ``(m, 2)`` int64 positions, the smaller one first, sorted; and ``(m,)`` float32 root mean square differences.
    """
    signatures = _Joined(parts)
    if len(signatures) != len(extents):
        raise ValueError(f"{len(signatures)} signatures, but {len(extents)} extents")
    if len(extents) < 2:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    points, radius = _search_space(signatures)
    tree = cKDTree(points)
    pairs, differences = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for some in _chunks(len(points)):
        near = tree.query(points[some], min(NEIGHBOURS + 1, len(points)), distance_upper_bound=radius)
        rows, places = np.nonzero(np.isfinite(near[0]))
        found = np.stack([some[rows], near[1][rows, places]], axis=1)
        found = np.unique(np.sort(found[found[:, 0] != found[:, 1]], axis=1), axis=0)
        for chosen in _chunks(len(found)):
            alike, difference = _alike(signatures, extents, found[chosen])
            pairs.append(found[chosen][alike])
            differences.append(difference[alike])
    unique, first = np.unique(np.concatenate(pairs), axis=0, return_index=True)
    return unique, np.concatenate(differences)[first]


class _Joined:
    """Several arrays of signatures as one, of which only what is asked for is copied."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        out = np.empty((len(positions), SIGNATURE_BYTES), np.uint8)
        owner = np.searchsorted(self._ends, positions, side="right")
        for number in np.unique(owner):
            here = owner == number
            part = self._parts[number]
            out[here] = part[positions[here] - (self._ends[number] - len(part))]
        return out


def _chunks(length: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + _CHUNK, length)) for start in range(0, length, _CHUNK))


def _search_space(signatures: _Joined) -> tuple[np.ndarray, float]:
    """Points ``(n, d)`` for a tree, and the distance beyond which two of them cannot be near-duplicates."""
    spread = np.arange(0, len(signatures), -(-len(signatures) // _SAMPLE))
    sample = np.concatenate([_blocks(signatures[spread[some]]) for some in _chunks(len(spread))])
    middle = sample.mean(0)
    axes = np.linalg.eigh((sample - middle).T @ (sample - middle))[1][:, ::-1][:, :_DIMENSIONS]
    points = np.concatenate([(_blocks(signatures[some]) - middle) @ axes for some in _chunks(len(signatures))])
    # The mean over blocks of squares is at most that over cells, and a rotation keeps distances.
    return points, MAX_DIFFERENCE * len(middle) ** 0.5 * (1 + 1e-3)


def _blocks(signatures: np.ndarray) -> np.ndarray:
    """``(n, d)`` float32 in 0..1: averages of blocks of cells."""
    side = GRID // _BLOCK
    cells = signatures.reshape(-1, WINDOWS, side, _BLOCK, side, _BLOCK * 4)
    rows = cells.sum(3, dtype=np.uint16)  # sums of 16-bit numbers are several times faster than a mean of floats
    blocks = rows.reshape(-1, WINDOWS, side, side, _BLOCK, 4).sum(4, dtype=np.uint16)
    return blocks.reshape(len(signatures), -1) / np.float32(255 * _BLOCK**2)


def _alike(signatures: _Joined, extents: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pair ``(m, 2)``, whether it is a near-duplicate, and the root mean square difference."""
    whole, worst = differences(signatures[pairs[:, 0]], signatures[pairs[:, 1]])
    ratio = extents[pairs[:, 0]] / extents[pairs[:, 1]]
    near = (whole <= MAX_DIFFERENCE) & (worst <= MAX_LOCAL_DIFFERENCE)
    return near & (np.maximum(ratio, 1 / ratio) <= MAX_SCALE), whole


def differences(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square differences, in 0..1, of signatures ``(n, SIGNATURE_BYTES)`` uint8, row by row.

    Returns:
        ``(n,)`` float32 over all of it, and over the worst cell of the grid.
    """
    first, second = (signatures.reshape(-1, WINDOWS, GRID * GRID, 4) for signatures in (first, second))
    squares = first.astype(np.float32)  # worked on in place
    squares -= second
    squares /= 255
    np.square(squares, out=squares)
    cells = squares.mean((1, 3))
    return np.sqrt(cells.mean(1)), np.sqrt(cells.max(1))
