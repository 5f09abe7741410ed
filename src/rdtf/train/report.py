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
from rdtf.train.settings import RECIPES, START_DECIDES, recipe_settings

_POINTS = 300  # of a line in a chart
_PREVIEWS = 8  # side by side
_SHOWN = ("recipe", "start_from", "size", "codec", "precision")  # settings at the top of the page

Points = list[tuple[float, float]]


class _Log(dict[int, dict[str, Any]]):
    """A file of JSON lines by their steps, in order. Names of nested values are joined by dots.

    Args:
        if_empty: what it means that the file has no lines.
        missing: gets a sentence about everything that cannot be read.
    """

    def __init__(self, path: Path, if_empty: str, missing: list[str]) -> None:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        lines, damaged, not_finite = {}, 0, 0
        for text in texts:
            try:
                line = flat(json.loads(text))
                kept = {name: v for name, v in line.items() if not isinstance(v, float) or math.isfinite(v)}
                lines[int(line["step"])] = kept
                not_finite += len(line) - len(kept)
            except (ValueError, TypeError, KeyError, AttributeError):
                damaged += 1
        super().__init__(sorted(lines.items()))
        if damaged:
            missing.append(f"{path.name}: {damaged} damaged lines are left out")
        if not_finite:
            missing.append(f"{path.name}: {not_finite} values that are not finite are left out")
        if not lines:
            missing.append(f"{path.name}: {if_empty}")

    def line(self, name: str) -> Points:
        """The logged values of a number, by step."""
        found = [(step, line.get(name)) for step, line in self.items()]
        return [(float(step), float(y)) for step, y in found if isinstance(y, int | float)]

    def lines(self, group: str) -> dict[str, Points]:
        """All numbers of a group by name, sorted by length and then by letters."""
        names = {name for line in self.values() for name in line if name.startswith(f"{group}.")}
        ordered = sorted(names, key=lambda name: (len(name), name))
        return {name.removeprefix(f"{group}."): self.line(name) for name in ordered}

    def by_task(self, group: str) -> dict[str, Points]:
        lines = self.lines(group)
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
        self.log = _Log(folder / "log.jsonl", "no step is done yet, or the log is lost", self.missing)
        nothing = "no held-out losses (no evaluation yet, or no val split)"
        self.held_out = _Log(folder / HELD_OUT_LOG, nothing, self.missing)
        settings, dataset = self.config.get("settings"), self.config.get("dataset")
        self.settings: dict[str, Any] = settings if isinstance(settings, dict) else {}
        if start := self.settings.get("start_from"):
            own = {name: value for name, value in self.settings.items() if name not in START_DECIDES}
            self.settings = own | _brought(folder, str(start))
        self.dataset = _texts(dataset if isinstance(dataset, dict) else {})
        self._read_previews()
        if not checkpoints(folder / "checkpoints"):
            self.missing.append("no checkpoint yet")

    def _read_previews(self) -> None:
        captions, size = self.config.get("previews"), self.dataset.get("settings.size", "")
        files = sorted((self.folder / "previews").glob("step-*.webp"))
        if not files:
            self.missing.append("no previews yet")
        elif not (isinstance(captions, list) and captions and size.isdecimal()):
            self.missing.append("previews are not shown: the run does not say which captions they belong to")
        else:
            columns = []
            for index in evenly(len(files), _PREVIEWS):
                try:
                    grid = read_sticker(files[index])
                except ValueError as error:
                    self.missing.append(f"a preview cannot be read: {error}")
                else:
                    columns.append(grid_cells(grid, int(size), PREVIEW_COLUMNS, len(captions)))
                    self.preview_steps.append(int(files[index].stem.removeprefix("step-")))
            self.previews = [list(row) for row in zip(*columns, strict=True)]


