"""A page about training runs: losses, speed, curriculum, previews, settings. Runs may be unfinished or damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from rdtf.hub import SHIPPED, SHIPPED_FOLDER
from rdtf.io.read import read_sticker
from rdtf.io.write import webp_bytes
from rdtf.masks import Task
from rdtf.page import LINES, data_address, line_chart, render_page, smooth, thin
from rdtf.presets import SIZES
from rdtf.progress import duration
from rdtf.sheets import evenly, grid_cells
from rdtf.sticker import Sticker
from rdtf.train.checkpoint import checkpoints
from rdtf.train.heldout import HELD_OUT_LOG
from rdtf.train.reproducibility import flat
from rdtf.train.run import PREVIEW_COLUMNS
from rdtf.train.settings import BROUGHT, RECIPES, recipe_settings

_POINTS = 300  # of a line in a chart
_PREVIEWS = 8  # side by side
_SHOWN = ("recipe", "start_from", "size", "codec", "precision")  # settings at the top of the page

Points = list[tuple[float, float]]


@dataclass
class _Log:
    """A file of JSON lines, one for each step. Names of nested values are joined by dots."""

    lines: dict[int, dict[str, Any]]

    @classmethod
    def read(cls, path: Path, if_empty: str, missing: list[str]) -> _Log:
        """Read each step once. Lines that cannot be read are counted in ``missing``."""
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        lines, damaged, not_finite = {}, 0, 0
        for text in texts:
            try:
                line = flat(json.loads(text))
                lines[int(line["step"])] = line
            except (ValueError, TypeError, KeyError, AttributeError):
                damaged += 1
                continue
            for name in [name for name, value in line.items() if isinstance(value, float) and not math.isfinite(value)]:
                not_finite += 1
                del line[name]
        if damaged:
            missing.append(f"{path.name}: {damaged} damaged lines are left out")
        if not_finite:
            missing.append(f"{path.name}: {not_finite} values that are not finite are left out")
        if not lines:
            missing.append(f"{path.name}: {if_empty}")
        return cls({step: lines[step] for step in sorted(lines)})

    def line(self, name: str) -> Points:
        """The logged values of a number, by step."""
        found = [(step, line.get(name)) for step, line in self.lines.items()]
        return [(float(step), float(y)) for step, y in found if isinstance(y, int | float)]

    def lines_of(self, group: str) -> dict[str, Points]:
        """All numbers of a group by name, sorted by length and then by letters."""
        names = {name for line in self.lines.values() for name in line if name.startswith(f"{group}.")}
        ordered = sorted(names, key=lambda name: (len(name), name))
        return {name.removeprefix(f"{group}."): self.line(name) for name in ordered}

    def by_task(self, group: str) -> dict[str, Points]:
        lines = self.lines_of(group)
        return {task.value.replace("_", " "): lines[task.value] for task in Task if task.value in lines}

    def pace(self) -> Points:
        """Seconds of each step whose preceding step was logged too."""
        seconds = dict(self.line("seconds"))
        spans = [(step, now - seconds[step - 1]) for step, now in seconds.items() if step - 1 in seconds]
        return [(step, span) for step, span in spans if span > 0]  # the clock may go back after a resume


@dataclass
class _Run:
    """A run as it is on disk, and what is missing in it."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    preview_steps: list[int] = field(default_factory=list)
    previews: list[list[Sticker]] = field(default_factory=list)  # previews[caption][step]

    def __post_init__(self) -> None:
        folder = self.folder
        if not any((folder / name).exists() for name in ("config.json", "log.jsonl", "checkpoints")):
            raise ValueError(
                f"{folder} holds nothing of a run (config.json, log.jsonl, checkpoints); name a run's folder"
            )
        try:
            self.config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self.missing.append("config.json is missing or damaged: settings and data are unknown")
        self.log = _Log.read(folder / "log.jsonl", "no step is done yet, or the log is lost", self.missing)
        nothing = "no held-out losses (no evaluation yet, or no val split)"
        self.held_out = _Log.read(folder / HELD_OUT_LOG, nothing, self.missing)
        self.settings = value if isinstance(value := self.config.get("settings"), dict) else {}
        if self.settings.get("start_from"):
            own = {name: value for name, value in self.settings.items() if name not in BROUGHT}
            self.settings = own | _brought(folder, str(own["start_from"]))
        self.dataset = _texts(value) if isinstance(value := self.config.get("dataset"), dict) else {}
        self._read_previews()

    def _read_previews(self) -> None:
        captions, size = self.config.get("previews"), self.dataset.get("settings.size", "")
        files = sorted((self.folder / "previews").glob("step-*.webp"))
        if not files:
            self.missing.append("no previews yet")
            return
        if not (isinstance(captions, list) and captions and size.isdecimal()):
            self.missing.append("previews are not shown: the run does not say which captions they belong to")
            return
        columns = []
        for path in _evenly(files, _PREVIEWS):
            try:
                columns.append(grid_cells(read_sticker(path), int(size), PREVIEW_COLUMNS, len(captions)))
                self.preview_steps.append(int(path.stem.removeprefix("step-")))
            except ValueError as error:
                self.missing.append(f"a preview cannot be read: {error}")
        self.previews = [list(row) for row in zip(*columns, strict=True)]


