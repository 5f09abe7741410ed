"""How much of a sticker each way of frame extraction keeps: ``python benchmarks/keyframes.py [--stickers FOLDER]``.

Every sticker of more than eight frames (one of each group of near-duplicates) is extracted with k from 3 to 8, by the
function that training uses. Of the kept frames it is measured

- how different they are: mean pairwise distance of their features, in parts of that between all frames of the sticker;
- how well they tell the whole clip: root mean square error (premultiplied RGBA, 0..255) of all its frames when those
  that were left out are interpolated linearly in time, or repeated from the nearest kept one. Where a sticker loops,
  so does time.

Intervals are 95 %, from resampling stickers. Prints tables and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from rich.table import Table

from rdtf.data.dataset import StickerDataset, StickerRecord
from rdtf.data.keyframes import CLUSTER_COUNTS, EXTRACTIONS, extract_frames, frame_features
from rdtf.data.prepare import PrepareSettings, prepare
from rdtf.data.settings import choose_features
from rdtf.pixels import premultiply
from rdtf.progress import bars, console
from rdtf.world import write_world

EVEN = "equal-interval"
MEASURES = {"distance": "pairwise distance", "interpolated": "error, interpolated", "nearest": "error, nearest"}
BETTER = {"distance": 1, "interpolated": -1, "nearest": -1}
DRAWS = 8
"""Of ways that draw: their mean stands for them."""
RESAMPLES = 2000


def interpolation(kept: np.ndarray, times: np.ndarray, period: float | None) -> tuple[np.ndarray, np.ndarray]:
    """``(n, k)`` weights that make all frames of the kept ones: linear in time, and those of the nearest one.

    Args:
        kept: increasing frame indices.
        times: of all frames.
        period: after which the first comes again; None without a loop, where the outermost kept frames stand still.
    """
    knots, columns = times[kept], np.arange(len(kept))
    if period is not None:
        knots = np.concatenate([knots[-1:] - period, knots, knots[:1] + period])
        columns = np.concatenate([columns[-1:], columns, columns[:1]])
    hats = np.stack([np.interp(times, knots, row) for row in np.eye(len(knots))], axis=1)
    closest = np.eye(len(knots))[np.abs(times[:, None] - knots).argmin(1)]
    back = columns[:, None] == np.arange(len(kept))
    return hats @ back, closest @ back


def measure(record: StickerRecord, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``(ways, ks, measures)`` of one sticker."""
    pixels = premultiply(frames).reshape(len(frames), -1).astype(np.float32)
    features = frame_features(frames).astype(np.float64)
    lengths = (features**2).sum(1)
    distances = np.sqrt(np.maximum(lengths[:, None] + lengths - 2 * features @ features.T, 0))
    between_all = distances.sum() / (len(frames) * (len(frames) - 1))
    times = np.append(0, np.cumsum(record.durations))
    period = float(times[-1]) if record.loops else None

    def of(kept: np.ndarray) -> list[float]:
        own = distances[np.ix_(kept, kept)].sum() / max(1, len(kept) * (len(kept) - 1))
        made = [weights.astype(np.float32) @ pixels[kept] for weights in interpolation(kept, times[:-1], period)]
        return [own / between_all, *(float(np.sqrt(((clip - pixels) ** 2).mean())) for clip in made)]

    found = np.zeros((len(EXTRACTIONS), len(CLUSTER_COUNTS), len(MEASURES)))
    for i, how in enumerate(EXTRACTIONS):
        for j, k in enumerate(CLUSTER_COUNTS):
            labels = np.asarray(record.clusters[j])
            draws = range(DRAWS if how == "cluster-random" else 1)
            found[i, j] = np.mean([of(extract_frames(how, k, labels, rng)) for _ in draws], axis=0)
    return found


def interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean over stickers, and where 95 % of the means of resampled stickers lie."""
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(1)
    return float(values.mean()), *(float(x) for x in np.quantile(means, (0.025, 0.975)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stickers", type=Path, help="folder of stickers; default: the built-in world")
    parser.add_argument("--count", type=int, default=300, help="stickers of the world")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--features", default="builtin", help="what frames are clustered by, as in rdtf prepare")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    settings = PrepareSettings.model_validate(
        {
            "size": options.size,
            "duplicates": "drop",
            "workers": options.workers,
            "splits": (1, 0, 0),
            **choose_features(options.features),
        }
    )
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = options.stickers or write_world(Path(name) / "world", options.count, size=options.size)
        prepare([folder], Path(name) / "data", settings)
        dataset = StickerDataset(Path(name) / "data")
        lengths = np.array(dataset.column("num_frames"))
        chosen = np.flatnonzero(lengths > max(CLUSTER_COUNTS))
        with bars() as progress:
            task = progress.add_task("measuring", total=len(chosen), note="")
            for i in chosen.tolist():
                progress.advance(task)
                record, frames = dataset.record(i), dataset.frames(i)
                if record.motion:  # nothing is kept or lost of frames that are all equal
                    results.append(measure(record, frames, rng))
    if not results:
        raise SystemExit(f"{folder}: no sticker of more than {max(CLUSTER_COUNTS)} frames that moves")
    values = np.stack(results)  # stickers, ways, ks, measures
    console.print(f"{len(values)} of {len(lengths)} stickers, {lengths[chosen].mean():.1f} frames on average")

    even = values[:, EXTRACTIONS.index(EVEN)]
    summary: dict[str, dict[str, dict[str, list[float]]]] = {}
    for m, (measured, title) in enumerate(MEASURES.items()):
        sign = BETTER[measured]
        table = Table(title=f"{title} ({'more' if sign > 0 else 'less'} is better)")
        table.add_column("extraction")
        for column in (*(f"k {k}" for k in CLUSTER_COUNTS), "all k", "against equal interval", "better of it, %"):
            table.add_column(column, justify="right")
        for i, how in enumerate(EXTRACTIONS):
            own, other = values[:, i, :, m].mean(1), even[..., m].mean(1)
            # Means over k of a sticker; equal ones, up to rounding, count as half.
            gain = np.where(np.abs(own - other) > 1e-6 * np.abs(other), sign * (own - other), 0.0)
            found = {
                "mean": interval(own, rng),
                "difference": interval(own - other, rng),
                "share_better": interval((gain > 0) + 0.5 * (gain == 0), rng),
            }
            by_k = values[:, i, :, m].mean(0)
            cells = [f"{value:.2f}" for value in (*by_k, found["mean"][0])]
            if how != EVEN:
                cells.append("{:+.2f} ({:+.2f} to {:+.2f})".format(*found["difference"]))
                cells.append("{:.0f} ({:.0f} to {:.0f})".format(*(100 * x for x in found["share_better"])))
            table.add_row(how, *cells)
            rounded = {key: [round(x, 4) for x in three] for key, three in found.items()}
            summary.setdefault(how, {})[measured] = {**rounded, "by_k": [round(float(x), 4) for x in by_k]}
        console.print(table)
    conditions = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    print(json.dumps({**conditions, "measured": len(values), "extractions": summary}))


if __name__ == "__main__":
    main()
