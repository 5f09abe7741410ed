"""Commands that measure: evaluate, compare, train-judge, train-namer, verify-resume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rdtf.cli.common import OTHERS, STOPPED, check_given, option, say, takes, training_options
from rdtf.cli.make import Model
from rdtf.hub import SHIPPED
from rdtf.progress import console

EVALUATE: dict[str, Any] = {
    "model": Model,
    "splits": option(list[str], "Splits to measure on.", "val and test", "--split"),
    "samples": option(int, "Samples a clip.", 8, min=1),
    "steps": option(int, "Denoising steps.", "the model's", min=1),
    "limit": option(int, "Largest number of clips.", "all", min=1),
    "seed": option(int, "Same seed, same pixels.", 0),
    "clip": option(Path, "Folder of a CLIP or Chinese-CLIP model."),
    "lpips": option(Path, "Folder with alexnet*.pth and alex.pth."),
    "fvd": option(Path, "I3D TorchScript file of StyleGAN-V."),
    "judge": option(str, "For FD-sticker and text agreement: builtin, or a folder of rdtf train-judge."),
    "namer": option(Path, "Folder of rdtf train-namer: can made stickers be named?"),
    "quality": option(Path, "Folder with ONNX files of DOVER or FAST-VQA."),
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
    suite: Annotated[str, typer.Option(help="small, medium or recipes.")] = "small",
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
    judge: Annotated[str, typer.Option(help="builtin, or a folder of rdtf train-judge.")] = "builtin",
    *,
    given: dict[str, Any],
) -> None:
    """Train every variant of a suite at equal compute, measure them, and write the tables and a page.

    The suites: small, the paper's comparisons for two processor cores; medium, the same for a GPU; recipes, what the
    recipe's choices are worth. ``--set`` is for all of a suite's trainings. Stopped? The same command goes on. Exit
    code 75: stopped by Ctrl-C or SIGTERM.
    """
    from rdtf.research.compare import ComparisonStopped
    from rdtf.research.compare import compare as run
    from rdtf.research.compare.suites import suite_named

    if data is not None and pixels is not None:
        raise ValueError(f"--pixels is for drawn stickers; those of {data} have the size they were prepared in")
    chosen = suite_named(suite).part(variants, steps=steps, seeds=seeds, pixels=pixels, settings=given)
    try:
        page = run(chosen, out, data, jobs=jobs, judge=judge)
    except ComparisonStopped as stopped:
        say(str(stopped))
        raise typer.Exit(STOPPED) from None
    say(f"Wrote {page.with_name('tables.md')} and {page}")


JUDGE: dict[str, Any] = {
    "features": option(int, "Numbers in a feature.", 32),
    **training_options(1200),
}
"""Settings of ``JudgeTrainSettings`` by their options."""


@takes(JUDGE)
def train_judge(out: Annotated[Path, typer.Argument(help="The new judge's folder.")], *, given: dict[str, Any]) -> None:
    """Train a judge of sticker clips, for FD-sticker and text agreement, on the built-in world."""
    from rdtf.research.train_judge import JudgeTrainSettings
    from rdtf.research.train_judge import train_judge as run

    console.print(run(out, JudgeTrainSettings.model_validate(given)))


NAMER: dict[str, Any] = {
    "name_by": option(str, "What names a sticker: caption, or a metadata field.", "caption"),
    **training_options(6000),
    "settings": OTHERS,
}
"""Settings of ``NamerTrainSettings`` by their options."""


@takes(NAMER)
def train_namer(
    data: Annotated[Path, typer.Argument(help="Prepared dataset; all its splits are used.")],
    out: Annotated[Path, typer.Argument(help="The new namer's folder.")],
    *,
    given: dict[str, Any],
) -> None:
    """Train a network that names stickers, to measure whether made ones can be named."""
    from rdtf.research.train_namer import NamerTrainSettings
    from rdtf.research.train_namer import train_namer as run

    console.print(run(data, out, NamerTrainSettings.model_validate(given)))


def verify_resume(
    source: Annotated[Path, typer.Argument(help="A run's folder, or a prepared dataset's.")],
    steps: Annotated[int, typer.Option(min=4, help="Steps to compare.")] = 6,
) -> None:
    """Show that a run killed with kill -9 and resumed is the unbroken one, bit by bit; exit code 1 if it is not."""
    from rich.table import Table

    from rdtf.research.verify_resume import verify_resume as run

    result = run(source, steps=steps)
    table = Table("part", "unbroken (SHA-256)", "killed and resumed", "")
    table.title = f"{result.steps} steps from step {result.first} on, killed at {' and '.join(result.kills)}"
    for name, digest in result.unbroken.items():
        other = result.killed.get(name, "")
        table.add_row(name, digest[:16], other[:16], "equal" if digest == other else "[red]different[/red]")
    console.print(table)
    for line in result.differences:
        say(line)
    if result.differences:
        raise typer.Exit(1)
