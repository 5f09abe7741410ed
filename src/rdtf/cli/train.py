"""Commands about training: demo, train, finetune, plan, report, train-codec, train-copy-decoder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rdtf.cli.common import STOPPED, check_given, say, takes, training_options
from rdtf.hub import SHIPPED
from rdtf.options import OTHERS, TRAIN_OPTIONS, Model, option
from rdtf.progress import console

Recipe = Annotated[str | None, typer.Option(help="fast, paper or tune; default: fast, or tune with --from.")]


def demo(
    out: Annotated[Path, typer.Argument(help="Folder for everything the demo makes.")] = Path("demo"),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps; more make better stickers.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of stickers, training and generation.")] = 0,
) -> None:
    """Make stickers with the package's model, then train a small one on drawn stickers, and show both on a page."""
    from rdtf.cli.demo import run_demo

    say(f"Open {run_demo(out, steps=steps, seed=seed)}")


@takes(TRAIN_OPTIONS)
def train(
    data: Annotated[Path, typer.Argument(help="Prepared dataset.")],
    run: Annotated[Path, typer.Argument(help="New folder for the run (an existing one with --resume).")],
    recipe: Recipe = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint; other options change settings.")
    ] = False,
    resume_from: Annotated[
        str | None, typer.Option(help="Go on from this checkpoint and no other: a step, or a checkpoint's folder.")
    ] = None,
    *,
    given: dict[str, Any],
) -> None:
    """Train a generator from scratch, or with --from go on from a trained one.

    Exit codes: 0 finished; 75 stopped by Ctrl-C or SIGTERM after saving, start again with --resume; 70 loss not
    finite; 71 out of memory; 74 disk full or not writable; 2 anything else that is wrong; 130 stopped at once.
    """
    if not resume and resume_from is None:
        check_given(data)
    from rdtf.train.run import resume as resume_training
    from rdtf.train.run import train as run_training
    from rdtf.train.settings import recipe_settings

    if resume or resume_from is not None:
        if recipe is not None:
            raise ValueError("--recipe cannot change when a run is resumed; its settings are saved in the run")
        report = resume_training(data, run, start=resume_from, **given)
    else:
        report = run_training(data, run, recipe_settings(recipe, **given))
    state = "finished" if report.finished else "stopped; go on with --resume"
    say(f"{report.run}: {report.steps} steps in {report.seconds / 60:.1f} min, {state}")
    if not report.finished:
        raise typer.Exit(STOPPED)


FINETUNE: dict[str, Any] = {
    "model": Model,
    "tune": option(str, "lora: train small added layers alone.", "all weights"),
    "minutes": option(float, "Length of the training. The command turns it into a fixed number of steps.", 15),
    "steps": option(int, "Optimiser steps, instead of --minutes."),
    "replay": option(
        int,
        "Stickers that the model draws of what it knows and is trained on too, against forgetting.",
        "96, with --tune 0",
    ),
    "seed": option(int, "Seed of everything drawn.", 0),
    "threads": option(int, "CPU threads."),
}
"""Attributes of ``Finetuning`` by their options."""


@takes(FINETUNE)
def finetune(
    stickers: Annotated[Path, typer.Argument(help="Folder or archive of 20 to 500 stickers.")],
    run: Annotated[Path, typer.Argument(help="New folder for the model; the same command resumes it.")],
    *,
    given: dict[str, Any],
) -> None:
    """Tune a trained model on your own few stickers, and show what it makes of held-out ones before and after.

    The same command resumes a run that was stopped. Exit codes are those of rdtf train.
    """
    from rdtf.finetune import SHEET, Finetuning
    from rdtf.finetune import finetune as run_finetuning

    report = run_finetuning(Finetuning(str(stickers), **given), run)
    if not report.finished:
        say(f"{run}: stopped after {report.steps} steps; the same command resumes it")
        raise typer.Exit(STOPPED)
    say(
        f"{run}: {report.steps} steps in {report.seconds / 60:.1f} min. Look at {run / SHEET}, and use it with -m {run}"
    )


