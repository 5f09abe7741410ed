"""The whole way once, small: draw stickers, prepare them, train, generate for every task, and show it on a page.

Every part is a command of ``rdtf``, run in this process; the page names them.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from rdtf.cli.common import say
from rdtf.data.dataset import StickerDataset
from rdtf.device import usable_cores
from rdtf.files import atomic_file
from rdtf.hub import SHIPPED, find_pipeline
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.masks import Task
from rdtf.page import Card, Section, data_address, line_chart, smooth, write_page
from rdtf.sheets import contact_sheet
from rdtf.sticker import Sticker
from rdtf.text.known import KnownCaptions
from rdtf.world import is_held_out, vocabulary_named
from rdtf.world.artwork import ACTIONS

_MARK = ".rdtf-demo"  # a folder with this file is a demo, finished or not
_FRAMES = 6
_PLOT_POINTS = 150


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does smaller than a real training.

    Attributes:
        stickers, size, vocabulary: of the built-in world.
        training: options of ``rdtf train``. The number of steps is fixed, so that the same command on the same machine
            makes the same model.
        guidance: text scale.
        prompts: body, colour and action of the text-to-video stickers.
        shipped: number of stickers of the package's own model.
    """

    stickers: int = 1600
    size: int = 48
    vocabulary: str = "small"
    training: tuple[str, ...] = (
        *("--size", "tiny", "--frames", str(_FRAMES)),
        *("--set", "previews=0", "--set", "eval_clips=0", "--set", "num_augmented=0"),
        *("--set", 'model={"widths": [32, 64, 96], "head_dim": 32, "sti_heads": 2, "text_width": 128}'),
    )
    guidance: float = 3.0
    prompts: tuple[tuple[str, str, str], ...] = (
        ("cat", "green", "jump"),
        ("ghost", "red", "peek"),
        ("star", "yellow", "grow"),
        ("robot", "blue", "jump"),
        ("cat", "blue", "peek"),
        ("ghost", "green", "dance"),
        ("star", "red", "dance"),
        ("robot", "yellow", "grow"),
        ("ghost", "yellow", "jump"),
        ("cat", "red", "jump"),
        ("ghost", "blue", "grow"),
        ("ghost", "blue", "peek"),
    )
    shipped: int = 6


@dataclass(frozen=True)
class _Request:
    """One generated sticker: the command that makes it and how it is shown.

    Attributes:
        command: words without model and output.
        given: positions of the given frames. original: the sticker that they are from.
    """

    name: str
    title: str
    command: tuple[str, ...]
    badge: str = ""
    given: tuple[int, ...] = ()
    original: np.ndarray | None = None


