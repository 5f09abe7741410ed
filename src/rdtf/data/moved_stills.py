"""Training clips from stills: a still picture in the whole-figure motions of the built-in world.

Few collections have thousands of moving stickers, but many have thousands of stills. A still that jumps or turns shows
a model how a whole thing moves. The caption of such a clip names the motion alone. Moved stills are files, so that a
person can look at them and delete some before ``rdtf prepare`` reads them.
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
from rdtf.pixels import fit
from rdtf.progress import bars
from rdtf.rng import numpy_rng
from rdtf.sticker import Sticker, StickerError
from rdtf.whole_figure import MOTIONS, apply_moves, moves_of
from rdtf.world import animate
from rdtf.world.artwork import ACTIONS
from rdtf.world.motion import Pose

MOTION = "motion"
"""Attribute of a moved still: the action. Stickers that move by themselves do not have it."""
SMALL_MOTIONS = ("bounce", "dance", "fly", "jump", "shiver")
"""Motions in which the picture stays upright and in sight. They are easier to learn than the others."""
FRAMES = 8
Row = dict[str, Any]


def is_moved(attributes: Mapping[str, Any]) -> bool:
    """Whether a sticker is a moved still."""
    return isinstance(attributes.get(MOTION), str)


def move_still(picture: np.ndarray, motion: str, rng: np.random.Generator) -> Sticker:
    """A still in a motion: :data:`FRAMES` frames of its size, caption and durations.

    The picture keeps 75 to 100 % of its size, so that some have room to move. A frame that would leave the canvas is
    moved back into it, and scaled down if it is too large. ``peek`` alone hides the picture below the lower edge.

    Args:
        picture: ``(s, s, 4)`` uint8 with straight alpha; not wholly transparent.
        motion: one of :data:`~rdtf.whole_figure.MOTIONS`.
        rng: draws size, strength, pace and phase.
    """
    scale = rng.uniform(0.75, 1)
    pose = Pose()
    durations = animate(rng, pose, motion, FRAMES, "ghost")
    moved = apply_moves(picture, *moves_of(pose, picture, FRAMES, scale))
    return Sticker(moved, durations, ACTIONS[motion].doing[0], {MOTION: motion})


def write_moved_stills(
    sources: Sequence[Path],
    out: Path,
    *,
    size: int = 128,
    motions: Sequence[str] = SMALL_MOTIONS,
    limit: int | None = None,
    seed: int = 0,
    workers: int = 1,
) -> tuple[int, list[str]]:
    """Write the stills of some sources in one motion each, as lossless WebP with a ``metadata.jsonl``.

    The motion of a still depends on the seed and its name alone. Licences are kept. Other metadata than the style stand
    in the dictionary ``attributes``, where an emoji adds no name to the captions; ``of`` is the still's own caption.

    Args:
        sources: see :func:`~rdtf.data.find.find_items`. Stickers that move are passed over.
        out: a new or empty folder, complete or not there.
        size: height and width in pixels.
        motions: what is drawn from, of :data:`~rdtf.whole_figure.MOTIONS`.
        limit: at most this many stickers, drawn at random; None for all.
        seed: draws stills and motions.
        workers: number of processes. The files do not depend on it.

    Returns:
        the number of moved stills, and a sentence for each file that could not be read.

    Raises:
        ValueError: an unknown motion, ``out`` holds files, or the sources have no stills.
        DiskError: the disk is full or read-only.
    """
    if unknown := sorted({*motions} - {*MOTIONS}):
        raise ValueError(f"there is no motion {unknown[0]!r}; there are {', '.join(MOTIONS)}")
    check_new_folder(out)
    check_writable(out.parent)
    labels = source_labels(sources)
    items = [item for pair in zip(sources, labels, strict=True) for item in find_items(*pair).items]
    order = numpy_rng(seed, 0, "moved stills").permutation(len(items)).tolist()
    most = len(items) if limit is None else limit
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    write = partial(_write_one, unfinished, size, tuple(motions), seed)
    rows: list[Row] = []
    problems: list[str] = []
    try:
        with disk_errors(out), bars() as progress, ExitStack() as stack:
            task = progress.add_task("moving stills", total=most, note="")
            run: Callable[..., Iterable[Row | str | None]] = map
            if workers > 1:
                # "spawn": a forked child would inherit the locks of torch's threads.
                pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
                run = stack.enter_context(pool).map
            while order and len(rows) < most:
                missing = most - len(rows)
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


def _write_one(
    out: Path, size: int, motions: tuple[str, ...], seed: int, numbered: tuple[int, Item]
) -> Row | str | None:
    """The metadata of a moved still that was written; a sentence for a bad file; None for anything but a still."""
    number, item = numbered
    try:
        sticker = item.read(size=2 * size, max_frames=2)  # twice the size, so that turned edges stay sharp
    except StickerError as error:
        return f"{item.name}: {error.reason}"
    picture = fit(sticker.frames, 2 * size)[0]
    if len(sticker) > 1 or not picture[..., 3].any():
        return None
    rng = numpy_rng(seed, 0, f"moved still/{item.name}")
    motion = motions[int(rng.integers(len(motions)))]
    moved = move_still(picture, motion, rng)
    name = f"{number:06}.webp"
    save_sticker(Sticker(fit(moved.frames, size), moved.durations), out / name, durable=False)
    caption, longer = ACTIONS[motion].doing
    kept = {key: value for key, value in item.caption.attributes.items() if key != FIELD}
    attributes = {**kept, MOTION: motion, "of": item.caption.texts[0]}
    row = {"file_name": name, "caption": caption, "caption_long": longer, "attributes": attributes}
    return row | ({"license": item.caption.license} if item.caption.license else {})
