"""What the tabs of the page share: fields, errors as sentences, uploads."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from html import escape
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported: nothing is sent, nothing is looked up

import gradio as gr

from rdtf.io.read import SUFFIXES
from rdtf.studio import views
from rdtf.studio.forms import Field
from rdtf.studio.library import Library
from rdtf.studio.maker import Progress

HIDDEN: dict[str, Any] = {"api_visibility": "private"}
"""Of events that belong to the page alone."""
FOUR = 4
"""Stickers that are made at once, where nothing else is said."""
EXPORTING: dict[str, Any] = {"concurrency_id": "export", "concurrency_limit": 1}


@contextmanager
def sentences() -> Iterator[None]:
    """Show errors that a user can mend as a sentence."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise gr.Error(escape(str(error)), print_exception=False) from None


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function with its errors as :func:`sentences`."""
    return sentences()(function)


def generation(
    runs: Sequence[tuple[Callable[..., Any], Callable[..., AsyncGenerator[tuple[Any, ...], None]]]],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    buttons: Sequence[gr.Button],
    cancel: gr.Button,
) -> None:
    """Begin generations. While one goes on, the buttons are disabled, and ``cancel``, which ends it, is enabled.

    Args:
        runs: what triggers them, and what they do with the inputs.
        outputs: the first one shows the state.
    """

    def guarded(run: Callable[..., AsyncGenerator[tuple[Any, ...], None]]) -> Callable[..., AsyncGenerator[Any, None]]:
        async def steps(*args: Any) -> AsyncGenerator[tuple[Any, ...], None]:
            held = able(False)
            with sentences():
                async with aclosing(run(*args)) as values:
                    async for value in values:
                        yield (*value, *held)
                        held = [gr.skip() for _ in held]

        return steps

    def able(free: bool) -> list[Any]:
        return [gr.update(interactive=free) for _ in buttons] + [gr.update(interactive=not free)]

    switched = [*buttons, cancel]
    free = functools.partial(able, True)
    options: dict[str, Any] = {"queue": False, **HIDDEN}
    begun = [
        trigger(guarded(run), inputs, [*outputs, *switched], concurrency_limit=None, **HIDDEN) for trigger, run in runs
    ]
    for event in begun:
        event.then(free, None, switched, **options)
    ended = cancel.click(None, cancels=begun, **options)
    text = views.note("Cancelled. Stickers that were ready are in the history.")
    ended.then(lambda: (text, *free()), None, [outputs[0], *switched], **options)


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


def progress(step: Progress) -> str:
    """A bar about a generation."""
    return views.bar(step.done, step.total, f"Step {step.done} of {step.total}, ready: {len(step.keys)}")