@takes(TRAIN_OPTIONS)
def plan(
    data: Annotated[Path, typer.Argument(help="Prepared dataset.")],
    recipe: Recipe = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file for the numbers.")] = None,
    *,
    given: dict[str, Any],
) -> None:
    """Measure what a training with the same options will cost: memory, time, disk.

    Takes a minute or so. Exit code 2: it does not fit; the text says what would.
    """
    check_given(data)
    from rdtf.files import write_text
    from rdtf.train.plan import make_plan
    from rdtf.train.settings import recipe_settings

    result = make_plan(data, recipe_settings(recipe, **given))
    if out is not None:
        write_text(out, json.dumps(asdict(result), indent=1))
    console.print(result.table())


def report(
    runs: Annotated[list[Path], typer.Argument(help="A run's folder, or several to compare.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; default: report.html in the run.")] = None,
) -> None:
    """Show what became of a training on one page; it may be running, stopped or broken."""
    from rdtf.train.report import write_report

    say(f"Open {write_report(runs, out or runs[0] / 'report.html')}")


def card(
    model: Annotated[str, typer.Argument(help="shipped, a run's or saved pipeline's folder, or a hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for README.md and the pictures.")],
    evaluation: Annotated[Path | None, typer.Option(help="What rdtf evaluate -o has written about it.")] = None,
    data: Annotated[Path | None, typer.Option(help="Prepared dataset; default: the run's.", show_default=False)] = None,
    title: Annotated[str | None, typer.Option(help="Default: the model's name.", show_default=False)] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the model, for example apache-2.0.")] = None,
    seed: Annotated[int, typer.Option(help="Which captions are drawn, and the stickers for them.")] = 0,
) -> None:
    """Write a model card: data and licences, training, sizes, measures, pictures, and what the model cannot do."""
    from rdtf.model_card import write_card

    say(f"Wrote {write_card(model, out, evaluation=evaluation, data=data, title=title, licence=licence, seed=seed)}")


CODEC: dict[str, Any] = {
    "downscale": option(int, "4 or 8.", 4),
    "base": option(str, "Trained codec to go on from."),
    "freeze_encoder": option(bool, "Train the decoder of --base alone; its latents stay as they are.", False),
    **training_options(10_000),
    "settings": OTHERS,
}
"""Settings of ``CodecTrainSettings`` by their options."""


@takes(CODEC)
def train_codec(
    data: Annotated[list[Path], typer.Argument(help="Prepared datasets, and last the new codec folder.")],
    *,
    given: dict[str, Any],
) -> None:
    """Train an RGBA autoencoder on the frames of prepared datasets."""
    if len(data) < 2:
        raise ValueError("give at least one prepared dataset and then the codec folder to make")
    check_given(*data[:-1])
    from rdtf.train.codec import CodecTrainSettings
    from rdtf.train.codec import train_codec as run

    console.print(run(data[:-1], data[-1], CodecTrainSettings.model_validate(given)))


COPY_DECODER: dict[str, Any] = {
    "model": Model,
    "base": option(str, "Model whose copy decoder to begin with.", "the model's own, or a new one"),
    "clips": option(int, "Clips to learn from, which the model makes first.", 2400),
    **training_options(1500),
}
"""Settings of ``CopyDecoderSettings`` by their options."""


@takes(COPY_DECODER)
def train_copy_decoder(
    data: Annotated[Path, typer.Argument(help="Prepared dataset.")],
    out: Annotated[Path, typer.Argument(help="New folder for the model with its copy decoder.")],
    *,
    given: dict[str, Any],
) -> None:
    """Train a decoder that copies pixels from given frames, for sharp animations, in-betweens and extensions."""
    model = given.pop("model", SHIPPED)
    check_given(data, model=model)
    from rdtf.train.copy_decoder import CopyDecoderSettings
    from rdtf.train.copy_decoder import train_copy_decoder as run

    console.print(run(data, model, out, CopyDecoderSettings.model_validate(given)))
