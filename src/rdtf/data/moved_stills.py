"""Training clips from stills: a still picture in the whole-figure motions of the built-in world.

Few collections have thousands of moving stickers, but many have thousands of stills. A still that jumps or turns shows
a model how a whole thing moves. The caption of such a clip names the motion alone, so a prompt can ask for the motion
of a picture whose name the model does not know.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rdtf.data.find import find_items, source_labels
from rdtf.data.items import Item
from rdtf.data.metadata_files import METADATA
from rdtf.data.style import FIELD
from rdtf.files import check_new_folder, check_writable, disk_errors, publish, write_text
from rdtf.io.write import save_sticker
from rdtf.pixels import fit, premultiply, transform, unpremultiply
from rdtf.progress import bars
from rdtf.rng import numpy_rng
from rdtf.sticker import Sticker, StickerError
from rdtf.world import animate
from rdtf.world.artwork import ACTIONS
from rdtf.world.drawing import matrix
from rdtf.world.motion import Pose

MOTION = "motion"
"""Attribute of a moved still: the action. Stickers that move by themselves do not have it."""
MOTIONS = ("bounce", "dance", "fly", "grow", "jump", "peek", "shiver", "spin", "turn")
"""Actions that move the whole figure. The others move limbs or faces, which a still does not have."""
FRAMES = 8
_UNITS = 90  # height of a figure in the units of its poses
_GROUND = 44.0  # the pivot of a pose that stands on the ground


def is_moved(attributes: Mapping[str, Any]) -> bool:
    """Whether a sticker is a moved still."""
    return isinstance(attributes.get(MOTION), str)


def move_still(picture: np.ndarray, motion: str, rng: np.random.Generator, *, frames: int = FRAMES) -> Sticker:
    """A still in a motion: ``frames`` frames of its size, caption and durations.

    The picture keeps 75 to 100 % of its size, so that some have room to move. A frame that would leave the canvas is
    moved back into it, and scaled down if it is too large. ``peek`` alone hides the picture below the lower edge.

    Args:
        picture: ``(s, s, 4)`` uint8 with straight alpha; not wholly transparent.
        motion: one of :data:`MOTIONS`.
        rng: draws size, strength, pace and phase.
    """
    size, scale = len(picture), rng.uniform(0.75, 1)
    pose = Pose()
    durations = animate(rng, pose, motion, frames, "ghost")
    rows, columns = (np.flatnonzero(picture[..., 3].any(axis)) for axis in (1, 0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    x, y = (left + right) / 2, (top + bottom) / 2
    unit = scale * max(right - left, bottom - top) / _UNITS
    about = (x, y + pose.pivot / _GROUND * scale * (bottom - top) / 2)
    moves = matrix(np.multiply(pose.x, unit), np.multiply(pose.y, unit), pose.angle, pose.sx, pose.sy, about)
    moves = np.broadcast_to(moves @ matrix(sx=scale, sy=scale, about=(x, y)), (frames, 3, 3))
    corners = np.array([[left, right, left, right], [top, top, bottom, bottom], [1, 1, 1, 1]])
    hidden = np.broadcast_to(pose.drop, frames)
    moves = np.stack([_inside(move, corners, size, float(drop)) for move, drop in zip(moves, hidden, strict=True)])
    moved = [transform(premultiply(picture), move) for move in moves]
    return Sticker(unpremultiply(np.stack(moved)), durations, ACTIONS[motion].doing[0], {MOTION: motion})


def _inside(move: np.ndarray, corners: np.ndarray, size: int, drop: float) -> np.ndarray:
    """A move ``(3, 3)`` after which all corners lie in the canvas; then ``drop`` of the way to its lower edge."""
    ends = move[:2] @ corners
    scale = min(1.0, float(size / (ends.max(1) - ends.min(1)).max()))
    low, high = scale * ends.min(1), scale * ends.max(1)
    x, y = np.clip((1 - scale) * ends.mean(1), -low, size - high)
    return matrix(x, y + drop * (size - low[1] - y), 0, scale, scale)[0] @ move


def write_moved_stills(
    sources: Sequence[Path],
    out: Path,
    *,
    size: int = 128,
    frames: int = FRAMES,
    limit: int | None = None,
    seed: int = 0,
    workers: int = 1,
) -> tuple[int, list[str]]:
    """Write the stills of some sources in a motion each, as lossless WebP with a ``metadata.jsonl``.

    Captions name the motion. The attribute ``of`` has the still's caption. Other metadata, such as ``emoji``, are kept
    as attributes, apart from the style.

    Args:
        sources: see :func:`~rdtf.data.find.find_items`.
        out: a new or empty folder, complete or not there.
        size: height and width in pixels.
        limit: at most this many stickers, drawn at random; None for all.
        seed: draws stills and motions. The motion of a still depends on the seed and its name alone.
        workers: number of processes. The files do not depend on it.

    Returns:
        the number of stickers, and a sentence for each file that could not be read.

    Raises:
        ValueError: ``out`` holds files, or the sources have no stills.
        DiskError: the disk is full or read-only.
    """
    check_new_folder(out)
    check_writable(out.parent)
    items = [
        item
        for source, label in zip(sources, source_labels(sources), strict=True)
        for item in find_items(source, label).items
    ]
    order = numpy_rng(seed, 0, "moved stills").permutation(len(items)).tolist()
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    write = partial(_write_one, unfinished, size, frames, seed)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    try:
        with disk_errors(out), bars() as progress, ExitStack() as stack:
            task = progress.add_task("moving stills", total=limit or len(items), note="")
            run: Callable[..., Iterable[dict[str, Any] | str | None]] = map
            if workers > 1:
                # "spawn": a forked child would inherit the locks of torch's threads.
                pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
                run = stack.enter_context(pool).map
            left = limit or len(items)
            while order and left > len(rows):
                missing = left - len(rows)
                chunk, order = order[:missing], order[missing:]
                for made in run(write, [(number, items[number]) for number in chunk]):
                    if isinstance(made, str):
                        problems.append(made)
                    elif made is not None:
                        rows.append(made)
                    progress.advance(task)
            if not rows:
                raise ValueError(f"no still sticker was found in {', '.join(map(str, sources))}")
            rows.sort(key=lambda row: str(row["file_name"]))
            write_text(unfinished / METADATA, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            publish(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(rows), problems


def _write_one(out: Path, size: int, frames: int, seed: int, numbered: tuple[int, Item]) -> dict[str, Any] | str | None:
    """The metadata of a moved still that was written; None for a sticker that moves; a sentence for a bad file."""
    number, item = numbered
    rng = numpy_rng(seed, 0, f"moved still/{item.name}")
    try:
        sticker = item.read(size=2 * size, max_frames=2)  # twice the size, so that turned edges stay sharp
    except StickerError as error:
        return f"{item.name}: {error.reason}"
    if len(sticker) > 1:
        return None
    picture = fit(sticker.frames, 2 * size)[0]
    if not picture[..., 3].any():
        return f"{item.name}: it is completely transparent"
    motion = MOTIONS[int(rng.integers(len(MOTIONS)))]
    moved = move_still(picture, motion, rng, frames=frames)
    name = f"{number:06}.webp"
    save_sticker(Sticker(fit(moved.frames, size), moved.durations), out / name, durable=False)
    kept = {key: value for key, value in item.caption.attributes.items() if key != FIELD}
    row = {
        "file_name": name,
        "caption": moved.caption,
        "caption_long": ACTIONS[motion].doing[1],
        "attributes": {**kept, MOTION: motion, "of": item.caption.texts[0]},
    }
    return row | ({"license": item.caption.license} if item.caption.license else {})
