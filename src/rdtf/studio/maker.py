"""Making stickers: the models, one at a time in memory, and one generation at a time, with progress and cancel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdtf import hub
from rdtf.loading import load_pipeline
from rdtf.making import moved_remark, understand
from rdtf.options import MAX_FRAMES
from rdtf.provenance import Call, Given, Task, load_frames, make_noted
from rdtf.sticker import Sticker
from rdtf.studio.library import MOST_SIDE, Library
from rdtf.whole_figure import ANY_MOTION, NO_MOTION

if TYPE_CHECKING:
    from rdtf.pipeline import StickerPipeline

MOST_STICKERS = 8
MOST_WAITING = 100
MOST_CHARACTERS = 1000
_SECONDS = 0.2  # between two messages about the progress of a generation


class _Cancelled(Exception):
    """Nobody waits for this generation any more."""


@dataclass(frozen=True)
class Progress:
    """Where a generation stands.

    Attributes:
        done, total: denoising steps. keys: stickers that are ready.
        note: a sentence if the model does not know the caption and makes the nearest thing that it knows.
    """

    done: int
    total: int
    keys: tuple[str, ...] = ()
    note: str = ""


class Models:
    """Models by their names: the shipped one, those that were named at the start, and the studio's trainings."""

    def __init__(self, named: Sequence[Path], runs: Path) -> None:
        shipped = [hub.SHIPPED_FOLDER] if (hub.SHIPPED_FOLDER / hub.INDEX).is_file() else []
        self.named = {path.resolve().name: path for path in [*shipped, *named]}
        for path in named:
            hub.find_pipeline(path)  # so that a wrong folder is reported at once
        self._first = named[0].resolve().name if named else None
        self.runs = runs
        self._loaded: tuple[tuple[Path, int], StickerPipeline] | None = None
        self._loading = threading.Lock()  # exports load models too, in threads of their own

    def names(self) -> list[str]:
        """All models there are at this moment."""
        runs = sorted(path.parents[1].name for path in self.runs.glob(f"*/pipeline/{hub.INDEX}"))
        return [*self.named, *(name for name in runs if name not in self.named)]

    @property
    def preferred(self) -> str | None:
        """The model of a call that names none: the first one named at the start, else the first of :meth:`names`."""
        return self._first or next(iter(self.names()), None)

    def path(self, name: str) -> Path:
        """The folder of a model.

        Raises:
            ValueError: there is none of this name.
        """
        if name not in self.names():
            there = ", ".join(self.names()) or "none yet: train one, or start the studio with -m and a model's folder"
            raise ValueError(f"there is no model {name!r}; there are: {there}")
        return self.named.get(name, self.runs / name)

    def load(self, name: str) -> StickerPipeline:
        """The pipeline of a model; kept until another one is asked for or the model is saved anew."""
        folder = self.path(name)
        tag = (folder, (hub.find_pipeline(folder) / hub.INDEX).stat().st_mtime_ns)
        with self._loading:
            if self._loaded is None or self._loaded[0] != tag:
                self._loaded = None  # two of them may not fit into memory
                self._loaded = (tag, load_pipeline(folder))
            return self._loaded[1]


class Maker:
    """Makes stickers into a library, one call after the other, in the order of the calls."""

    def __init__(self, models: Models, library: Library) -> None:
        self.models, self.library = models, library
        self._turn = asyncio.Lock()
        self._calls = 0

    async def make(
        self,
        model: str,
        caption: str,
        *,
        pins: Sequence[tuple[int, str, int]] = (),
        count: int = 1,
        settings: dict[str, Any] | None = None,
    ) -> AsyncGenerator[Progress, None]:
        """Make stickers, and tell how far it is. Who closes this generator cancels the rest; ready stickers are kept.

        Args:
            pins: given frames as (position, key of a sticker, frame of it).
            count: stickers, with seeds counting up. A picture that moves as a whole gives one.
            settings: other arguments of the pipeline; None stands for the default. Around pins, a model with a copy
                decoder by default makes stickers of the size of the largest pinned frame, up to 512 px.

        Raises:
            ValueError: anything that the pipeline does not take, or too many wait.
        """
        settings = {name: value for name, value in (settings or {}).items() if value is not None}
        if len(caption) > MOST_CHARACTERS:
            raise ValueError(f"a caption has at most {MOST_CHARACTERS} characters, not {len(caption)}")
        if not 1 <= count <= MOST_STICKERS:
            raise ValueError(f"1 to {MOST_STICKERS} stickers can be made at once, not {count}")
        if len({position for position, _, _ in pins}) < len(pins) or len(pins) > MAX_FRAMES:
            raise ValueError(f"at most {MAX_FRAMES} frames can be pinned, each at a position of its own")
        given = [Given(position, self.library.path(key), frame) for position, key, frame in pins]
        self.models.path(model)
        if self._calls >= MOST_WAITING:
            raise ValueError(f"{MOST_WAITING} generations wait already; try again later")
        self._calls += 1
        try:
            async with self._turn:
                progress, stop = Progress(0, 1), threading.Event()

                def tell(now: Progress) -> None:
                    nonlocal progress
                    if stop.is_set():
                        raise _Cancelled
                    progress = now

                work = asyncio.create_task(asyncio.to_thread(self._make, tell, model, caption, given, count, settings))
                try:
                    while not work.done():
                        yield progress
                        await asyncio.wait([work], timeout=_SECONDS)
                    await work
                    yield progress
                finally:
                    stop.set()
                    await asyncio.wait([work])  # the next call must not begin before the thread has ended
                    work.exception()  # else asyncio would print that nobody has asked for it
        finally:
            self._calls -= 1

    def _make(
        self,
        tell: Callable[[Progress], None],
        model: str,
        caption: str,
        given: Sequence[Given],
        count: int,
        settings: dict[str, Any],
    ) -> None:
        keys: list[str] = []
        made: list[Sticker] = []
        tell(Progress(0, 1))
        pipe = self.models.load(model)
        fit, words = understand(pipe, caption, given=[one.position for one in given])
        caption, settings = fit.caption, {**words, **settings}
        note = fit.note
        if given and settings.get("motion", NO_MOTION) not in (NO_MOTION, ANY_MOTION):
            count = 1  # a moved picture is the same for every seed
        frames = load_frames(given)
        if given and pipe.copy_decoder is not None:  # it draws with the given pixels, and messengers show 512 px
            side = min(max(max(frame.shape[:2]) for frame in frames.values()), MOST_SIDE)
            settings = {"output_size": max(side, pipe.config.sample_size), **settings}
        call = Call(task_of([one.position for one in given]), str(self.models.path(model)), caption, settings, given)
        # On a processor a batch is no faster than its stickers one by one, which are shown as they are ready.
        each = 1 if pipe.device.type == "cpu" else count
        rounds, before = count // each, 0

        def on_step(done: int, total: int) -> None:
            tell(Progress(before * total + done, rounds * total, tuple(keys), note))

        for before in range(rounds):
            part = {"seed": settings.get("seed", 0) + before * each, "num_stickers_per_prompt": each}
            stickers = make_noted(pipe, replace(call, settings={**settings, **part}), frames, on_step)
            keys += map(self.library.add, stickers)
            made += stickers
        note = ". ".join(filter(None, (note, moved_remark(fit, settings, made))))
        tell(Progress(1, 1, tuple(keys), note))


def task_of(positions: Sequence[int]) -> Task:
    """The command that does the same with frames at these positions."""
    if len(positions) < 2:
        return "animate" if positions else "generate"
    together = max(positions) - min(positions) == len(positions) - 1
    return "extend" if together else "inbetween"
