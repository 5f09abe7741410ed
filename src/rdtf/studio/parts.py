"""What the tabs of the page share: fields, errors as sentences, uploads."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported: nothing is sent, nothing is looked up

import gradio as gr

from rdtf.io.read import SUFFIXES
from rdtf.studio import views
from rdtf.studio.forms import Field
from rdtf.studio.library import Library
from rdtf.studio.maker import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

HIDDEN: dict[str, Any] = {"api_visibility": "private"}
"""Of events that belong to the page alone."""
ALONE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
EXPORTING: dict[str, Any] = {"concurrency_id": "export", "concurrency_limit": 1}


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose errors that a user can mend are shown as a sentence."""
    if Iterator.__name__ in str(function.__annotations__.get("return", "")):
        # Gradio looks whether it is a generator function. Checks of types would hide that, but leave a lambda alone.
        return functools.wraps(function)(lambda *args: (yield from _told(function, args)))

    @functools.wraps(function)
    def once(*args: Any) -> Any:
        with _sentences():
            return function(*args)

    return once


def _told(function: Callable[..., Iterator[Any]], args: tuple[Any, ...]) -> Iterator[Any]:
    with _sentences():
        yield from function(*args)


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise gr.Error(escape(str(error)), print_exception=False) from None


def component(field: Field) -> gr.components.Component:
    """A setting's field; left empty, the setting has its default."""
    label = field.flag.replace("-", " ")
    if field.kind is bool:
        return gr.Checkbox(False, label=label, info=field.text)
    return gr.Textbox(
        "", label=label, info=field.text, placeholder=field.default, max_lines=1, max_length=200, min_width=140
    )


def upload_field(label: str, elem_id: str) -> gr.File:
    """Where a sticker or a picture is dropped."""
    return gr.File(label=label, file_types=sorted(SUFFIXES), height=150, elem_id=elem_id)


def given(library: Library, file: str | None) -> str:
    """Keep an uploaded file, and remove it where Gradio has put it."""
    if file is None:
        return ""
    try:
        return library.give(Path(file))
    finally:
        Path(file).unlink(missing_ok=True)


def show(library: Library, keys: Sequence[str], picked: str = "") -> str:
    """Stickers of the library on chats' grounds."""
    return views.cards([library.entry(key) for key in keys], [picked])


def progress(step: Progress, count: int) -> str:
    """A bar about a generation of ``count`` stickers."""
    return views.bar(step.done, step.total, f"Step {step.done} of {step.total}, {len(step.keys)} of {count} ready")
