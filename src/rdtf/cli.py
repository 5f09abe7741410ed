"""The ``rdtf`` command: parse, call, print."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rdtf.progress import bars, console

if TYPE_CHECKING:
    import numpy as np

    from rdtf.sticker import Sticker

STOPPED = 75
"""Exit code of a training that was asked to stop and has saved: start it again (EX_TEMPFAIL)."""

# Heavy modules are imported inside the commands: `rdtf --help` answers at once.

app = typer.Typer(
    help="Train your own animated-sticker generator from scratch, and use it.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """A user's mistake is a line, not a traceback."""
    from pydantic import ValidationError

    from rdtf.files import DiskError
    from rdtf.train.devices import LostProcessError
    from rdtf.train.run import OutOfMemoryError, TrainingError

    try:
        yield
    except ValidationError as error:
        for problem in error.errors():
            place = ".".join(map(str, problem["loc"]))
            _error(f"{place + ': ' if place else ''}{problem['msg'].removeprefix('Value error, ')}")
        raise typer.Exit(2) from None
    except (ValueError, TrainingError, LostProcessError, OSError, ImportError) as error:
        _error(str(error))
        codes = {OutOfMemoryError: 71, TrainingError: 70, DiskError: 74}
        raise typer.Exit(next((code for kind, code in codes.items() if isinstance(error, kind)), 2)) from None
    except KeyboardInterrupt:
        console.print("Stopped.")
        raise typer.Exit(130) from None


def _error(text: str) -> None:
    console.quiet = False  # as it is in all but the first of several processes
    process = f" in process {os.environ['RANK']}" if "RANK" in os.environ else ""
    _say(f"[red]Error{process}:[/red] {escape(text)}", markup=True)


def _say(text: str, *, markup: bool = False) -> None:
    """Print with nothing read into file names, and no path broken in the middle."""
    console.print(text, markup=markup, highlight=False, soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for everything the demo makes.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of stickers, training and generation.")] = 0,
) -> None:
    """Draw stickers, train a small model on them, generate with it, and write a page with the pictures."""
    from rdtf.demo import run_demo

    with _plain_errors():
        page = run_demo(out, seed=seed)
    _say(f"Open {page}")


@app.command()
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

    with _plain_errors():
        write_world(
            out, count, seed, size=size, format=file_format, vocabulary=vocabulary, style=style, workers=workers
        )
    _say(f"Wrote {count} stickers to {out}")


@app.command()
def prepare(
    sources: Annotated[list[Path], typer.Argument(help="Folders, archives, tables or files; last the dataset folder.")],
    size: Annotated[int, typer.Option(min=16, max=1024, help="Height and width of the frames.")] = 64,
    max_frames: Annotated[int, typer.Option(min=1, help="Longer stickers are thinned out evenly.")] = 40,
    split_by: Annotated[str, typer.Option(help="content, or caption: equal captions share a split.")] = "content",
    splits: Annotated[
        tuple[float, float, float], typer.Option(help="Shares of train, val and test, which sum to 1.")
    ] = (0.9, 0.05, 0.05),
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    caption_column: Annotated[
        list[str] | None, typer.Option(help="Metadata field or column that is a caption; may be given several times.")
    ] = None,
    licence: Annotated[
        list[str] | None,
        typer.Option(
            help="Licence where metadata names none: NAME for all, or SOURCE=NAME; may be given several times."
        ),
    ] = None,
    duplicates: Annotated[
        str, typer.Option(help="keep, or drop: leave out all but the first of near-duplicates that show the same.")
    ] = "keep",
    crop: Annotated[str, typer.Option(help="none, or content: crop each file to what is drawn in it.")] = "none",
    background: Annotated[str, typer.Option(help="keep, or transparent: clear backgrounds of one colour.")] = "keep",
    cluster_seed: Annotated[int, typer.Option(help="Seed of the clusterings of frames.")] = 0,
    features: Annotated[
        str, typer.Option(help="What frames are clustered by: builtin, or vgg16:FILE (torchvision's weights).")
    ] = "builtin",
    time_limit: Annotated[float, typer.Option(help="Seconds of processor time a file may take.")] = 30.0,
    memory_limit: Annotated[int, typer.Option(help="MiB that decoding a file may take.")] = 1024,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: the cores of a Ray cluster.")] = "local",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Let a dataset become one of other settings or sources.")
    ] = False,
) -> None:
    """Read stickers out of folders, archives (ZIP, TAR) and Parquet tables into a dataset.

    Stopped, or killed? The same command goes on. Over a finished dataset it does what has changed, and nothing else.
    """
    from rdtf.data.prepare import prepare as run
    from rdtf.data.settings import PrepareSettings, choose_features

    with _plain_errors():
        if len(sources) < 2:
            raise ValueError("give at least one folder or archive of stickers and then the dataset folder to make")
        values: dict[str, Any] = {
            "size": size,
            "max_frames": max_frames,
            "split_by": split_by,
            "splits": splits,
            "seed": seed,
            "licenses": {text.rpartition("=")[0]: text.rpartition("=")[2].strip() for text in licence or ()},
            "captions": caption_column or (),
            "duplicates": duplicates,
            "crop": crop,
            "background": background,
            "cluster_seed": cluster_seed,
            **choose_features(features),
            "time_limit": time_limit,
            "memory_limit": memory_limit,
            "workers": workers,
            "engine": engine,
        }
        settings = PrepareSettings.model_validate(values)
        report = run(sources[:-1], sources[-1], settings, overwrite=overwrite)
    _say(report.summary())


