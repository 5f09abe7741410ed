"""Options of the command line by the settings that they set; the studio's fields and endpoints are made of them too."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rdtf.hub import SHIPPED

MAX_FRAMES = 16
"""Most frames of a sticker that is made."""


def option(kind: Any, text: str, default: object = None, *flags: str, **limits: Any) -> Any:
    """An option of a setting; a command gets it by :func:`rdtf.cli.common.takes`.

    Args:
        kind: type of its value.
        text: its help.
        default: what help shows; the value itself stands with the setting.
        flags: its names, where they differ from the setting's.
    """
    shown = None if default is None else str(default)
    return Annotated[kind | None, typer.Option(*flags, help=text, show_default=shown or False, **limits)]


OTHERS = option(list[str], "Any other setting, as name=value (value is JSON or text).", None, "--set")
Model = option(str, "shipped, a run's or saved pipeline's folder, or a hub id (owner/name).", SHIPPED, "--model", "-m")
OPTIONS: dict[str, Any] = {
    "out": option(str, ".webp, .png/.apng, .gif, .sheet.png, or a folder of PNGs.", "sticker.webp", "--out", "-o"),
    "model": Model,
    "num_frames": option(int, "Frames of the sticker.", 8, "--frames", min=1, max=MAX_FRAMES),
    "seed": option(int, "Same seed, same pixels.", 0),
    "num_inference_steps": option(int, "Denoising steps.", "the model's", "--steps", min=1),
    "guidance_scale": option(float, "How closely to follow the caption; 1 = no guidance.", "the model's", "--guidance"),
    "num_stickers_per_prompt": option(int, "Stickers to make, with seeds counting up.", 1, "--count", min=1),
    "fps": option(float, "Frames a second.", "8, or the sticker's", min=0.1, max=100),
    "loop": option(
        bool,
        "Time is circular: the last frame leads back to the first.",
        "yes for words and for one image",
        "--loop/--no-loop",
    ),
    "output_size": option(int, "Output pixels.", "the model's", "--size", min=16, max=2048),
}
"""Arguments of the pipeline by their options."""
_MOTION = option(
    str,
    "The first frame moves as a whole: any, bounce, dance, fly, jump, peek, shiver, spin or turn; or none does.",
    "any where the model hardly moves it",
    "--motion",
)
WORDS_OPTIONS: dict[str, Any] = {
    **OPTIONS,
    "motion": _MOTION,
    "colour": option(
        str, "Main colour: red, orange, yellow, green, blue, purple or pink.", "the model's", "--colour", "--color"
    ),
    "strict": option(bool, "Refuse captions that the model does not know.", False, "--strict"),
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
IMAGE_OPTIONS: dict[str, Any] = {**FRAMES_OPTIONS, "motion": _MOTION}
COUNTED_FRAMES = {name: kept for name, kept in FRAMES_OPTIONS.items() if name != "num_frames"}
PREPARE_OPTIONS: dict[str, Any] = {
    "size": option(int, "Height and width of the frames.", 64),
    "max_frames": option(int, "Longer stickers are thinned out evenly.", 40),
    "split_by": option(
        str, "content, caption, or a metadata field: stickers that are equal in it share a split.", "content"
    ),
    "splits": option(tuple[float, float, float], "Fractions of train, val and test, which sum to 1.", "0.9 0.05 0.05"),
    "seed": option(int, "Seed of the splits.", 0),
    "captions": option(list[str], "Metadata field or column that is a caption; repeatable.", None, "--caption-column"),
    "licenses": option(
        list[str], "Licence where metadata names none: NAME for all, or SOURCE=NAME; repeatable.", None, "--licence"
    ),
    "caption_style": option(
        bool,
        "End captions in the sticker's style, as in 'a cat, flat style': metadata's field `style`, or --style.",
        None,
        "--caption-style",
    ),
    "styles": option(
        list[str],
        "Style where metadata names none: NAME for all, or SOURCE=NAME; repeatable; implies --caption-style.",
        None,
        "--style",
    ),
    "duplicates": option(str, "keep, or drop: leave out all but the first of near-duplicates.", "keep"),
    "crop": option(str, "none, or content: crop to what is drawn.", "none"),
    "background": option(str, "keep, or transparent: clear backgrounds of one colour.", "keep"),
    "features": option(str, "What frames are clustered by: builtin, or vgg16:FILE (torchvision's weights).", "builtin"),
    "time_limit": option(float, "Seconds of processor time a file may take.", 30),
    "memory_limit": option(int, "MiB that decoding a file may take.", 1024),
    "workers": option(int, "Processes.", "one a core"),
    "engine": option(str, "local, or ray: the cores of a Ray cluster.", "local"),
}
"""Settings of ``PrepareSettings`` by their options."""
TRAIN_OPTIONS: dict[str, Any] = {
    "size": option(str, "tiny, small, base or paper.", "tiny"),
    "start_from": option(str, "Model to begin with: shipped, a run's or saved pipeline's folder.", None, "--from"),
    "tune": option(str, "Train only the layers that this method adds (docs/baselines.md).", "all weights"),
    "steps": option(int, "Optimiser steps.", 2000),
    "max_minutes": option(float, "End earlier, at this time, with the schedule complete.", None, "--minutes"),
    "batch_size": option(int, "Stickers a step.", 16),
    "frames": option(int, "Most frames of a clip, up to 16.", 8),
    "codec": option(str, "f4, f8, pixel, pixel2, or a folder or hub id.", "f4"),
    "text": option(list[str], "builtin, or one or two folders or hub ids.", "builtin"),
    "curriculum": option(str, "none, linear, adaptive or adaptive-normalised.", "adaptive-normalised"),
    "seed": option(int, "Seed of everything drawn.", 0),
    "threads": option(int, "CPU threads."),
    "checkpoint_every": option(int, "Steps between checkpoints.", 500),
    "preview_every": option(int, "Steps between previews.", 500),
    "eval_every": option(int, "Steps between held-out losses.", 500),
    "settings": OTHERS,
}
"""Settings of ``TrainSettings`` that have an option of their own. The defaults are those of the recipe fast."""
