"""How many changed copies the search for near-duplicates finds: ``python benchmarks/near_duplicates.py [STICKERS...]``.

Animations of the built-in world, or of the folders that are given, are changed in one way each, brought to the size of
a dataset, and looked for among all others. Found is a copy that is paired with what it was made from; false is a pair
of two different stickers that were no pair before. At last, the search is timed on many rows, which are patched
together from the same stickers: half of one's time, half of another's, mirrored, with channels exchanged. Prints
tables and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from rich.table import Table

from rdtf.data.duplicates import GRID, SIGNATURE_BYTES, WINDOWS, near_pairs, signature
from rdtf.data.find import find_items
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.pixels import fit
from rdtf.progress import console
from rdtf.sticker import Sticker
from rdtf.world import draw_sticker

OWN_SIZE = 128  # pixels of the originals


def through(ending: str) -> Callable[[Sticker], Sticker]:
    """Write a sticker and read it again."""

    def change(sticker: Sticker) -> Sticker:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"copy{ending}"
            save_sticker(sticker, path)
            return read_sticker(path)

    return change


def lossy(sticker: Sticker) -> Sticker:
    """As WebP of low quality."""
    pictures = [Image.fromarray(frame) for frame in sticker.frames]
    stream = io.BytesIO()
    durations = sticker.durations.clip(10).round().astype(int).tolist()
    options = {"save_all": True, "append_images": pictures[1:], "duration": durations}
    pictures[0].save(stream, "WEBP", quality=20, alpha_quality=50, **options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.webp"
        path.write_bytes(stream.getvalue())
        return read_sticker(path)


def resized(size: int) -> Callable[[Sticker], Sticker]:
    """To another size and back."""
    return lambda sticker: Sticker(fit(fit(sticker.frames, size), OWN_SIZE), sticker.durations)


def padded(sticker: Sticker) -> Sticker:
    """With margins of 15 % at each side."""
    side = round(0.15 * OWN_SIZE)
    return Sticker(np.pad(sticker.frames, ((0, 0), (side, side), (side, side), (0, 0))), sticker.durations)


def cropped(share: float) -> Callable[[Sticker], Sticker]:
    """Cut at each side."""
    cut = max(1, round(share * OWN_SIZE))
    return lambda sticker: Sticker(sticker.frames[:, cut:-cut, cut:-cut], sticker.durations)


def coloured(*factors: float) -> Callable[[Sticker], Sticker]:
    """With each colour channel multiplied."""
    many = np.array([*factors, 1.0])
    return lambda s: Sticker(np.rint(s.frames * many).clip(0, 255).astype(np.uint8), s.durations)


def thinned(step: int) -> Callable[[Sticker], Sticker]:
    """Every so manieth frame, for as much longer."""

    def change(sticker: Sticker) -> Sticker:
        chosen = np.arange(0, len(sticker), step)
        return Sticker(sticker.frames[chosen], np.add.reduceat(sticker.durations, chosen))

    return change


def rolled(parts: int) -> Callable[[Sticker], Sticker]:
    """Begun later by one of ``parts`` parts of the loop."""

    def change(sticker: Sticker) -> Sticker:
        by = -max(1, len(sticker) // parts)
        return Sticker(np.roll(sticker.frames, by, 0), np.roll(sticker.durations, by))

    return change


CHANGES: dict[str, Callable[[Sticker], Sticker]] = {
    "as GIF": through(".gif"),
    "as lossy WebP, quality 20": lossy,
    "to 64 px and back": resized(64),
    "to 40 px and back": resized(40),
    "margins of 15 %": padded,
    "cut by 2 % at each side": cropped(0.02),
    "cut by 5 % at each side": cropped(0.05),
    "every second frame": thinned(2),
    "every third frame": thinned(3),
    "twice as fast": lambda s: Sticker(s.frames, s.durations / 2),
    "colours shifted by 5 %": coloured(1.0, 0.95, 0.95),
    "colours shifted by 15 %": coloured(1.0, 0.85, 0.85),
    "begun a quarter later": rolled(4),
    "begun an eighth later": rolled(8),
    "mirrored": lambda s: Sticker(s.frames[:, :, ::-1], s.durations),
    "played backwards": lambda s: Sticker(s.frames[::-1], s.durations[::-1]),
}


def originals(folders: list[Path], count: int) -> list[Sticker]:
    """Animations, not more than so many."""
    found: list[Sticker] = []
    if folders:
        items = [item for folder in folders for item in find_items(folder, folder.name).items]
        stickers = (item.read(size=OWN_SIZE, max_frames=40) for item in items)
    else:
        stickers = (draw_sticker(5, number, size=OWN_SIZE) for number in itertools.count())
    for sticker in stickers:
        if len(sticker) > 3 and sticker.frames[..., 3].any():
            found.append(Sticker(fit(sticker.frames, OWN_SIZE), sticker.durations))
        if len(found) == count:
            break
    return found


def describe(stickers: list[Sticker], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Signatures ``(n, SIGNATURE_BYTES)`` and extents ``(n,)``, from frames of a dataset's size."""
    both = [signature(fit(sticker.frames, size), sticker.durations) for sticker in stickers]
    signatures = np.frombuffer(b"".join(one for one, _ in both), np.uint8).reshape(-1, SIGNATURE_BYTES)
    return signatures, np.array([extent for _, extent in both], np.float32)


