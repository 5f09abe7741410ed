"""Commands that measure: evaluate, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rdtf.cli.common import STOPPED, check_given, say, takes
from rdtf.hub import SHIPPED
from rdtf.options import OTHERS, Model, option
from rdtf.progress import console

EVALUATE: dict[str, Any] = {
    "model": Model,
    "splits": option(list[str], "Splits to measure on.", "val and test", "--split"),
    "samples": option(int, "Samples a clip.", 8, min=1),
    "steps": option(int, "Denoising steps.", "the model's", min=1),
    "limit": option(int, "Largest number of clips.", "all", min=1),
    "seed": option(int, "Same seed, same pixels.", 0),
    "clip": option(Path, "Folder of a CLIP or Chinese-CLIP model."),
    "fvd": option(Path, "I3D TorchScript file of StyleGAN-V."),
    "judge": option(str, "For FD-sticker and text agreement: builtin, or a judge's folder."),
    "namer": option(Path, "Folder of a namer: can made stickers be named?"),
}
"""Arguments of ``rdtf.evaluate.evaluate.evaluate`` by their options."""


@takes(EVALUATE)
def evaluate(
    data: Annotated[Path, typer.Argument(help="Prepared dataset with held-out splits.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file for the result.")] = Path("evaluation.json"),
    *,
    given: dict[str, Any],
) -> None:
    """Measure a model on held-out stickers: frames filled in, beside what needs no model, and stickers made."""
    model = given.pop("model", SHIPPED)
    check_given(data, model=model)
    from rdtf.evaluate.evaluate import evaluate as run

    result = run(model, data, out=out, **given)
    for table in result.tables():
        console.print(table)
    for name, reason in result.left_out.items():
        say(f"Not measured: {name} ({reason})")
    say(f"Wrote {out}")


@takes({"settings": OTHERS})
def compare(
    data: Annotated[Path | None, typer.Argument(help="Prepared dataset; default: drawn by the built-in world.")] = None,
    suite: Annotated[str, typer.Option(help="small or medium.")] = "small",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything; the same one goes on.")] = Path(
        "comparison"
    ),
    variants: Annotated[
        list[str] | None, typer.Option("--variant", help="Only this one and the reference; again for more.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the reference; all others get its compute.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many; each is a run of every variant.")] = None,
    pixels: Annotated[int | None, typer.Option(min=8, help="Of drawn stickers; a dataset has its own.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; default: one a core, or one a GPU.")] = None,
    judge: Annotated[str, typer.Option(help="builtin, or a judge's folder.")] = "builtin",
    *,
    given: dict[str, Any],
) -> None:
    """Train every variant of a suite at equal compute, measure them, and write the tables and a page.

    The suites: small, the paper's comparisons for two processor cores; medium, the same for a GPU. ``--set`` is for
    all of a suite's trainings. Stopped? The same command goes on. Exit code 75: stopped by Ctrl-C or SIGTERM.
    """
    from rdtf.research.compare import Comparison, ComparisonStopped
    from rdtf.research.compare import compare as run
    from rdtf.research.compare.suites import suite_named

    if data is not None and pixels is not None:
        raise ValueError(f"--pixels is for drawn stickers; those of {data} have the size they were prepared in")
    chosen = suite_named(suite).part(variants, steps=steps, seeds=seeds, pixels=pixels, settings=given)
    try:
        page = run(Comparison(chosen, out, data, judge), jobs)
    except ComparisonStopped as stopped:
        say(str(stopped))
        raise typer.Exit(STOPPED) from None
    say(f"Wrote {page.with_name('tables.md')} and {page}")