def _brought(run: Path, start: str) -> dict[str, str]:
    """Size and codec of the model that a run began with, from the run's saved pipeline or else from that model."""
    begun = SHIPPED_FOLDER if start == SHIPPED else Path(start)
    for pipeline in (run / "pipeline", begun / "pipeline", begun):
        try:
            network, codec = (
                json.loads((pipeline / part / "config.json").read_text(encoding="utf-8")) for part in ("dfgn", "codec")
            )
            widths = network.get("network", network)["widths"]  # an adapted network holds its base's arguments
            names = [name for name, size in SIZES.items() if list(size["widths"]) == widths]
            own = codec["_class_name"] == "StickerAutoencoder"
            return {
                "size": names[0] if names else f"widths {', '.join(map(str, widths))}",
                "codec": f"f{2 ** len(codec['widths'])}" if own else codec["_class_name"],
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
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
    comparison = _comparison(read, names) if len(read) > 1 else []
    return render_page(out, "report", title=title, comparison=comparison, runs=pages)


def _page(run: _Run) -> dict[str, Any]:
    """The values of ``report.html`` for one run."""
    captions = [str(caption) or "(no caption)" for caption in run.config["previews"]] if run.previews else []
    strips = [[data_address(webp_bytes(sticker)) for sticker in row] for row in run.previews]
    data = {"folder": str(run.config.get("data") or "")} | run.dataset
    return {
        "missing": run.missing,
        "facts": _facts(run),
        "charts": {group: [chart for chart in charts if chart] for group, charts in _charts(run).items()},
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


def _charts(run: _Run) -> dict[str, list[Markup]]:
    """The charts of each group of ``report.html``."""
    log, held = run.log, run.held_out
    unknown = list(held.lines("by_unknown").items())
    held_out = {
        "Held-out loss": {"all clips": held.line("loss")},
        "Held-out loss by task": held.by_task("by_task"),
        "Held-out loss by number of unknown frames": {
            f"{unknown[i][0]} unknown": unknown[i][1] for i in evenly(len(unknown), LINES)
        },
        "Held-out loss by noise level": {
            f"{float(t):.1f} to {float(t) + 0.2:.1f}": line for t, line in held.lines("by_noise").items()
        },
    }
    rate = {"learning rate": thin(log.line("lr_factor"), _POINTS)}
    return {
        "loss": [
            _smoothed("Training loss", "loss", {"loss": log.line("loss")}, log=True, raw=True),
            _smoothed("Training loss by task (smoothed)", "loss", log.by_task("loss_by_task"), log=True),
        ],
        "held_out": [line_chart(lines, title=title, y_label="loss", log_y=True) for title, lines in held_out.items()],
        "curriculum": [
            _smoothed("Proportion of each task (smoothed)", "proportion", log.by_task("weights")),
            _smoothed("Difficulty", "difficulty", {"difficulty": log.line("difficulty")}, raw=True),
        ],
        "pace": [
            line_chart(rate, title="Learning rate", y_label="fraction"),
            _smoothed("Gradient norm", "norm", {"norm": log.line("grad_norm")}, log=True, raw=True),
            _smoothed("Seconds per step", "seconds", {"seconds": log.pace()}, raw=True),
        ],
    }


def _comparison(runs: Sequence[_Run], names: Sequence[str]) -> list[Markup]:
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
    loss, seconds, pace, stickers = (
        [y for _, y in points]
        for points in (run.log.line("loss"), run.log.line("seconds"), run.log.pace(), run.log.line("stickers"))
    )
    facts = []
    if run.log:
        of = f" of {run.settings['steps']:,}" if isinstance(run.settings.get("steps"), int) else ""
        facts.append(("steps done", f"{max(run.log):,}{of}"))
    if loss:
        facts.append(("loss, last twentieth", f"{np.mean(loss[-max(1, len(loss) // 20) :]):.4f}"))
    if seconds:
        facts.append(("time in steps", duration(seconds[-1])))
    if pace:
        facts.append(("a step (median)", f"{np.median(pace):.2f} s"))
    if pace and stickers:
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
    usual, here = _texts(recipe_settings(recipe).model_dump(mode="json")), _texts(settings)
    own = [name for name in usual if not (settings.get("start_from") and name in START_DECIDES)]
    return [(name, here[name], usual[name]) for name in own if here.get(name, usual[name]) != usual[name]]


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested values as texts, with their names joined by dots."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in flat(values).items()}