data_app = typer.Typer(help="Give a prepared dataset to others.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("export")
def data_export(
    data: Annotated[Path, typer.Argument(help="Prepared dataset.")],
    out: Annotated[Path, typer.Argument(help="New folder, or an earlier export.")],
    title: Annotated[str | None, typer.Option(help="For the card; default: the dataset's name.")] = None,
) -> None:
    """Write a dataset as files with a metadata.jsonl and a card, as `datasets` and `rdtf prepare` read them.

    Stopped? The same command goes on. Over an earlier export it writes what differs.
    """
    from rdtf.data.publish import export

    with _plain_errors():
        report = export(data, out, title=title)
    _say(report.summary())


@data_app.command("push")
def data_push(
    data: Annotated[Path, typer.Argument(help="Prepared dataset.")],
    repo: Annotated[str, typer.Argument(help="Dataset repository of the Hugging Face Hub, as NAME/REPOSITORY.")],
    folder: Annotated[Path | None, typer.Option(help="For the export; default: in the dataset's cache.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    title: Annotated[str | None, typer.Option(help="For the card; default: the repository's name.")] = None,
) -> None:
    """Export a dataset and send it to the Hugging Face Hub, as whoever `hf auth login` has logged in.

    A new repository is private without --public. Stopped? The same command sends what is missing.
    """
    from rdtf.data.publish import push

    with _plain_errors():
        url = push(data, repo, folder=folder, public=public, title=title)
    _say(f"Sent to {url}")


@app.command()
def caption(
    folder: Annotated[Path, typer.Argument(help="Folder of sticker files.")],
    model: Annotated[Path, typer.Option(help="Local folder of an image captioning or vision-language model.")],
    prompt: Annotated[str | None, typer.Option(help="What a model that is talked to is asked.")] = None,
) -> None:
    """Caption the stickers that have no caption, in the metadata.jsonl beside them.

    Works with every image-text-to-text model of transformers in a local folder; nothing is downloaded.
    """
    from rdtf.data.captioner import PROMPT, ModelCaptioner, caption_folder

    with _plain_errors():
        captioner = ModelCaptioner(model, prompt or PROMPT)
        report = caption_folder(folder, captioner, model.resolve().name)
    for name, reason in list(report.left.items())[:20]:
        _say(f"{name}: {reason}")
    _say(f"{folder}: {report.captioned:,} captioned, {len(report.left):,} left without")


@app.command()
def inspect(
    data: Annotated[Path, typer.Argument(help="Prepared dataset.")],
    out: Annotated[Path, typer.Argument(help="Folder for the page and the lists beside it.")],
    count: Annotated[int, typer.Option(min=1, help="Clips shown as training draws them.")] = 24,
    seed: Annotated[int, typer.Option(help="Which stickers.")] = 0,
) -> None:
    """Write a page about a dataset: numbers, findings, near-duplicates, rejected files, what training will see."""
    from rdtf.data.inspect import inspect_dataset

    with _plain_errors():
        page = inspect_dataset(data, out, count=count, seed=seed)
    _say(f"Open {page}")


_SETTINGS: dict[str, Any] = {
    "size": Annotated[str | None, typer.Option(help="tiny, small, base or paper.")],
    "start_from": Annotated[
        str | None, typer.Option("--from", help="A run's or saved pipeline's folder whose weights to begin with.")
    ],
    "tune": Annotated[
        str | None,
        typer.Option(help="Train layers added by this method alone (docs/baselines.md); default: all weights."),
    ],
    "steps": Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")],
    "minutes": Annotated[float | None, typer.Option(help="End earlier, at this time, with the schedule complete.")],
    "batch_size": Annotated[int | None, typer.Option(min=1, help="Stickers a step.")],
    "frames": Annotated[int | None, typer.Option(min=1, max=16, help="Most frames of a clip.")],
    "codec": Annotated[str | None, typer.Option(help="f4, f8, pixel, pixel2, or a folder or hub id.")],
    "text": Annotated[list[str] | None, typer.Option(help="builtin, or one or two folders or hub ids.")],
    "curriculum": Annotated[str | None, typer.Option(help="none, linear, adaptive or adaptive-normalised.")],
    "seed": Annotated[int | None, typer.Option(help="Seed of everything drawn.")],
    "threads": Annotated[int | None, typer.Option(min=1, help="CPU threads.")],
    "checkpoint_every": Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")],
    "preview_every": Annotated[int | None, typer.Option(min=1, help="Steps between previews.")],
    "eval_every": Annotated[int | None, typer.Option(min=1, help="Steps between held-out losses.")],
}
"""Settings of a training that have an option of their own."""
Recipe = Annotated[str | None, typer.Option(help="fast, paper or tune; default: fast, or tune with --tune.")]
_Others = Annotated[
    list[str] | None, typer.Option("--set", help="Any other setting, as name=value (value is JSON or text).")
]


def _takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of :data:`_SETTINGS` and ``--set``; it gets as ``given`` what was said by them."""
    own = [parameter for name, parameter in signature(command, eval_str=True).parameters.items() if name != "given"]
    shared = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in {**_SETTINGS, "settings": _Others}.items()
    ]

    def with_settings(**values: Any) -> None:
        named = {name: values.pop(name) for name in _SETTINGS}
        if not named["text"]:  # an option that may be given several times is [] where it was not
            named["text"] = None
        with _plain_errors():
            given = _given(values.pop("settings"), named)
        command(**values, given=given)

    parameters = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own] + shared
    with_settings.__name__, with_settings.__doc__ = command.__name__, command.__doc__
    with_settings.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    with_settings.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return with_settings


@app.command()
@_takes_settings
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
    from rdtf.train.run import resume as resume_training
    from rdtf.train.run import train as run_training
    from rdtf.train.settings import recipe_settings

    with _plain_errors():
        if resume or resume_from is not None:
            if recipe is not None:
                raise ValueError("--recipe cannot change when a run is resumed; its settings are saved in the run")
            report = resume_training(data, run, start=resume_from, **given)
        else:
            report = run_training(data, run, recipe_settings(recipe or _recipe_for(given), **given))
    state = "finished" if report.finished else "stopped; go on with --resume"
    _say(f"{report.run}: {report.steps} steps in {report.seconds / 60:.1f} min, {state}")
    if not report.finished:
        raise typer.Exit(STOPPED)


@app.command()
@_takes_settings
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
    from rdtf.train.plan import announce, make_plan
    from rdtf.train.settings import recipe_settings

    with _plain_errors():
        result = make_plan(data, recipe_settings(recipe or _recipe_for(given), **given))
        if out is not None:
            out.write_text(json.dumps(result.facts(), indent=1), encoding="utf-8")
    announce(result)


def _recipe_for(given: dict[str, Any]) -> str:
    return "fast" if given.get("tune") in (None, "full") else "tune"


def _given(settings: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given on the command line, by ``--set`` or by options of their own, which count more."""
    others = _assignments(settings or [])
    if "recipe" in others:
        raise ValueError("--set recipe: name the recipe with --recipe")
    return {**others, **{name: value for name, value in options.items() if value is not None}}


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="A run's folder, or several to compare.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; default: report.html in the run.")] = None,
) -> None:
    """Show what became of a training on one page; it may be running, stopped or broken."""
    from rdtf.train.report import write_report

    with _plain_errors():
        page = write_report(runs, out or runs[0] / "report.html")
    _say(f"Open {page}")