def many(signatures: np.ndarray, count: int) -> np.ndarray:
    """So many signatures that are patched together from these."""
    rng = np.random.default_rng(0)
    grids = signatures.reshape(-1, WINDOWS, GRID, GRID, 4)
    channels = np.array([[*order, 3] for order in itertools.permutations(range(3))])
    out = np.empty((count, WINDOWS, GRID, GRID, 4), np.uint8)
    for row in out:
        first, second = grids[rng.integers(len(grids), size=2)]
        row[: WINDOWS // 2], row[WINDOWS // 2 :] = first[: WINDOWS // 2], second[WINDOWS // 2 :]
        row[:] = row[:, :: rng.choice([-1, 1]), :: rng.choice([-1, 1]), channels[rng.integers(len(channels))]]
    return out.reshape(count, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stickers", type=Path, nargs="*")
    parser.add_argument("--count", type=int, default=400, help="animations that are changed, at most")
    parser.add_argument("--size", type=int, default=64, help="pixels of the dataset")
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000], help="for the time of the search")
    options = parser.parse_args()
    stickers = originals(options.stickers, options.count)
    count = len(stickers)
    signatures, extents = describe(stickers, options.size)
    before = {tuple(pair) for pair in near_pairs([signatures], extents).rows.tolist()}
    table = Table("change", "found", "false pairs", title=f"{count} animations, {len(before)} pairs before")
    result: dict[str, tuple[int, int]] = {}
    for name, change in CHANGES.items():
        changed, their_extents = describe([change(sticker) for sticker in stickers], options.size)
        pairs = near_pairs([signatures, changed], np.concatenate([extents, their_extents])).rows
        alike = {(min(p), max(p)) for p in (pairs % count).tolist()}
        found = {(first, second) for first, second in pairs.tolist() if second == first + count}
        wrong = {(first, second) for first, second in alike if first != second} - before
        result[name] = len(found), len(wrong)
        table.add_row(name, f"{len(found) / count:.1%}", str(len(wrong)))
    console.print(table)
    times = Table("rows", "seconds", "of a processor", "pairs")
    searches = {}
    for rows in options.rows:
        patched = many(signatures, rows)
        spread = np.random.default_rng(1).choice(extents, rows)
        began, clock = time.perf_counter(), time.process_time()
        pairs = near_pairs([patched], spread).rows
        took = time.perf_counter() - began, time.process_time() - clock
        searches[rows] = *took, len(pairs)
        times.add_row(f"{rows:,}", f"{took[0]:.1f}", f"{took[1]:.1f}", f"{len(pairs):,}")
    console.print(times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    console.print(f"most memory of this process, signatures among it: {peak / 1e6:,.0f} MB")
    out = {"count": count, "pairs_before": len(before), "result": result, "searches": searches, "peak_bytes": peak}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
