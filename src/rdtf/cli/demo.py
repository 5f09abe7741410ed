"""The whole way once, small: draw stickers, prepare them, train, generate for every task, and show it on a page.

Every part is a command of ``rdtf``, run in this process; the page names them.
"""

from __future__ import annotations

import io
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer

from rdtf.cli.common import say
from rdtf.data.dataset import StickerDataset
from rdtf.device import usable_cores
from rdtf.hub import SHIPPED, find_pipeline
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.page import data_address, render_page
from rdtf.sheets import contact_sheet
from rdtf.sticker import Sticker
from rdtf.world import is_held_out
from rdtf.world.artwork import ACTIONS

_MARK = ".rdtf-demo"  # a folder with this file is a demo, finished or not
_FRAMES = 6
_FROM_FRAMES = (
    ("Image to video", "animate", (0,), ()),
    ("Image and text to video", "animate", (0,), ("{caption}",)),
    ("Image third", "animate", (2,), ("{caption}", "--at", "2")),
    ("In-between", "inbetween", (0, 2, 4), ()),
    ("In-between as a loop", "inbetween", (0, 2, 4), ("--loop",)),
    ("Extend forward", "extend", (0, 1, 2, 3), ("--after", "2", "--context", "4")),
    ("Extend backward", "extend", (2, 3, 4, 5), ("--after", "0", "--before", "2", "--context", "4")),
)
"""Title, command, positions of the given frames in a clip of :data:`_FRAMES`, further words."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does smaller than a real training.

    Attributes:
        stickers, size: of the built-in world.
        training: options of ``rdtf train``. The number of steps is fixed, so that the same command on the same machine
            makes the same model.
        prompts: body, colour and action of the text-to-video stickers.
        shipped: captions of the stickers by the package's own model.
    """

    stickers: int = 1600
    size: int = 48
    training: tuple[str, ...] = (
        *("--size", "tiny", "--frames", str(_FRAMES)),
        *("--set", "previews=0", "--set", "eval_clips=0", "--set", "num_augmented=0"),
        *("--set", 'model={"widths": [32, 64, 96], "head_dim": 32, "sti_heads": 2, "text_width": 128}'),
    )
    prompts: tuple[tuple[str, str, str], ...] = (
        ("cat", "green", "jump"), ("ghost", "red", "peek"), ("star", "yellow", "grow"), ("robot", "blue", "jump"),
        ("cat", "blue", "peek"), ("ghost", "green", "dance"), ("star", "red", "dance"), ("robot", "yellow", "grow"),
        ("ghost", "yellow", "jump"), ("cat", "red", "jump"), ("ghost", "blue", "grow"), ("ghost", "blue", "peek"),
    )  # fmt: skip
    shipped: tuple[str, ...] = ("red heart", "jack-o-lantern", "rocket", "bell", "fire", "snowman")


def run_demo(out: Path, *, steps: int, seed: int = 0, settings: DemoSettings | None = None) -> Path:
    """Make a demo folder with ``index.html``; returns the path of the page.

    Args:
        out: new folder; an earlier demo in it is replaced.
        steps: optimiser steps. seed: of stickers, training and generation.

    Raises:
        ValueError: ``out`` holds something else than a demo.
        typer.Exit: a command failed or was stopped, and has said why.
    """
    began = time.monotonic()
    settings = settings or DemoSettings()
    _clear(out)
    if shipped := _by_shipped_model(out, settings.shipped, seed):
        say(f"{out / 'stickers'} holds stickers by the model of the package. Now a small model is trained.")
    world, data, run = str(out / "world"), str(out / "data"), str(out / "run")
    count, size, cores = str(settings.stickers), ("--size", str(settings.size)), str(min(4, usable_cores()))
    begin, length = ("--seed", str(seed)), ("--steps", str(steps), "--checkpoint-every", str(steps))
    commands = [
        ["world", world, "--count", count, *begin, *size, "--vocabulary", "small", "--workers", cores],
        ["prepare", world, data, *size],
        ["train", data, run, *length, *begin, *settings.training],
        ["report", run],
    ]
    for command in commands:
        _rdtf(command)
    return render_page(
        out / "index.html",
        "demo",
        settings=settings,
        steps=steps,
        shipped=shipped,
        from_text=_from_text(out, run, settings, seed),
        from_frames=_from_frames(out, run, seed),
        commands=[shlex.join(["rdtf", *command]) for command in commands],
        minutes=(time.monotonic() - began) / 60,
    )