def run_demo(out: Path, *, steps: int, seed: int = 0, settings: DemoSettings | None = None) -> Path:
    """Make a demo folder with ``index.html`` and ``contact_sheet.png``; returns the path of the page.

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
    shipped = [_make(out, request, SHIPPED)[0] for request in _shipped_requests(settings, seed)]
    world, data, run = out / "world", out / "data", out / "run"
    workers, size = str(min(4, usable_cores())), str(settings.size)
    commands = [
        [
            *("world", str(world), "--count", str(settings.stickers), "--seed", str(seed), "--size", size),
            *("--vocabulary", settings.vocabulary, "--workers", workers),
        ],
        ["prepare", str(world), str(data), "--size", size],
        [
            *("train", str(data), str(run), "--steps", str(steps), "--checkpoint-every", str(steps)),
            *("--seed", str(seed), *settings.training),
        ],
    ]
    for command in commands:
        _rdtf(command)

    prompts = _text_requests(settings, seed)
    given = _frame_requests(out, StickerDataset(data, "test"), settings, seed)
    cards = {request.name: _make(out, request, str(run)) for request in (*prompts, *given)}
    sheet = contact_sheet(
        [cards[request.name][1] for request in prompts], labels=[request.title for request in prompts], frames=_FRAMES
    )
    with atomic_file(out / "contact_sheet.png") as file:
        sheet.save(file, "PNG")

    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    elapsed = time.monotonic() - began
    return write_page(
        out / "index.html",
        "RDTF demo: stickers by a model trained from scratch",
        _introduction(settings, log, elapsed),
        [
            *([_shipped_section(shipped)] if shipped else []),
            Section(
                "From text",
                [
                    "Each caption below was given to the model as it stands. The marked ones combine a body with a "
                    "colour or an action that never came together in training; the world keeps such combinations for "
                    "the test split."
                ],
                cards=[cards[request.name][0] for request in prompts],
            ),
            Section(
                "From given frames",
                [
                    "The stickers here come from the test split. Outlined frames were given and come back pixel for "
                    "pixel; the model made the others. The lower row is the original, which the model did not see."
                ],
                cards=[cards[request.name][0] for request in given],
                wide=True,
            ),
            Section("The training", charts=_plots(log)),
            Section(
                "The commands",
                ["The same with the command line; each sticker above has its own command too."],
                commands=[shlex.join(["rdtf", *command]) for command in commands],
            ),
        ],
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


# ------------------------------------------------------------------------------------------------- what is asked


def _shipped_requests(settings: DemoSettings, seed: int) -> list[_Request]:
    """Names that the package's own model knows, spread over the alphabet; none if there is no such model."""
    try:
        folder = find_pipeline(SHIPPED)
    except ValueError:
        return []
    known = KnownCaptions.load(folder)
    names = known.names if known else ()
    spread = names[:: max(1, len(names) // max(1, settings.shipped))][: settings.shipped]
    return [
        _Request(f"shipped-{number}", name, ("generate", name, "--seed", str(seed)))
        for number, name in enumerate(spread, 1)
    ]


def _text_requests(settings: DemoSettings, seed: int) -> list[_Request]:
    requests = []
    for number, (body, colour, action) in enumerate(settings.prompts):
        caption = f"a {colour} {body} {ACTIONS[action].doing[0]}, happy"
        unseen = is_held_out({"body": body, "colour": colour, "action": action})
        command = ("generate", caption, *_numbers(seed + number, settings), "--frames", str(_FRAMES))
        badge = "combination not in training" if unseen else ""
        requests.append(_Request(f"text-{number + 1:02d}", caption, command, badge))
    return requests


def _frame_requests(out: Path, dataset: StickerDataset, settings: DemoSettings, seed: int) -> list[_Request]:
    """The tasks that start from frames of test stickers, with the files that their commands read."""
    examples = iter(_examples(dataset, 7))
    requests: list[_Request] = []

    def ask(task: str, title: str, positions: tuple[int, ...], *, text: bool = False, loop: bool = False) -> None:
        clip, caption, fps = next(examples)
        name = title.lower().replace(",", "").replace(" ", "-")
        files = []
        if task == "extend":
            files.append(out / "given" / f"{name}.webp")
            save_sticker(Sticker.at_fps(clip[list(positions)], fps), files[0])
            before, after = positions[0], _FRAMES - 1 - positions[-1]
            options = ["--after", str(after), "--before", str(before), "--context", str(len(positions))]
        else:
            for position in positions:
                files.append(out / "given" / f"{name}-{position}.png")
                save_sticker(Sticker.at_fps(clip[position][None]), files[-1])
            between = ["--between", str(positions[1] - positions[0] - 1)] if task == "inbetween" else []
            options = between or ["--at", str(positions[0]), "--frames", str(_FRAMES)]
        shared = ["--fps", f"{fps:.1f}", *_numbers(seed, settings), *(["--loop"] if loop else [])]
        command = (task, *map(str, files), *([caption] if text else []), *options, *shared)
        original = clip if loop or task != "inbetween" else clip[: positions[-1] + 1]
        title = f"{title}: {caption}" if text else title
        requests.append(_Request(name, title, command, given=positions, original=original))

    ask("animate", "Image to video", (0,))
    ask("animate", "Image and text to video", (0,), text=True)
    ask("animate", "Image and text to video, image third", (2,), text=True)
    ask("inbetween", "In-between", (0, 2, 4))
    ask("inbetween", "In-between as a loop", (0, 2, 4), loop=True)
    ask("extend", "Extend forward", (0, 1, 2, 3))
    ask("extend", "Extend backward", (2, 3, 4, 5))
    return requests


def _numbers(seed: int, settings: DemoSettings) -> list[str]:
    return ["--seed", str(seed), "--guidance", str(settings.guidance)]


def _examples(dataset: StickerDataset, count: int) -> list[tuple[np.ndarray, str, float]]:
    """Clips of ``_FRAMES`` frames with captions and frame rates: the first long enough ones, each body in turn."""
    by_body: dict[str, list[int]] = defaultdict(list)
    for i in range(len(dataset)):
        record = dataset.record(i)
        if record.num_frames >= _FRAMES:
            by_body[str(record.attributes["body"])].append(i)
    rounds = max(map(len, by_body.values()), default=0)
    order = [indices[turn] for turn in range(rounds) for indices in by_body.values() if turn < len(indices)]
    if len(order) < count:
        raise ValueError(f"the demo needs {count} test stickers of {_FRAMES} or more frames; draw more stickers")
    found = []
    for i in order[:count]:
        record = dataset.record(i)
        frames = dataset.frames(i)[np.arange(_FRAMES) * record.num_frames // _FRAMES]
        found.append((frames, record.caption, 1000.0 * _FRAMES / float(np.sum(record.durations))))
    return found


def _make(out: Path, request: _Request, model: str) -> tuple[Card, Sticker]:
    """Run a request's command with a model; returns its card and its sticker."""
    file = out / "stickers" / f"{request.name}.webp"
    command = [*request.command, "--model", model, "-o", str(file)]
    _rdtf(command)
    sticker, strip_data = read_sticker(file), ""
    if request.original is not None:
        strip = out / "strips" / f"{request.name}.png"
        strip.parent.mkdir(exist_ok=True)
        sheet = contact_sheet([sticker, request.original], frames=len(sticker), outlined=[request.given, ()])
        with atomic_file(strip) as picture:
            sheet.save(picture, "PNG")
        strip_data = data_address(strip.read_bytes(), "png")
    words = shlex.join(["rdtf", *command])
    return Card(request.title, data_address(file.read_bytes()), strip_data, request.badge, command=words), sticker


# ---------------------------------------------------------------------------------------------- what is shown


def _shipped_section(cards: Sequence[Card]) -> Section:
    text = f"RDTF carries a trained model. It made these, of {len(cards)} names that it knows, before the small model "
    return Section("By the model of the package", [text + "below was trained."], cards=cards)


def _introduction(settings: DemoSettings, log: Sequence[Mapping[str, Any]], elapsed: float) -> list[str]:
    names = vocabulary_named(settings.vocabulary)
    counts = f"{len(names.bodies)} bodies, {len(names.colours)} colours and {len(names.actions)} actions"
    part = "a small part of the built-in world: " if settings.vocabulary != "full" else "the built-in world: "
    training = f"{log[-1]['seconds'] / 60:.1f} minutes ({log[-1]['step']} steps)"
    return [
        f"{settings.stickers} stickers of {settings.size} px were drawn from {part}{counts}. A model of size tiny then "
        f"trained on them from random weights for {training} on this machine, and generated what is shown here. "
        f"All of it together took {elapsed / 60:.1f} minutes.",
        "Every sticker is transparent and plays on a light, a dark and a checkered ground. So short a training gives "
        "a first impression; a longer one, on more stickers, runs with the same commands.",
    ]


def _plots(log: Sequence[Mapping[str, Any]]) -> list[Any]:
    losses: dict[str, list[tuple[float, float]]] = {}
    weights: dict[str, list[tuple[float, float]]] = {}
    for task in Task:
        name = task.value.replace("_", " ")
        seen = [(line["step"], line["loss_by_task"][task.value]) for line in log if task.value in line["loss_by_task"]]
        if seen:
            losses[name] = smooth(seen, _PLOT_POINTS)
        weights[name] = smooth([(line["step"], line["weights"][task.value]) for line in log], _PLOT_POINTS)
    return [
        line_chart(losses, title="Loss per task (smoothed)", y_label="loss", log_y=True),
        line_chart(weights, title="Curriculum: how often each task is posed (smoothed)", y_label="proportion"),
    ]