def _brought(run: Path, start: str) -> dict[str, str]:
    """Size and codec of the model that a run began with, from the run's saved pipeline or else from that model."""
    begun = SHIPPED_FOLDER if start == SHIPPED else Path(start)
    for pipeline in (run / "pipeline", begun / "pipeline", begun):
        try:
            network, codec = (
                json.loads((pipeline / part / "config.json").read_text(encoding="utf-8")) for part in ("dfgn", "codec")
            )
            widths, kind = network["widths"], codec["_class_name"]
            names = [name for name, size in SIZES.items() if list(size["widths"]) == widths]
            size = names[0] if names else f"widths {', '.join(map(str, widths))}"
            return {"size": size, "codec": f"f{2 ** len(codec['widths'])}" if "Sticker" in kind else kind}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {"size": "unknown", "codec": "unknown"}


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write the page of one run, or of several runs side by side. Returns its path.

    The page lists whatever a run lacks.

    Raises:
        ValueError: no runs or too many, or a folder that holds nothing of a run.
    """
    if not 1 <= len(runs) <= LINES:
        raise ValueError(f"a report shows 1 to {LINES} runs, not {len(runs)}")
    read = [_Run(folder) for folder in runs]
    names = [run.folder.name or str(run.folder) for run in read]
    title = f"Run {names[0]}" if len(read) == 1 else "Runs " + ", ".join(names)
    pages = [{"name": name, **_page(run)} for name, run in zip(names, read, strict=True)]
    return render_page(out, "report", title=title, comparison=_comparison(read, names), runs=pages)


def _page(run: _Run) -> dict[str, Any]:
    """The sections of ``report.html`` for one run."""
    saved = checkpoints(run.folder / "checkpoints")
    captions = [str(caption) or "(no caption)" for caption in run.config["previews"]] if run.previews else []
    strips = [[data_address(webp_bytes(sticker)) for sticker in row] for row in run.previews]
    data = {"folder": str(run.config.get("data") or "")} | run.dataset
    return {
        "missing": run.missing if saved else [*run.missing, "no checkpoint yet"],
        "facts": _facts(run),
        "groups": _groups(run),
        "preview_steps": run.preview_steps,
        "strips": list(zip(captions, strips, strict=True)),
        "settings": list(_texts(run.settings).items()),
        "changed": _deviations(run.settings),
        "data": [(name, value) for name, value in data.items() if value not in ("", "null") and "files." not in name],
    }


def _smoothed(title: str, y_label: str, lines: Mapping[str, Points], *, log: bool = False, raw: bool = False) -> Markup:
    means = {name: smooth(points, _POINTS) for name, points in lines.items()}
    behind = {name: thin(points, _POINTS) for name, points in lines.items()} if raw else None
    return line_chart(means, title=title, y_label=y_label, log_y=log, raw=behind)


def _groups(run: _Run) -> list[tuple[str, str, list[Markup]]]:
    """Heading, explanation and charts."""
    log, held = run.log, run.held_out
    unknown = {f"{name} unknown": line for name, line in _evenly(list(held.lines_of("by_unknown").items()), LINES)}
    noise = {f"{float(t):.1f} to {float(t) + 0.2:.1f}": line for t, line in held.lines_of("by_noise").items()}
    held_out = {
        "Held-out loss": {"all clips": held.line("loss")},
        "Held-out loss by task": held.by_task("by_task"),
        "Held-out loss by number of unknown frames": unknown,
        "Held-out loss by noise level": noise,
    }
    groups = [
        (
            "Loss",
            "The thick line is a moving mean over a twentieth of the run, the thin line shows the raw values. Single "
            "steps say little: they differ by their tasks and noise levels.",
            [
                _smoothed("Training loss", "loss", {"loss": log.line("loss")}, log=True, raw=True),
                _smoothed("Training loss by task (smoothed)", "loss", log.by_task("loss_by_task"), log=True),
            ],
        ),
        (
            "Held-out loss",
            "Measured with the averaged weights on stickers that training never sees. The clips, tasks, masks, noise "
            "levels and noise are the same each time.",
            [line_chart(lines, title=title, y_label="loss", log_y=True) for title, lines in held_out.items()],
        ),
        (
            "Curriculum",
            "How often each task is drawn, and the controller's difficulty: 0 is easy, 4 is hard.",
            [
                _smoothed("Proportion of each task (smoothed)", "proportion", log.by_task("weights")),
                _smoothed("Difficulty", "difficulty", {"difficulty": log.line("difficulty")}, raw=True),
            ],
        ),
        (
            "Optimiser and pace",
            "The learning rate as a fraction of its full value. The gradient norm is taken before clipping.",
            [
                line_chart(
                    {"learning rate": thin(log.line("lr_factor"), _POINTS)}, title="Learning rate", y_label="fraction"
                ),
                _smoothed("Gradient norm", "norm", {"norm": log.line("grad_norm")}, log=True, raw=True),
                _smoothed("Seconds per step", "seconds", {"seconds": log.pace()}, raw=True),
            ],
        ),
    ]
    return [(title, text, [chart for chart in charts if chart]) for title, text, charts in groups]


def _comparison(runs: Sequence[_Run], names: Sequence[str]) -> list[Markup]:
    if len(runs) == 1:
        return []
    unique = [name if names.count(name) == 1 else str(run.folder) for name, run in zip(names, runs, strict=True)]
    pairs = list(zip(unique, runs, strict=True))
    held_out = {name: run.held_out.line("loss") for name, run in pairs}
    charts = [
        _smoothed("Training loss (smoothed)", "loss", {name: run.log.line("loss") for name, run in pairs}, log=True),
        line_chart(held_out, title="Held-out loss", y_label="loss", log_y=True),
        _smoothed("Seconds per step (smoothed)", "seconds", {name: run.log.pace() for name, run in pairs}),
    ]
    return [chart for chart in charts if chart]


def _facts(run: _Run) -> list[tuple[str, str]]:
    """Names and values for the top of the page."""
    facts = []
    if steps := list(run.log.lines):
        of = f" of {run.settings['steps']:,}" if isinstance(run.settings.get("steps"), int) else ""
        facts.append(("steps done", f"{steps[-1]:,}{of}"))
    if loss := _values(run.log.line("loss")):
        facts.append(("loss, last twentieth", f"{np.mean(loss[-max(1, len(loss) // 20) :]):.4f}"))
    if seconds := _values(run.log.line("seconds")):
        facts.append(("time in steps", duration(seconds[-1])))
    if pace := _values(run.log.pace()):
        facts.append(("a step (median)", f"{np.median(pace):.2f} s"))
        if stickers := _values(run.log.line("stickers")):
            facts.append(("stickers per second", f"{np.mean(stickers) / np.mean(pace):.1f}"))
    if held := run.held_out.line("loss"):
        step, best = min(held, key=lambda point: point[1])
        facts.append(("held-out loss", f"{held[-1][1]:.4f}"))
        facts.append(("best held-out loss", f"{best:.4f} at step {step:,.0f}"))
    return facts + [(name, str(run.settings[name])) for name in _SHOWN if run.settings.get(name)]


def _deviations(settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Settings that differ from the recipe: name, value here, value in the recipe."""
    recipe = str(settings.get("recipe"))
    if recipe not in RECIPES:
        return []
    usual = _texts(recipe_settings(recipe).model_dump(mode="json"))
    here = _texts(settings)
    own = [name for name in usual if not (settings.get("start_from") and name in BROUGHT)]
    return [(name, here[name], usual[name]) for name in own if here.get(name, usual[name]) != usual[name]]


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested values as texts, with their names joined by dots."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in flat(values).items()}


def _values(points: Points) -> list[float]:
    return [y for _, y in points]


def _evenly(items: list[Any], count: int) -> list[Any]:
    return [items[index] for index in evenly(len(items), count)]