def _clear(out: Path) -> None:
    if out.exists():
        if not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).is_file()):
            raise ValueError(f"{out} is not empty and holds no demo; choose another folder or empty it")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / _MARK).touch()


def _rdtf(words: Sequence[str]) -> None:
    """Run a command of ``rdtf``."""
    from rdtf.cli import app

    say(f"$ {shlex.join(['rdtf', *words])}")
    if code := app(words, standalone_mode=False):
        raise typer.Exit(code)


def _make(out: Path, name: str, title: str, words: Sequence[str], badge: str = "") -> dict[str, str]:
    """Run a command that makes a sticker; returns its card: title, badge, command, and the sticker itself."""
    file = out / "stickers" / f"{name}.webp"
    command = [*words, "-o", str(file)]
    _rdtf(command)
    sticker = data_address(file.read_bytes())
    return {"title": title, "badge": badge, "command": shlex.join(["rdtf", *command]), "sticker": sticker, "strip": ""}


def _by_shipped_model(out: Path, captions: Sequence[str], seed: int) -> list[dict[str, str]]:
    """Stickers by the package's own model; none if there is no such model."""
    try:
        find_pipeline(SHIPPED)
    except ValueError:
        return []
    options = ["--loop", "--seed", str(seed), "--model", SHIPPED]
    return [
        _make(out, f"shipped-{number}", caption, ["generate", caption, *options])
        for number, caption in enumerate(captions, 1)
    ]


def _from_text(out: Path, run: str, settings: DemoSettings, seed: int) -> list[dict[str, str]]:
    cards = []
    for number, (body, colour, action) in enumerate(settings.prompts):
        caption = f"a {colour} {body} {ACTIONS[action].doing[0]}, happy"
        unseen = is_held_out({"body": body, "colour": colour, "action": action})
        words = ["generate", caption, "--seed", str(seed + number), "--guidance", "3", "--frames", str(_FRAMES)]
        badge = "combination not in training" if unseen else ""
        cards.append(_make(out, f"text-{number + 1:02d}", caption, [*words, "--model", run], badge))
    return cards


def _from_frames(out: Path, run: str, seed: int) -> list[dict[str, str]]:
    """The tasks that start from frames of test stickers. The frames are files in the folder ``given``."""
    cards = []
    clips = _examples(StickerDataset(out / "data", "test"), len(_FROM_FRAMES))
    for (title, task, positions, options), (clip, caption, fps) in zip(_FROM_FRAMES, clips, strict=True):
        name = title.lower().replace(" ", "-")
        parts = [clip[list(positions)]] if task == "extend" else [clip[[position]] for position in positions]
        files = [out / "given" / f"{name}-{number}.webp" for number in range(len(parts))]
        for file, frames in zip(files, parts, strict=True):
            save_sticker(Sticker.at_fps(frames, fps), file)
        words = [task, *map(str, files), *(word.format(caption=caption) for word in options)]
        words += ["--frames", str(_FRAMES)] if task == "animate" else []
        card = _make(out, name, title, [*words, "--fps", f"{fps:.1f}", "--seed", str(seed), "--model", run])
        made = read_sticker(out / "stickers" / f"{name}.webp")
        strip = io.BytesIO()
        contact_sheet([made, clip[: len(made)]], frames=len(made), outlined=[positions, ()]).save(strip, "PNG")
        cards.append({**card, "strip": data_address(strip.getvalue(), "png")})
    return cards


def _examples(dataset: StickerDataset, count: int) -> list[tuple[np.ndarray, str, float]]:
    """The first clips that are long enough, thinned out to ``_FRAMES`` frames, with captions and frame rates."""
    order = [i for i in range(len(dataset)) if dataset.record(i).num_frames >= _FRAMES]
    if len(order) < count:
        raise ValueError(f"the demo needs {count} test stickers of {_FRAMES} or more frames; draw more stickers")
    found = []
    for i in order[:count]:
        record = dataset.record(i)
        frames = dataset.frames(i)[np.arange(_FRAMES) * record.num_frames // _FRAMES]
        found.append((frames, record.caption, 1000.0 * _FRAMES / float(np.sum(record.durations))))
    return found
