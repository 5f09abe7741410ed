"""The studio's endpoints for scripts, as Gradio's API page shows them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from rdtf.options import FRAMES_OPTIONS, WORDS_OPTIONS
from rdtf.studio.forms import fields_of, named_values
from rdtf.studio.library import GIVEN, MADE
from rdtf.studio.parts import EXPORTING, FOUR, plainly, sentences
from rdtf.studio.state import Studio


def endpoints(studio: Studio) -> dict[Callable[..., Any], dict[str, Any]]:
    """Functions for scripts, with the options of their events."""
    library = studio.library
    every = {**WORDS_OPTIONS, **FRAMES_OPTIONS}
    fields = fields_of(every, [n for n in every if n not in ("out", "model", "seed", "num_stickers_per_prompt")])

    def facts(key: str) -> dict[str, Any]:
        entry = library.entry(key)
        return {"sticker": key, "url": f"/stickers/{key}", "caption": entry.caption, "seed": entry.seed}

    async def make(
        caption: str,
        model: str = "",
        count: int = FOUR,
        seed: int = 0,
        frames: list[dict[str, Any]] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Make stickers; /models names the models, the first one is the default.

        frames: given ones, as {"position": 0, "sticker": KEY, "frame": 0}; /give makes a key of a file.
        settings: as the options of `rdtf generate` and `rdtf animate`, by the names of the pipeline's arguments.
        """
        with sentences():
            values = named_values(fields, settings or {})
            pins = [(int(f["position"]), str(f["sticker"]), int(f.get("frame", 0))) for f in frames or []]
            name = model or studio.models.preferred or ""
            keys: tuple[str, ...] = ()
            work = studio.maker.make(name, caption, pins=pins, count=count, settings={**values, "seed": seed})
            async with aclosing(work) as steps:
                async for step in steps:
                    keys = step.keys
            return [facts(key) for key in keys]

    def models() -> list[str]:
        """The names of the models."""
        return studio.models.names()

    def stickers(kind: str = MADE, start: int = 0, count: int = 100) -> list[dict[str, Any]]:
        """Stickers in the studio's folder, newest first; kind is made or given."""
        if kind not in (MADE, GIVEN):
            raise ValueError(f"kind is {MADE} or {GIVEN}, not {kind!r}")
        return [facts(key) for key in library.listed(kind)[max(start, 0) :][: min(max(count, 0), 1000)]]

    def export(sticker: str, target: str) -> dict[str, Any]:
        """The file of a sticker for a messenger, as `rdtf export` makes it; its url begins at the studio's address."""
        path, made = library.export(sticker, target)
        return {"url": f"/exports/{path.name}", **made.facts()}

    def pack(stickers: list[str], target: str, name: str = "My stickers", author: str = "RDTF") -> dict[str, Any]:
        """Packs of stickers for a messenger, as `rdtf pack` makes them, in a ZIP file."""
        path, left_out = library.pack(stickers, target, name, author)
        return {"url": f"/exports/{path.name}", "left_out": left_out}

    others: dict[Callable[..., Any], dict[str, Any]] = {export: EXPORTING, pack: EXPORTING, models: {}, stickers: {}}
    return {make: {"concurrency_limit": None}, **{plainly(function): options for function, options in others.items()}}
