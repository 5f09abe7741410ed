"""Stickers that are made of other stickers, as files with their metadata.

They are files, so that a person can look at them and delete some before ``rdtf prepare`` reads them.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rdtf.data.find import find_items, source_labels
from rdtf.data.items import Item
from rdtf.data.metadata_files import METADATA
from rdtf.files import check_new_folder, check_writable, disk_errors, publish, write_text
from rdtf.io.write import save_sticker
from rdtf.progress import bars
from rdtf.rng import numpy_rng
from rdtf.sticker import Sticker, StickerError

OF = "of"
"""Attribute of a derived sticker: the first caption of the sticker that it is made of."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Derived:
    """A new sticker, its captions (best first) and its attributes."""

    sticker: Sticker
    captions: Sequence[str]
    attributes: Row


def write_derived(
    sources: Sequence[Path],
    out: Path,
    make: Callable[[Item], list[Derived]],
    *,
    limit: int | None = None,
    seed: int = 0,
    workers: int = 1,
) -> tuple[int, list[str]]:
    """Write what ``make`` makes of the stickers of some sources, as lossless WebP with a ``metadata.jsonl``.

    Licences are kept. Attributes stand in the dictionary ``attributes``, where an emoji adds no name to the captions.

    Args:
        sources: see :func:`~rdtf.data.find.find_items`.
        out: a new or empty folder, complete or not there.
        make: makes stickers of one sticker; must pickle. An empty list passes the sticker over.
        limit: use at most this many stickers of the sources, drawn at random; None for all.
        seed: draws them.
        workers: number of processes. The files do not depend on it.

    Returns:
        the number of new stickers, and a sentence for each file that could not be read.

    Raises:
        ValueError: ``out`` holds files, or nothing could be made.
        DiskError: the disk is full or read-only.
    """
    check_new_folder(out)
    check_writable(out.parent)
    labels = source_labels(sources)
    items = [item for pair in zip(sources, labels, strict=True) for item in find_items(*pair).items]
    order = numpy_rng(seed, 0, "derived").permutation(len(items)).tolist()
    most = len(items) if limit is None else limit
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    write = partial(_write_one, unfinished, make)
    used: list[list[Row]] = []
    problems: list[str] = []
    try:
        with disk_errors(out), bars() as progress, ExitStack() as stack:
            task = progress.add_task("making stickers", total=most, note="")
            run: Callable[..., Iterable[list[Row] | str]] = map
            if workers > 1:
                # "spawn": a forked child would inherit the locks of torch's threads.
                pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
                run = stack.enter_context(pool).map
            while order and len(used) < most:
                missing = most - len(used)
                chunk, order = order[:missing], order[missing:]
                for made in run(write, [(number, items[number]) for number in chunk]):
                    if isinstance(made, str):
                        problems.append(made)
                    elif made:
                        used.append(made)
                        progress.advance(task)
            rows = sorted((row for made in used for row in made), key=lambda row: str(row["file_name"]))
            if not rows:
                raise ValueError(f"no sticker of {', '.join(map(str, sources))} is of the kind that is needed")
            write_text(unfinished / METADATA, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            publish(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(rows), problems


def _write_one(out: Path, make: Callable[[Item], list[Derived]], numbered: tuple[int, Item]) -> list[Row] | str:
    """The metadata of the stickers that were made and written; a sentence for a file that cannot be read."""
    number, item = numbered
    try:
        made = make(item)
    except StickerError as error:
        return f"{item.name}: {error.reason}"
    rows = []
    for i, derived in enumerate(made):
        name = f"{number:06}-{i}.webp"
        save_sticker(derived.sticker, out / name, durable=False)
        captions = {f"caption_{i}" if i else "caption": text for i, text in enumerate(derived.captions)}
        row = {"file_name": name, **captions, "attributes": {**derived.attributes, OF: item.caption.texts[0]}}
        rows.append(row | ({"license": item.caption.license} if item.caption.license else {}))
    return rows
