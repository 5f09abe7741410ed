"""What all commands share: messages, errors, and options that stand for settings."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from rdtf.options import option
from rdtf.progress import console

STOPPED = 75
"""Exit code of a training that was asked to stop and has saved (EX_TEMPFAIL): start the command again."""


def training_options(steps: int) -> dict[str, Any]:
    """Options that every smaller training has; ``steps`` is the default that help shows."""
    return {
        "steps": option(int, "Optimiser steps.", steps),
        "minutes": option(float, "End earlier, at this time, with the schedule complete."),
        "seed": option(int, "Seed of everything drawn.", 0),
        "threads": option(int, "CPU threads."),
    }


def check_given(*data: Path, model: str | None = None) -> None:
    """Check that datasets and a model are there, before torch is imported, which takes seconds.

    Raises:
        ValueError: a folder is missing, or of another kind.
    """
    if data:
        from rdtf.data.dataset import read_manifest

        for folder in data:
            read_manifest(folder)
    if model is not None:
        from rdtf.hub import find_pipeline

        find_pipeline(model)


def say(text: str, *, markup: bool = False) -> None:
    """Print a line. Nothing in it is taken for markup, and no path is broken in the middle."""
    console.print(text, markup=markup, highlight=False, soft_wrap=True)


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a user's mistake into one line and an exit code, without a traceback.

    The code is the error's attribute ``exit_code``, else 2.
    """

    @functools.wraps(command)
    def guarded(*args: Any, **values: Any) -> None:
        try:
            command(*args, **values)
        except typer.Exit:  # the command has said why
            raise
        except KeyboardInterrupt:
            console.print("Stopped.")
            raise typer.Exit(130) from None
        except Exception as error:
            code = getattr(error, "exit_code", None)
            if code is None and not isinstance(error, ValueError | OSError | ImportError):
                raise
            console.quiet = False  # in a training of several processes only the first one prints otherwise
            process = f" in process {os.environ['RANK']}" if "RANK" in os.environ else ""
            for line in _sentences(error):
                say(f"[red]Error{process}:[/red] {escape(line)}", markup=True)
            raise typer.Exit(code or 2) from None

    return guarded


def _sentences(error: Exception) -> list[str]:
    pydantic = sys.modules.get("pydantic")  # not imported: then the error cannot be one of pydantic's
    if pydantic is None or not isinstance(error, pydantic.ValidationError):
        return [str(error)]
    problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()]
    return [f"{name + ': ' if name else ''}{text.removeprefix('Value error, ')}" for name, text in problems]


def takes(options: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each of ``options``, which maps a setting's name to an annotation of typer's.

    The command gets the settings that the user gave as a dictionary, in its argument ``given``. Settings that the user
    left out are not in it, so defaults and limits stand in the settings' class alone. An option named ``settings``
    (see :data:`rdtf.options.OTHERS`) adds any other setting to it; options of their own count more.
    """

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        own = [parameter for name, parameter in signature(command, eval_str=True).parameters.items() if name != "given"]
        shared = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in options.items()
        ]

        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            said = {name: value for name in options if (value := values.pop(name)) not in (None, [], ())}
            others = assignments(said.pop("settings", ()))
            if "recipe" in others:
                raise ValueError("--set recipe: name the recipe with --recipe")
            command(**values, given={**others, **said})

        parameters = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own] + shared
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        with_options.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return with_options

    return wrap


def assignments(pairs: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """``["a.b=1", "c=x"]`` to ``{"a": {"b": 1}, "c": "x"}``.

    Raises:
        ValueError: a pair without ``=``, or a name below one that has a value.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise ValueError(f"--set {pair}: write it as name=value")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        *parents, last = name.split(".")
        inner = values
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ValueError(f"--set {pair}: {parent} has the value {inner!r} already")
        inner[last] = value
    return values
