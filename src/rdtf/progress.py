"""Progress bars that stay readable where there is no terminal."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Control characters, and invisible ones that reorder text; the joiners that emoji and scripts need are left.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """Text of others, as a file name, made harmless for a terminal: what cannot be seen is escaped as in ``\\x1b``.

    Args:
        keep: characters that stay as they are.
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


class _Console(Console):
    """A console that escapes what could steer a terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(o, "\n\t") if isinstance(o, str) else o for o in objects), **options)


console = _Console(stderr=True)


def bars() -> Progress:
    """A rich ``Progress`` in the project's style; use as a context manager.

    Add tasks with ``bars.add_task("what", total=n, note="")``; ``note`` is a free text behind the bar.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


def duration(seconds: float) -> str:
    """``2 h 05 min`` or ``5 min 09 s``."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"
