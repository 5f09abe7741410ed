"""Commands that make stickers: generate, animate, inbetween, extend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdtf.cli.common import option, say, takes
from rdtf.progress import bars

if TYPE_CHECKING:
    import numpy as np

MAX_FRAMES = 16
Model = option(str, "A run's folder or a saved pipeline's.", None, "--model", "-m")
Caption = Annotated[str, typer.Option(help="What it shows, in words.")]
OPTIONS: dict[str, Any] = {
    "out": option(str, ".webp, .png/.apng, .gif, .sheet.png, or a folder of PNGs.", "sticker.webp", "--out", "-o"),
    "model": Model,
    "num_frames": option(int, "Frames of the sticker.", 8, "--frames", min=1, max=MAX_FRAMES),
    "seed": option(int, "Same seed, same pixels.", 0),
    "num_inference_steps": option(int, "Denoising steps.", "the model's", "--steps", min=1),
    "guidance_scale": option(float, "How closely to follow the caption; 1 = no guidance.", "the model's", "--guidance"),
    "num_stickers_per_prompt": option(int, "Stickers to make, with seeds counting up.", 1, "--count", min=1),
    "fps": option(float, "Frames a second.", "8, or the sticker's", min=0.1, max=100),
    "loop": option(bool, "Time is circular: the last frame leads back to the first.", None, "--loop"),
    "output_size": option(int, "Output pixels.", "the model's", "--size", min=16, max=2048),
}
"""Arguments of the pipeline by their options."""
WORDS_OPTIONS: dict[str, Any] = {
    **OPTIONS,
    "still_first": option(
        bool,
        "Make the first frame alone, then the sticker that begins with it.",
        "the model's",
        "--still-first/--at-once",
    ),
}
FRAMES_OPTIONS: dict[str, Any] = {
    **OPTIONS,
    "image_guidance_scale": option(float, "How closely to follow the given frames.", "the model's", "--image-guidance"),
}
COUNTED_FRAMES = {name: option for name, option in FRAMES_OPTIONS.items() if name != "num_frames"}


def named(model: str | None) -> str:
    """The model that was named, or an error that says how to come by one."""
    if model is None:
        raise ValueError(
            "no model is named: give --model (-m) with a run's folder or a saved pipeline's folder. "
            "`rdtf prepare STICKERS DATA` and `rdtf train DATA RUN` make one; `rdtf demo` shows all of it"
        )
    return model


def _make(caption: str, frames: dict[int, np.ndarray], given: dict[str, Any], inputs: Sequence[Path] = ()) -> None:
    """Run the pipeline and write the files; with more than one sticker, each name gets a number."""
    from rdtf.io.write import check_target, save_sticker

    model, out = named(given.pop("model", None)), given.pop("out", "sticker.webp")
    count = given.get("num_stickers_per_prompt", 1)
    paths = [out] if count == 1 else [_numbered(out, number) for number in range(1, count + 1)]
    for path in paths:
        check_target(path, [model, *inputs])
    from rdtf.pipeline import load_pipeline

    pipe = load_pipeline(model)
    with bars() as progress:
        task = progress.add_task("Generating", total=given.get("num_inference_steps", pipe.config.steps), note="")
        stickers = pipe(
            caption,
            frames=frames,
            callback_on_step_end=lambda done, total: progress.update(task, completed=done, total=total),
            **given,
        ).stickers
    for path, sticker in zip(paths, stickers, strict=True):
        save_sticker(sticker, path)
        say(f"Wrote {path}")


def _numbered(out: str, number: int) -> str:
    """``a.sheet.png`` to ``a-1.sheet.png``, the folder ``v1.0/`` to ``v1.0-1/``."""
    from rdtf.io.write import SHEET_SUFFIX

    ending = "/" if out.endswith(("/", os.sep)) else Path(out).suffix
    if out.lower().endswith(SHEET_SUFFIX):
        ending = out[-len(SHEET_SUFFIX) :]
    return f"{out.removesuffix(ending)}-{number}{ending}" if ending else f"{out}-{number}"


def _first_frame(path: Path) -> np.ndarray:
    from rdtf.io.read import read_sticker

    return read_sticker(path).frames[0]


@takes(WORDS_OPTIONS)
def generate(caption: Annotated[str, typer.Argument(help="What to show, in words.")], *, given: dict[str, Any]) -> None:
    """Make a sticker from words."""
    _make(caption, {}, given)


@takes(FRAMES_OPTIONS)
def animate(
    image: Annotated[Path, typer.Argument(help="The image (of an animation: its first frame).")],
    caption: Annotated[str, typer.Argument(help="What it does, in words.")] = "",
    at: Annotated[
        int, typer.Option(min=0, max=MAX_FRAMES - 1, help="Where the image stands in the sticker, from 0.")
    ] = 0,
    *,
    given: dict[str, Any],
) -> None:
    """Bring an image to life, with or without a caption."""
    _make(caption, {at: _first_frame(image)}, given, [image])


@takes(COUNTED_FRAMES)
def inbetween(
    images: Annotated[list[Path], typer.Argument(help="Key frames in order, at least two.")],
    caption: Caption = "",
    between: Annotated[int, typer.Option(min=1, max=14, help="New frames between two given ones.")] = 1,
    *,
    given: dict[str, Any],
) -> None:
    """Fill the gaps between key frames; with --loop also from the last back to the first."""
    if len(images) < 2:
        raise ValueError("in-betweening needs at least two images")
    total = len(images) * (between + 1) - (0 if given.get("loop") else between)
    if total > MAX_FRAMES:
        raise ValueError(
            f"{len(images)} images with {between} between make {total} frames; at most {MAX_FRAMES} are possible"
        )
    frames = {i * (between + 1): _first_frame(path) for i, path in enumerate(images)}
    _make(caption, frames, {"num_frames": total, **given}, images)


@takes(COUNTED_FRAMES)
def extend(
    sticker: Annotated[Path, typer.Argument(help="The sticker to go on with.")],
    caption: Caption = "",
    after: Annotated[int, typer.Option(min=0, max=15, help="New frames behind it.")] = 3,
    before: Annotated[int, typer.Option(min=0, max=15, help="New frames in front of it.")] = 0,
    context: Annotated[
        int | None, typer.Option(min=1, max=15, help="Frames kept of it, evenly spaced; default: to fill up 8.")
    ] = None,
    *,
    given: dict[str, Any],
) -> None:
    """Make a sticker longer, forwards or backwards, at its own pace."""
    from rdtf.io.read import read_sticker

    if before + after == 0:
        raise ValueError("nothing to add: give --after or --before")
    source = read_sticker(sticker, max_frames=context or max(2, 8 - before - after))
    total = before + len(source) + after
    if total > MAX_FRAMES:
        raise ValueError(
            f"{len(source)} frames with {before + after} new ones make {total}; at most {MAX_FRAMES} are possible"
        )
    pace = {"fps": 1000.0 / float(source.durations.mean())}
    frames = {before + i: frame for i, frame in enumerate(source.frames)}
    _make(caption, frames, {"num_frames": total, **pace, **given}, [sticker])
