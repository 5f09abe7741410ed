"""What became of a run, as one page: losses, pace, curriculum, previews, settings; of a running or broken run too."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker, webp_bytes
from rdtf.masks import Task
from rdtf.page import line_plot, render_page, smooth, webp_address
from rdtf.sheets import GAP, preview_grid
from rdtf.sticker import Sticker
from rdtf.train.checkpoint import checkpoints, step_of
from rdtf.train.heldout import HELD_OUT_LOG
from rdtf.train.reproducibility import differences, flat
from rdtf.train.run import PREVIEW_COLUMNS
from rdtf.train.settings import RECIPES, TrainSettings, recipe_settings

_POINTS = 300  # of a line, of however many steps
_PREVIEWS = 8  # side by side
_MOST_RUNS = 7  # that a plot has colours for
_UNKNOWN_LINES = 7

Points = list[tuple[float, float]]


@dataclass
class _Run:
    """One run as it lies on the disk, and what of it is missing."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    held_out: list[dict[str, Any]] = field(default_factory=list)
    preview_steps: list[int] = field(default_factory=list)
    previews: list[list[Sticker]] = field(default_factory=list)  # a row a caption, of these steps
    missing: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.name or str(self.folder)

    def line(self, key: str) -> Points:
        """A number of every step's line that has it."""
        return _points((line["step"], line.get(key)) for line in self.log)

    def held(self, group: str | None = None, name: str = "loss") -> Points:
        """A held-out loss by step."""
        lines = ((line["step"], line.get(group) if group else line) for line in self.held_out)
        return _points((step, values.get(name)) for step, values in lines if isinstance(values, dict))


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write the page of one run, or of several beside each other; returns its path.

    Whatever a run lacks (it has just begun, was killed, files are damaged) is listed on the page. The previews of one
    run also go into an animated picture beside it, ``NAME-previews.webp``: a row a caption, a column a step.

    Raises:
        ValueError: no runs or too many, or a folder that holds nothing of a run.
    """
    if not 1 <= len(runs) <= _MOST_RUNS:
        raise ValueError(f"a report shows 1 to {_MOST_RUNS} runs, not {len(runs)}")
    read = [_read(folder) for folder in runs]
    title = f"Run {read[0].name}" if len(read) == 1 else "Runs " + ", ".join(run.name for run in read)
    if len(read) == 1 and read[0].preview_steps:
        stickers = [sticker for row in read[0].previews for sticker in row]
        strip = preview_grid(stickers, columns=len(read[0].preview_steps))
        save_sticker(strip, out.with_name(f"{out.stem}-previews.webp"))
    return render_page(
        out, "report", title=title, comparison=_comparison(read) if len(read) > 1 else [], runs=[_page(r) for r in read]
    )


# -------------------------------------------------------------------------------------------------------- reading


def _read(folder: Path) -> _Run:
    run = _Run(folder)
    if not any((folder / name).exists() for name in ("config.json", "log.jsonl", "checkpoints")):
        raise ValueError(f"{folder} holds nothing of a run (config.json, log.jsonl, checkpoints); name a run's folder")
    try:
        run.config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        run.missing.append("config.json is missing or damaged: settings and data are unknown")
    run.log = _lines(run, "log.jsonl", "no step is done yet, or the log is lost")
    run.held_out = _lines(run, HELD_OUT_LOG, "no held-out losses (no evaluation yet, or no val split)")
    run.preview_steps, run.previews = _previews(run)
    return run


def _lines(run: _Run, name: str, if_none: str) -> list[dict[str, Any]]:
    """The lines that can be read, each step once and in order."""
    try:
        texts = (run.folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        texts = []
    found: dict[int, dict[str, Any]] = {}
    damaged = 0
    for text in texts:
        try:
            line = json.loads(text)
            found[int(line["step"])] = line
        except (ValueError, TypeError, KeyError):
            damaged += 1
    if damaged:
        run.missing.append(f"{name}: {damaged} damaged lines left out")
    if not found:
        run.missing.append(f"{name}: {if_none}")
    return [found[step] for step in sorted(found)]


def _points(pairs: Iterable[tuple[Any, Any]]) -> Points:
    """Those that are finite numbers."""
    return [
        (float(x), float(y))
        for x, y in pairs
        if isinstance(y, int | float) and not isinstance(y, bool) and math.isfinite(y)
    ]


def thinned(points: Points, keep: int = _POINTS) -> Points:
    """Of each stretch the lowest and the highest point, in order, so that no outlier is lost; at most ``keep``."""
    if len(points) <= keep:
        return points
    kept: Points = []
    for part in np.array_split(np.arange(len(points)), keep // 2):
        low, high = (choose(part, key=lambda i: points[i][1]) for choose in (min, max))
        kept += [points[i] for i in sorted({int(low), int(high)})]
    return kept


# -------------------------------------------------------------------------------------------------------- plotting


def _plot(title: str, y_label: str, series: Mapping[str, Points], *, log: bool = False, **more: Any) -> list[Markup]:
    """A plot of what has points, or none."""
    if log:
        series = {name: [(x, y) for x, y in points if y > 0] for name, points in series.items()}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return []
    return [line_plot(series, title=title, x_label="step", y_label=y_label, log_y=log, **more)]


def _with_raw(title: str, y_label: str, name: str, points: Points, *, log: bool = True) -> list[Markup]:
    """A line drawn smoothed, before what it was made of."""
    points = [(x, y) for x, y in points if y > 0] if log else points
    if not points:
        return []
    return _plot(title, y_label, {name: smooth(points, _POINTS)}, log=log, raw={name: thinned(points)})


def _pace(run: _Run) -> Points:
    """Seconds of each step; where the run went back to a checkpoint, or a line is missing, none."""
    pairs = zip(run.log, run.log[1:], strict=False)
    spans = [
        (b["step"], b["seconds"] - a["seconds"])
        for a, b in pairs
        if b["step"] == a["step"] + 1 and isinstance(a.get("seconds"), float) and isinstance(b.get("seconds"), float)
    ]
    return [(step, span) for step, span in _points(spans) if span > 0]


def _nested(run: _Run, key: str, name: str) -> Points:
    return _points((line["step"], line[key].get(name)) for line in run.log if isinstance(line.get(key), dict))


def _by_task(run: _Run, key: str) -> dict[str, Points]:
    lines = {task.value.replace("_", " "): _nested(run, key, task.value) for task in Task}
    return {name: smooth(points, _POINTS) for name, points in lines.items() if points}


def _groups(run: _Run) -> list[tuple[str, str, list[Markup]]]:
    """Heading, explanation and plots."""
    unknown = sorted({name for line in run.held_out for name in line.get("by_unknown", {})}, key=lambda n: (len(n), n))
    if len(unknown) > _UNKNOWN_LINES:
        unknown = [unknown[round(i)] for i in np.linspace(0, len(unknown) - 1, _UNKNOWN_LINES)]
    levels = sorted({name for line in run.held_out for name in line.get("by_noise", {})})
    tasks = {task.value.replace("_", " "): run.held("by_task", task.value) for task in Task}
    return [
        (
            "Loss",
            "Of the steps: a moving mean over a twentieth of the run, before the raw values. Steps differ by their "
            "tasks and noise levels, so single ones say little.",
            _with_raw("Training loss", "loss", "loss", run.line("loss"))
            + _plot("Training loss by task (smoothed)", "loss", _by_task(run, "loss_by_task"), log=True),
        ),
        (
            "Held-out loss",
            "Of the averaged weights, on stickers that training never sees: the same clips, tasks, masks, noise levels "
            "and noise each time.",
            _plot("Held-out loss", "loss", {"all clips": run.held()}, log=True)
            + _plot("Held-out loss by task", "loss", tasks, log=True)
            + _plot(
                "Held-out loss by number of unknown frames",
                "loss",
                {f"{name} unknown": run.held("by_unknown", name) for name in unknown},
                log=True,
            )
            + _plot(
                "Held-out loss by noise level",
                "loss",
                {f"{float(n):.1f} to {float(n) + 0.2:.1f}": run.held("by_noise", n) for n in levels},
                log=True,
            ),
        ),
        (
            "Curriculum",
            "How often each task is posed, and the controller's row: 0 is easy, 4 is hard.",
            _plot("Weight of each task (smoothed)", "share", _by_task(run, "weights"))
            + _with_raw("Difficulty (0 easy, 4 hard)", "difficulty", "difficulty", run.line("difficulty"), log=False),
        ),
        (
            "Optimiser and pace",
            "The learning rate as a share of its full value; the gradient's norm before it is clipped.",
            _plot("Learning rate", "share", {"learning rate": thinned(run.line("lr_factor"))})
            + _with_raw("Gradient norm", "norm", "norm", run.line("grad_norm"))
            + _with_raw("Seconds a step", "seconds", "seconds", _pace(run), log=False),
        ),
    ]


def _comparison(runs: Sequence[_Run]) -> list[Markup]:
    names = [run.name if [r.name for r in runs].count(run.name) == 1 else str(run.folder) for run in runs]
    pairs = list(zip(names, runs, strict=True))
    loss = {name: smooth(run.line("loss"), _POINTS) for name, run in pairs if run.line("loss")}
    pace = {name: smooth(_pace(run), _POINTS) for name, run in pairs if _pace(run)}
    return [
        *_plot("Training loss (smoothed)", "loss", loss, log=True),
        *_plot("Held-out loss", "loss", {name: run.held() for name, run in pairs}, log=True),
        *_plot("Seconds a step (smoothed)", "seconds", pace),
    ]


# -------------------------------------------------------------------------------------------------- what else there is


def _page(run: _Run) -> dict[str, Any]:
    settings = run.config.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    found = checkpoints(run.folder / "checkpoints")
    if not found:
        run.missing.append("no checkpoint yet")
    rows = [(f"step {step_of(path)}", _size(path)) for path in found]
    changed, text = _deviations(settings)
    dataset = run.config.get("dataset")
    data = {"folder": run.config.get("data")} | (_texts(dataset) if isinstance(dataset, dict) else {})
    return {
        "name": run.name,
        "missing": run.missing,
        "facts": _facts(run, settings),
        "groups": _groups(run),
        "preview_steps": run.preview_steps,
        "strips": _strips(run),
        "checkpoints": rows,
        "settings": list(_texts(settings).items()),
        "settings_text": text,
        "changed": changed,
        "data": [(name, value) for name, value in data.items() if value not in (None, "") and "files." not in name],
    }


def _facts(run: _Run, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if run.log:
        last, pace = run.log[-1], [span for _, span in _pace(run)]
        facts.append(
            ("steps done", f"{last['step']:,}" + (f" of {settings['steps']:,}" if "steps" in settings else ""))
        )
        loss = run.line("loss")
        if loss:
            recent = loss[-max(1, len(loss) // 20) :]
            facts.append(("loss, last twentieth", f"{np.mean([y for _, y in recent]):.4f}"))
        if isinstance(last.get("seconds"), float):
            facts.append(("time in steps", _time(last["seconds"])))
        if pace:
            facts.append(("a step (median)", f"{np.median(pace):.2f} s"))
            stickers = [y for _, y in run.line("stickers")]
            facts.append(("stickers a second", f"{np.mean(stickers) / np.mean(pace):.1f}" if stickers else "unknown"))
    if held := run.held():
        best = min(held, key=lambda point: point[1])
        facts.append(("held-out loss", f"{held[-1][1]:.4f}"))
        facts.append(("best held-out loss", f"{best[1]:.4f} at step {best[0]:,.0f}"))
    for name in ("recipe", "size", "codec", "precision"):
        if name in settings:
            facts.append((name, str(settings[name])))
    return facts


def _deviations(settings: Mapping[str, Any]) -> tuple[list[tuple[str, str, str]], str]:
    """What differs from the recipe: name, value here, value there; and a sentence."""
    recipe = str(settings.get("recipe"))
    if recipe not in RECIPES:
        return [], "Of no recipe of this version."
    try:
        here = TrainSettings.model_validate(dict(settings)).model_dump(mode="json")
    except ValueError:
        return [], "They are not settings of this version; so they are not compared with the recipe."
    found = differences(recipe_settings(recipe).model_dump(mode="json"), here)
    rows = [(name, *reversed(text.split(" -> ", 1))) for name, text in found.items()]
    text = f"What deviates from the recipe {recipe}:" if rows else f"Those of the recipe {recipe}."
    return [(name, new, old) for name, new, old in rows], text


def _strips(run: _Run) -> list[tuple[str, list[str]]]:
    """A row a caption: the sticker made for it at each of the steps, as a data URI."""
    captions = [str(caption) or "(no caption)" for caption in run.config["previews"]] if run.previews else []
    rows = [[webp_address(webp_bytes(sticker)) for sticker in row] for row in run.previews]
    return list(zip(captions, rows, strict=True))


def _previews(run: _Run) -> tuple[list[int], list[list[Sticker]]]:
    """Steps, and a row a caption: the sticker made for it at each of the steps."""
    captions = run.config.get("previews")
    size = _texts(run.config.get("dataset") or {}).get("settings.size", "")
    files = sorted((run.folder / "previews").glob("step-*.webp"))
    if not files:
        run.missing.append("no previews yet")
        return [], []
    if not (isinstance(captions, list) and captions and size.isdecimal()):
        run.missing.append("previews are not shown: the run does not say of which captions they are")
        return [], []
    if len(files) > _PREVIEWS:
        files = [files[round(i)] for i in np.linspace(0, len(files) - 1, _PREVIEWS)]
    cell, steps = int(size) + GAP, []
    rows: list[list[Sticker]] = [[] for _ in captions]
    for path in files:
        try:
            grid = read_sticker(path)
        except ValueError as error:
            run.missing.append(f"a preview cannot be read: {error}")
            continue
        steps.append(int(path.stem.removeprefix("step-")))
        for number, row in enumerate(rows):
            top, left = (cell * place for place in divmod(number, PREVIEW_COLUMNS))
            part = grid.frames[:, top : top + cell - GAP, left : left + cell - GAP]
            # Earlier previews may be of fewer captions: the number can change when a run is resumed.
            row.append(
                Sticker(part if part.size else np.zeros((len(grid), *[cell - GAP] * 2, 4), np.uint8), grid.durations)
            )
    return steps, rows if steps else []


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested values as texts, by names that dots join."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in flat(values).items()}


def _size(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 2**20:.1f} MiB"


def _time(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"