@app.command()
def verify_resume(
    source: Annotated[Path, typer.Argument(help="A run's folder, or a prepared dataset's.")],
    steps: Annotated[int, typer.Option(min=4, help="Steps to compare.")] = 6,
) -> None:
    """Show that a run killed with kill -9 and resumed is the unbroken one, bit by bit; exit code 1 if it is not."""
    from rich.table import Table

    from rdtf.research.verify_resume import verify_resume as run

    with _plain_errors():
        result = run(source, steps=steps)
    table = Table("part", "unbroken (SHA-256)", "killed and resumed", "")
    table.title = f"{result.steps} steps from step {result.first} on, killed at {' and '.join(result.kills)}"
    for name, digest in result.unbroken.items():
        other = result.killed.get(name, "")
        table.add_row(name, digest[:16], other[:16], "equal" if digest == other else "[red]different[/red]")
    console.print(table)
    for line in result.differences:
        _say(line)
    if result.differences:
        raise typer.Exit(1)


def _assignments(pairs: list[str]) -> dict[str, Any]:
    """``["a.b=1", "c=x"]`` to ``{"a": {"b": 1}, "c": "x"}``."""
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
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ValueError(f"--set {pair}: {parent} has the value {place!r} already")
        place[last] = value
    return values


@app.command()
def train_codec(
    data: Annotated[list[Path], typer.Argument(help="Prepared datasets, and last the new codec folder.")],
    downscale: Annotated[int, typer.Option(help="4 or 8.")] = 4,
    minutes: Annotated[float, typer.Option(help="Training time.")] = 15.0,
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
) -> None:
    """Train an RGBA autoencoder on the frames of prepared datasets."""
    from rdtf.train.codec import CodecTrainSettings
    from rdtf.train.codec import train_codec as run

    with _plain_errors():
        if len(data) < 2:
            raise ValueError("give at least one prepared dataset and then the codec folder to make")
        values = {"downscale": downscale, "minutes": minutes, "seed": seed, "threads": threads}
        report = run(data[:-1], data[-1], CodecTrainSettings.model_validate(values))
    console.print(report)


