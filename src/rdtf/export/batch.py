"""Many stickers to files of several messengers, one process a core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rdtf.data.find import find_items
from rdtf.device import usable_cores
from rdtf.export.search import Export, export_sticker
from rdtf.export.target import Target, load_target
from rdtf.io.metadata import NOTE, note_of
from rdtf.io.read import SUFFIXES
from rdtf.io.wall import read_sticker
from rdtf.sticker import Sticker

MAX_SOURCE_FRAMES = 300


@dataclass(frozen=True)
class Source:
    """A sticker to export.

    Attributes:
        name: of the file that is written, without ending. path: of the sticker's file.
        caption: in words. attributes: what its metadata says.
        keep_note: the note of how it was made goes into its exports, where a messenger's rules allow.
        larger: a file with the sticker as its model draws it at a larger size.
        remark: a sentence why there is none.
    """

    name: str
    path: Path
    caption: str = ""
    attributes: tuple[tuple[str, Any], ...] = ()
    keep_note: bool = True
    larger: Path | None = None
    remark: str = ""

    def read(self) -> Sticker:
        """Decode it. The note of how it was made is its attribute :data:`rdtf.io.metadata.NOTE`.

        Raises:
            StickerError: it cannot be read.
        """
        sticker = read_sticker(self.path, max_frames=MAX_SOURCE_FRAMES)
        note = note_of(self.path.read_bytes()) if self.keep_note else None
        attributes = {} if note is None else {NOTE: note}
        return Sticker(sticker.frames, sticker.durations, self.caption, attributes)

    def export(self, target: Target, max_bytes: int | None = None) -> Export:
        """The sticker's file for a target. Where it would be scaled up, :attr:`larger` is used.

        Raises:
            ValueError: it cannot be read, or no file of it can keep the target's rules.
        """
        sticker, change = self.read(), self.remark
        if target.canvas.side <= max(sticker.size):
            change = ""
        elif self.larger:
            again = read_sticker(self.larger)
            sticker = replace(sticker, frames=again.frames, durations=again.durations)
            change = f"drawn by its model at {again.size[0]} px"
        made = export_sticker(sticker, target, max_bytes=max_bytes)
        return replace(made, changes=[change, *made.changes]) if change else made


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """The sticker files that a user names, and those in the folders that a user names, with their captions.

    Raises:
        ValueError: a path is not there, or two stickers would be written to one name.
    """
    found: list[Source] = []
    for path in paths:
        if path.is_dir():
            for item in find_items(path, path.name).items:
                if not item.parts and item.member is None:
                    texts, attributes = item.caption.texts, item.caption.attributes
                    caption = texts[0] if texts else ""
                    found.append(Source(item.path.stem, item.path, caption, tuple(attributes.items())))
        elif path.is_file():
            found.append(Source(path.stem, path))
        else:
            raise ValueError(f"{path}: no such file or folder")
    if not found:
        raise ValueError(f"no stickers in {', '.join(map(str, paths))}; readable are {', '.join(sorted(SUFFIXES))}")
    names: dict[str, Path] = {}
    for source in found:
        if (other := names.setdefault(source.name.lower(), source.path)) != source.path:
            raise ValueError(f"{source.path} and {other} would be written to one name; rename one of them")
    return found


def export_all(
    sources: Sequence[Source], targets: Sequence[str], workers: int | None = None, max_bytes: int | None = None
) -> Iterator[tuple[Source, str, Export | str]]:
    """Each sticker for each target, as they are done.

    Yields:
        the sticker, the target's name, and the file or the reason why there is none.
    """
    jobs = [(source, target) for source in sources for target in targets]
    workers = workers or usable_cores()
    if workers == 1 or len(jobs) == 1:
        for source, target in jobs:
            yield source, target, _export_one(source, target, max_bytes)
        return
    with ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn")) as pool:
        futures = {pool.submit(_export_one, source, target, max_bytes): (source, target) for source, target in jobs}
        for future in as_completed(futures):
            yield *futures[future], future.result()


def _export_one(source: Source, target: str, max_bytes: int | None) -> Export | str:
    try:
        return source.export(load_target(target), max_bytes)
    except ValueError as error:
        return str(error)
