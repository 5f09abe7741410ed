"""Generated stickers on a canvas larger than they are: their model draws them again at that size.

A filter that scales up makes soft edges. The decoder makes crisp ones, with the pixels of given frames at their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rdtf.export.batch import Source
from rdtf.export.search import psnr_over_time
from rdtf.export.target import Target
from rdtf.hub import find_pipeline
from rdtf.io.encode import Clip
from rdtf.io.metadata import note_of
from rdtf.io.write import save_sticker
from rdtf.provenance import find_given, inputs_near, make_again, read_made
from rdtf.sticker import Sticker

if TYPE_CHECKING:  # torch takes seconds, and most stickers are not generated
    from rdtf.pipeline import StickerPipeline

_ALIKE_DB = 30.0  # between a file and what its note makes; lossy files have more
Load = Callable[[str], "StickerPipeline"]


def loader(model: str | None = None) -> Load:
    """Loads pipelines by the names in notes, and keeps the last one.

    Args:
        model: taken in place of every name.
    """
    kept: dict[str, StickerPipeline] = {}

    def load(name: str) -> StickerPipeline:
        name = model or Path(name).name
        if name not in kept:
            folder = find_pipeline(name)
            from rdtf.loading import load_pipeline

            kept.clear()
            kept[name] = load_pipeline(folder)
        return kept[name]

    return load


def with_larger(source: Source, targets: Sequence[Target], folder: Path, load: Load) -> Source:
    """A source with its sticker drawn larger, where a target's canvas is larger than it and a model has made it.

    What hinders the model is kept as the source's remark.

    Args:
        folder: for the file. load: gives the pipeline of a model's name.
    """
    try:
        if note_of(source.path.read_bytes()) is None:
            return source
        sticker, side = source.read(), max(target.canvas.side for target in targets)
        if side <= max(sticker.size):
            return source
        file = folder / f"{source.name}.webp"
        save_sticker(_drawn(source.path, sticker, side, load), file)
    except (ValueError, OSError) as error:
        return replace(source, remark=f"scaled up by a filter, for its model cannot draw it again: {error}")
    return replace(source, larger=file)


def _drawn(path: Path, sticker: Sticker, side: int, load: Load) -> Sticker:
    from rdtf.making import MOVED  # it imports torch

    made = read_made(path)
    given = find_given(made, inputs_near(made, path))
    pipeline = load(made.model)
    again = make_again(made, pipeline, given)
    if not _alike(sticker, again):
        raise ValueError("the file was changed after it had been made")
    larger = make_again(made, pipeline, given, output_size=side)
    if larger.attributes.get(MOVED) != again.attributes.get(MOVED):
        raise ValueError("at that size it would move in another way")
    return larger


def _alike(found: Sticker, made: Sticker) -> bool:
    """Whether two stickers show the same at all times. Files may hold equal neighbours as one frame."""
    seen, master = Clip(found.frames, found.durations), Clip(made.frames, made.durations)
    late = abs(seen.starts()[-1] - master.starts()[-1])
    rounding = 10 * len(made)  # files round the times of frames to 1 or 10 ms
    return found.size == made.size and late <= rounding and psnr_over_time(seen, master) >= _ALIKE_DB
