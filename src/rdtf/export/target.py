"""What a messenger asks of a sticker file: one JSON file for each target, with its source and the day it was read."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

AIM = 0.97
"""Share of the byte limit that the search fills: 256 KiB is then below 256,000 bytes too, whichever was meant."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Canvas(_Table):
    """The size rule.

    Attributes:
        rule: ``exact``: width x height. ``longest``: the longer side is ``width``, the other is at most that.
            ``square``: a square of ``smallest`` to ``width``. ``line``: within width x height, and one side at least
            ``smallest``. ``free``: any size.
        width, height: pixels. smallest: pixels.
    """

    rule: Literal["exact", "longest", "square", "line", "free"]
    width: int = Field(0, ge=0)
    height: int = Field(0, ge=0)
    smallest: int = Field(1, ge=1)

    @property
    def side(self) -> int:
        """Side of a square sticker on the canvas; 0 where it may have any."""
        return min(self.width, self.height or self.width)


class Picture(_Table):
    """A still picture that a pack needs beside its stickers; sides in pixels."""

    width: int
    height: int
    max_bytes: int

    @property
    def canvas(self) -> Canvas:
        """Its size as a rule."""
        return Canvas(rule="exact", width=self.width, height=self.height)


class PackRules(_Table):
    """What a pack of stickers has to hold.

    Attributes:
        min, max: number of stickers. counts: the only numbers allowed, if not every one.
        one_kind: all stickers move, or none does.
        emoji: fewest and most emoji for each sticker. tray, main, tab: pictures of the pack.
        name_characters, alt_characters, still_alt_characters: longest texts. zip_bytes: of all files in one ZIP.
    """

    min: int = 1
    max: int
    counts: tuple[int, ...] = ()
    one_kind: bool = False
    emoji: tuple[int, int] = (0, 0)
    tray: Picture | None = None
    main: Picture | None = None
    tab: Picture | None = None
    name_characters: int = 128
    alt_characters: int = 255
    still_alt_characters: int = 125
    zip_bytes: int | None = None


class Target(_Table):
    """The limits of one messenger and kind of sticker.

    Attributes:
        title: for people. format: of the file.
        canvas: size rule. sizes: other side lengths of an exact square that are accepted too.
        max_bytes: of the file; still_max_bytes: of a file with one frame.
        max_ms, whole_seconds: of one play. max_fps, min_frame_ms: of single frames.
        min_frames, max_frames: counted after equal neighbours are merged.
        loops: ``forever``: the file has to loop endlessly. ``counted``: 1 to ``max_loops`` plays that together take at
            most ``max_total_ms``. ``any``: no rule; the export loops endlessly.
        alpha: ``full``, or ``binary`` (a pixel is opaque or transparent).
        first_frame_is_still: the messenger shows the first frame where nothing moves.
        truecolour: a PNG must not have a palette.
        metadata: a note of how the sticker was made may stand in the file.
        source, checked_on: where the limits stand, and when they were read.
    """

    title: str
    format: Literal["webm", "webp", "apng", "gif"]
    canvas: Canvas
    sizes: tuple[int, ...] = ()
    max_bytes: int | None = None
    still_max_bytes: int | None = None
    max_ms: float | None = None
    whole_seconds: tuple[int, ...] = ()
    max_fps: float | None = None
    min_frame_ms: float = 0.0
    min_frames: int = 1
    max_frames: int | None = None
    loops: Literal["any", "forever", "counted"] = "any"
    max_loops: int = 0
    max_total_ms: float | None = None
    alpha: Literal["full", "binary"] = "full"
    first_frame_is_still: bool = False
    truecolour: bool = False
    metadata: bool = True
    pack: PackRules | None = None
    source: str
    checked_on: str

    @property
    def suffix(self) -> str:
        """The ending of the file; an APNG is a ``.png`` for every messenger."""
        return {"webm": ".webm", "webp": ".webp", "apng": ".png", "gif": ".gif"}[self.format]

    def limit(self, frames: int) -> int | None:
        """The byte limit of a file with that many frames."""
        return self.still_max_bytes if frames == 1 and self.still_max_bytes else self.max_bytes


@cache
def target_names() -> tuple[str, ...]:
    """The built-in targets."""
    folder = resources.files("rdtf.export") / "limits"
    return tuple(sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json")))


def load_target(name: str) -> Target:
    """A target by its name, or from a JSON file of the user's own.

    Raises:
        ValueError: no such target, or the file is not of that form.
    """
    if name in target_names():
        text = (resources.files("rdtf.export") / "limits" / f"{name}.json").read_text("utf-8")
    elif name.endswith(".json") and Path(name).is_file():
        text = Path(name).read_text("utf-8")
    else:
        near = difflib.get_close_matches(name, target_names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no target {name!r}{hint} Choose from {', '.join(target_names())}, or give a JSON file")
    try:
        return Target.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{name}: {where}: {first['msg']}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON ({error})") from error