@app.command()
def train_judge(
    out: Annotated[Path, typer.Argument(help="The new judge's folder.")],
    minutes: Annotated[float, typer.Option(help="Training time.")] = 20.0,
    features: Annotated[int, typer.Option(min=2, max=64, help="Numbers in a feature.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, stickers and damages.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
) -> None:
    """Train a judge of sticker clips, for FD-sticker and text agreement, on the built-in world."""
    from rdtf.research.train_judge import JudgeTrainSettings
    from rdtf.research.train_judge import train_judge as run

    with _plain_errors():
        values = {"minutes": minutes, "features": features, "seed": seed, "threads": threads}
        report = run(out, JudgeTrainSettings.model_validate(values))
    console.print(report)


Model = Annotated[Path, typer.Argument(help="A run's folder or a saved pipeline's.")]
Caption = Annotated[str, typer.Argument(help="What to show, in words.")]
Out = Annotated[str, typer.Option("--out", "-o", help=".webp, .png/.apng, .gif, .sheet.png, or a folder of PNGs.")]
Frames = Annotated[int, typer.Option(min=1, max=16, help="Frames of the sticker.")]
Seed = Annotated[int, typer.Option(help="Same seed, same pixels.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Denoising steps; default: the model's.")]
Guidance = Annotated[float | None, typer.Option(help="How closely to follow the caption; 1 = no guidance.")]
ImageGuidance = Annotated[float | None, typer.Option(help="How closely to follow the given frames.")]
Count = Annotated[int, typer.Option(min=1, help="Stickers to make, with seeds counting up.")]
Fps = Annotated[float | None, typer.Option(min=0.1, max=100, help="Frames a second.")]
Loop = Annotated[bool, typer.Option("--loop", help="Time is circular: the last frame leads back to the first.")]
Size = Annotated[int | None, typer.Option(min=16, max=2048, help="Output pixels; default: the model's.")]

DEFAULT_FPS = 8.0


def _generate(
    model: Path,
    caption: str,
    given: Callable[[], dict[int, np.ndarray]],
    out: str,
    *,
    fps: float | None,
    count: int,
    steps: int | None,
    **call: Any,
) -> None:
    """Run the pipeline and write the files; with more than one sticker, each name gets a number."""
    with _plain_errors():
        from rdtf.io.write import check_ending, save_sticker
        from rdtf.pipeline import load_pipeline

        check_ending(out)  # before the work, which it would cost
        pipe = load_pipeline(model)
        frames = given()
        with bars() as progress:
            task = progress.add_task("Generating", total=steps or pipe.config.steps, note="")
            stickers = pipe(
                caption,
                frames=frames,
                num_stickers_per_prompt=count,
                num_inference_steps=steps,
                fps=fps or DEFAULT_FPS,
                callback_on_step_end=lambda done, total: progress.update(task, completed=done, total=total),
                **call,
            ).stickers
        for i, sticker in enumerate(stickers):
            path = out if count == 1 else _numbered(out, i + 1)
            save_sticker(sticker, path)
            _say(f"Wrote {path}")


def _numbered(out: str, number: int) -> str:
    """``a.sheet.png`` to ``a-1.sheet.png``, the folder ``v1.0/`` to ``v1.0-1/``."""
    from rdtf.io.write import SHEET_SUFFIX

    ending = "/" if out.endswith(("/", os.sep)) else Path(out).suffix
    if out.lower().endswith(SHEET_SUFFIX):
        ending = out[-len(SHEET_SUFFIX) :]
    return f"{out.removesuffix(ending)}-{number}{ending}" if ending else f"{out}-{number}"


def _read(path: Path) -> Sticker:
    from rdtf.io.read import read_sticker

    return read_sticker(path)


@app.command()
def generate(
    model: Model,
    caption: Caption,
    out: Out = "sticker.webp",
    frames: Frames = 8,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    count: Count = 1,
    fps: Fps = None,
    loop: Loop = False,
    size: Size = None,
) -> None:
    """Text to sticker."""
    _generate(
        model,
        caption,
        dict,
        out,
        num_frames=frames,
        seed=seed,
        steps=steps,
        guidance_scale=guidance,
        count=count,
        fps=fps,
        loop=loop,
        output_size=size,
    )


@app.command()
def animate(
    model: Model,
    image: Annotated[Path, typer.Argument(help="The image (of an animation: its first frame).")],
    caption: Caption = "",
    out: Out = "sticker.webp",
    at: Annotated[int, typer.Option(min=0, max=15, help="Where the image stands in the sticker, from 0.")] = 0,
    frames: Frames = 8,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    image_guidance: ImageGuidance = None,
    count: Count = 1,
    fps: Fps = None,
    loop: Loop = False,
    size: Size = None,
) -> None:
    """Bring an image to life, with or without a caption."""
    _generate(
        model,
        caption,
        lambda: {at: _read(image).frames[0]},
        out,
        num_frames=frames,
        seed=seed,
        steps=steps,
        guidance_scale=guidance,
        image_guidance_scale=image_guidance,
        count=count,
        fps=fps,
        loop=loop,
        output_size=size,
    )


@app.command()
def inbetween(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Key frames in order, at least two.")],
    caption: Annotated[str, typer.Option(help="What it shows, in words.")] = "",
    out: Out = "sticker.webp",
    between: Annotated[int, typer.Option(min=1, max=14, help="New frames between two given ones.")] = 1,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    image_guidance: ImageGuidance = None,
    count: Count = 1,
    fps: Fps = None,
    loop: Loop = False,
    size: Size = None,
) -> None:
    """Fill the gaps between key frames; with --loop also from the last back to the first."""
    with _plain_errors():
        if len(images) < 2:
            raise ValueError("in-betweening needs at least two images")
        total = len(images) * (between + 1) - (0 if loop else between)
        if total > 16:
            raise ValueError(
                f"{len(images)} images with {between} between make {total} frames; at most 16 are possible"
            )
    _generate(
        model,
        caption,
        lambda: {i * (between + 1): _read(path).frames[0] for i, path in enumerate(images)},
        out,
        num_frames=total,
        seed=seed,
        steps=steps,
        guidance_scale=guidance,
        image_guidance_scale=image_guidance,
        count=count,
        fps=fps,
        loop=loop,
        output_size=size,
    )


@app.command()
def extend(
    model: Model,
    sticker: Annotated[Path, typer.Argument(help="The sticker to go on with.")],
    caption: Annotated[str, typer.Option(help="What it shows, in words.")] = "",
    out: Out = "sticker.webp",
    after: Annotated[int, typer.Option(min=0, max=15, help="New frames behind it.")] = 3,
    before: Annotated[int, typer.Option(min=0, max=15, help="New frames in front of it.")] = 0,
    context: Annotated[
        int | None, typer.Option(min=1, max=15, help="Frames kept of it, evenly spaced; default: to fill up 8.")
    ] = None,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    image_guidance: ImageGuidance = None,
    count: Count = 1,
    fps: Fps = None,
    loop: Loop = False,
    size: Size = None,
) -> None:
    """Make a sticker longer, forwards or backwards, at its own pace."""
    from rdtf.io.read import read_sticker

    with _plain_errors():
        if before + after == 0:
            raise ValueError("nothing to add: give --after or --before")
        kept = context or max(2, 8 - before - after)
        source = read_sticker(sticker, max_frames=kept)
        total = before + len(source) + after
        if total > 16:
            raise ValueError(
                f"{len(source)} frames with {before + after} new ones make {total}; at most 16 are possible"
            )
    _generate(
        model,
        caption,
        lambda: {before + i: frame for i, frame in enumerate(source.frames)},
        out,
        num_frames=total,
        seed=seed,
        steps=steps,
        guidance_scale=guidance,
        image_guidance_scale=image_guidance,
        count=count,
        fps=fps or 1000.0 / float(source.durations.mean()),
        loop=loop,
        output_size=size,
    )


@app.command()
def evaluate(
    model: Model,
    data: Annotated[Path, typer.Argument(help="Prepared dataset with held-out splits.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file for the result.")] = Path("evaluation.json"),
    split: Annotated[list[str] | None, typer.Option(help="Splits to measure on; default: val and test.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples a clip.")] = 4,
    steps: Steps = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many clips.")] = None,
    seed: Seed = 0,
    clip: Annotated[Path | None, typer.Option(help="Folder of a CLIP or Chinese-CLIP model.")] = None,
    lpips: Annotated[Path | None, typer.Option(help="Folder with alexnet*.pth and alex.pth.")] = None,
    fvd: Annotated[Path | None, typer.Option(help="I3D TorchScript file of StyleGAN-V.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="For FD-sticker and text agreement: builtin, or a folder of rdtf train-judge.")
    ] = None,
    quality: Annotated[Path | None, typer.Option(help="Folder with ONNX files of DOVER or FAST-VQA.")] = None,
) -> None:
    """Measure on held-out stickers: frames filled in, beside what needs no model, and stickers made."""
    from rdtf.evaluate.evaluate import evaluate as run

    with _plain_errors():
        result = run(
            model,
            data,
            splits=split or ("val", "test"),
            samples=samples,
            steps=steps,
            limit=limit,
            seed=seed,
            clip=clip,
            lpips=lpips,
            fvd=fvd,
            judge=judge,
            quality=quality,
            out=out,
        )
        for table in result.tables():
            console.print(table)
    for name, reason in result.left_out.items():
        _say(f"Not measured: {name} ({reason})")
    _say(f"Wrote {out}")


@app.command()
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
    settings: _Others = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; default: one a core, or one a GPU.")] = None,
    judge: Annotated[str, typer.Option(help="builtin, or a folder of rdtf train-judge.")] = "builtin",
) -> None:
    """Train every variant of a suite at equal compute, measure them, and write the tables and a page.

    The suites: small, the paper's comparisons for two processor cores; medium, the same for a GPU; recipes, what the
    recipe's choices are worth. ``--set`` is for all of a suite's trainings. Stopped? The same command goes on. Exit
    code 75: stopped by Ctrl-C or SIGTERM.
    """
    from rdtf.research.compare import ComparisonStopped
    from rdtf.research.compare import compare as run
    from rdtf.research.compare.suites import suite_named

    with _plain_errors():
        try:
            if data is not None and pixels is not None:
                raise ValueError(f"--pixels is for drawn stickers; those of {data} have the size they were prepared in")
            given = _assignments(settings or [])
            chosen = suite_named(suite).part(variants, steps=steps, seeds=seeds, pixels=pixels, settings=given)
            page = run(chosen, out, data, jobs=jobs, judge=judge)
        except ComparisonStopped as stopped:
            _say(str(stopped))
            raise typer.Exit(STOPPED) from None
    _say(f"Wrote {page.with_name('tables.md')} and {page}")


if __name__ == "__main__":
    app()
