"""Commands about data: draw, prepare, inspect and export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rdtf.cli.common import say, takes
from rdtf.options import PREPARE_OPTIONS

_SHOWN = 5  # files that could not be read


def world(
    out: Annotated[Path, typer.Argument(help="New folder for the sticker files.")],
    count: Annotated[int, typer.Option(min=1, help="Number of stickers.")] = 1000,
    seed: Annotated[int, typer.Option(help="Each sticker is a function of seed and index.")] = 0,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Height and width in pixels.")] = 64,
    vocabulary: Annotated[str, typer.Option(help="full or small.")] = "full",
    style: Annotated[str, typer.Option(help="outlined, or flat: pastel colours without outlines.")] = "outlined",
    file_format: Annotated[str, typer.Option("--format", help="webp or apng.")] = "webp",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Draw captioned stickers with the built-in world."""
    from rdtf.world import write_world

    write_world(out, count, seed, size=size, format=file_format, vocabulary=vocabulary, style=style, workers=workers)
    say(f"Wrote {count} stickers to {out}")


def move_stills(
    sources: Annotated[list[Path], typer.Argument(help="Folders or archives of stills; last the new folder.")],
    size: Annotated[int, typer.Option(min=16, max=1024, help="Height and width in pixels.")] = 128,
    motions: Annotated[
        list[str] | None,
        typer.Option(
            "--motion",
            help="bounce, dance, fly, grow, jump, peek, shiver, spin or turn; repeatable.",
            show_default="bounce, dance, fly, jump, shiver",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many, drawn at random.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the stills and their motions.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Let still pictures jump, fly or dance: moving stickers for `rdtf prepare`, captioned by their motion."""
    from rdtf.data.moved_stills import SMALL_MOTIONS, write_moved_stills

    if len(sources) < 2:
        raise ValueError("give at least one folder or archive of stickers and then the folder to make")
    *stills, out = sources
    count, problems = write_moved_stills(
        stills, out, size=size, motions=motions or SMALL_MOTIONS, limit=limit, seed=seed, workers=workers
    )
    for problem in problems[:_SHOWN]:
        say(f"left out: {problem}")
    if len(problems) > _SHOWN:
        say(f"and {len(problems) - _SHOWN} more")
    say(f"Wrote {count:,} stickers to {out}")


@takes(PREPARE_OPTIONS)
def prepare(
    sources: Annotated[list[Path], typer.Argument(help="Folders, archives, tables or files; last the dataset folder.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Let a dataset become one of other settings or sources.")
    ] = False,
    *,
    given: dict[str, Any],
) -> None:
    """Read stickers out of folders, archives (ZIP, TAR) and Parquet tables into a dataset.

    Stopped, or killed? The same command goes on. Over a finished dataset it does only what has changed.
    """
    from rdtf.data.prepare import prepare as run
    from rdtf.data.settings import PrepareSettings, choose_features

    if len(sources) < 2:
        raise ValueError("give at least one folder or archive of stickers and then the dataset folder to make")
    for names in {"licenses", "styles"} & given.keys():
        parted = [text.rpartition("=") for text in given[names]]
        given[names] = {label: name.strip() for label, _, name in parted}
    if "styles" in given:
        given["caption_style"] = True
    given |= choose_features(given.get("features", "builtin"))
    say(run(sources[:-1], sources[-1], PrepareSettings.model_validate(given), overwrite=overwrite).summary())


def export(
    data: Annotated[Path, typer.Argument(help="Prepared dataset.")],
    out: Annotated[Path, typer.Argument(help="New folder.")],
    title: Annotated[str | None, typer.Option(help="For the card; default: the dataset's name.")] = None,
) -> None:
    """Write a dataset as files with a metadata.jsonl and a card, as `datasets` and `rdtf prepare` read them."""
    from rdtf.data.publish import CARD
    from rdtf.data.publish import export as run

    run(data, out, title=title)
    say(f"{out}: the stickers and a card, {CARD}")


def inspect(
    data: Annotated[Path, typer.Argument(help="Prepared dataset.")],
    out: Annotated[Path, typer.Argument(help="Folder for the page and the lists beside it.")],
    count: Annotated[int, typer.Option(min=1, help="Clips shown as training draws them.")] = 24,
    seed: Annotated[int, typer.Option(help="Which stickers.")] = 0,
) -> None:
    """Write a page about a dataset: numbers, checks, near-duplicates, rejected files, what training will see."""
    from rdtf.data.inspect import inspect_dataset

    say(f"Open {inspect_dataset(data, out, count=count, seed=seed)}")
