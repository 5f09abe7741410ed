"""Datasets and trainings in the studio's folder, made by the commands of ``rdtf`` in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdtf.options import PREPARE_OPTIONS, TRAIN_OPTIONS
from rdtf.studio.forms import Field, fields_of, named_values
from rdtf.studio.jobs import Jobs, checked_name
from rdtf.studio.maker import Models

PREPARING = fields_of(PREPARE_OPTIONS, ("size", "max_frames", "duplicates", "crop", "background"))
TRAINING = fields_of(TRAIN_OPTIONS, ("size", "steps", "max_minutes", "batch_size", "frames", "seed", "preview_every"))

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Status:
    """How a training is.

    Attributes:
        state: see :meth:`rdtf.studio.jobs.Jobs.state`. step: steps done. steps: wanted.
        losses: of training and of held-out clips, by step. preview: the newest, or None. log: what it has printed.
    """

    state: str
    step: int
    steps: int
    losses: dict[str, Points]
    preview: Path | None
    log: str


class Trainings:
    """Datasets (``data/``), pages about them (``pages/``) and runs (``runs/``) of a studio's folder.

    Args:
        sources: folders and archives that may be trained on, by their names.
    """

    def __init__(self, folder: Path, sources: Mapping[str, Path], models: Models) -> None:
        self.data, self.pages, self.runs = folder / "data", folder / "pages", folder / "runs"
        self.sources, self.models = sources, models
        self.jobs = Jobs(folder / "jobs")

    def datasets(self) -> list[str]:
        """The datasets that are prepared."""
        return sorted(path.parent.name for path in self.data.glob("*/manifest.json"))

    def names(self) -> list[str]:
        """The trainings, those that are about to begin included."""
        there = {path.parent.name for path in self.runs.glob("*/config.json")}
        begun = {name.removeprefix("train-") for name in self.jobs.names() if name.startswith("train-")}
        return sorted(there | begun)

    def prepare(self, source: str, name: str, settings: Mapping[str, Any]) -> str:
        """``rdtf prepare`` and ``rdtf inspect``; returns the job's name."""
        if source not in self.sources:
            there = ", ".join(self.sources) or "none: start the studio with --stickers and a folder"
            raise ValueError(f"there is no folder of stickers {source!r}; there are: {there}")
        data = self.data / checked_name(name)
        data.parent.mkdir(parents=True, exist_ok=True)
        flags = _flags(PREPARING, settings)
        look = self.pages / name
        prepare = ["prepare", str(self.sources[source].resolve()), str(data.resolve()), "--overwrite", *flags]
        self.jobs.start(f"data-{name}", [prepare, ["inspect", str(data.resolve()), str(look.resolve())]])
        return f"data-{name}"

    def plan(self, data: str, settings: Mapping[str, Any], model: str = "") -> str:
        """``rdtf plan``; returns the job's name."""
        self.jobs.start("plan", [["plan", *self._training(data, settings, model)]])
        return "plan"

    def train(self, data: str, name: str, settings: Mapping[str, Any], model: str = "") -> str:
        """``rdtf train``, with a model ``--from`` it; returns the job's name."""
        run = self.runs / checked_name(name)
        if (run / "config.json").exists():
            raise ValueError(f"there is a training {name} already; resume it, or choose another name")
        self.runs.mkdir(parents=True, exist_ok=True)
        data_folder, *flags = self._training(data, settings, model)
        self.jobs.start(f"train-{name}", [["train", data_folder, str(run.resolve()), *flags]])
        return f"train-{name}"

    def _training(self, data: str, settings: Mapping[str, Any], model: str) -> list[str]:
        if data not in self.datasets():
            raise ValueError(f"there is no dataset {data!r}; there are: {', '.join(self.datasets()) or 'none yet'}")
        start = ["--from", str(self.models.path(model).resolve())] if model else []
        return [str((self.data / data).resolve()), *_flags(TRAINING, settings), *start]

    def resume(self, name: str) -> str:
        """``rdtf train --resume``; returns the job's name."""
        config = self._known(name) / "config.json"
        try:
            data = json.loads(config.read_text("utf-8"))["data"]
        except (OSError, ValueError, KeyError):
            raise ValueError(f"the training {name} has not begun, or its config.json is damaged") from None
        self.jobs.start(f"train-{name}", [["train", data, str(config.parent.resolve()), "--resume"]])
        return f"train-{name}"

    def stop(self, name: str) -> None:
        """Ask a training to save and stop."""
        self._known(name)
        self.jobs.stop(f"train-{name}")

    def report(self, name: str) -> Path:
        """``rdtf report``; returns the page."""
        from rdtf.train.report import write_report

        return write_report([self._known(name)], self.pages / f"run-{name}.html")

    def status(self, name: str) -> Status:
        """How a training is."""
        run = self._known(name)
        losses = {"training": _line(run / "log.jsonl"), "held out": _line(run / "eval.jsonl")}
        try:
            steps = int(json.loads((run / "config.json").read_text("utf-8"))["settings"]["steps"])
        except (OSError, ValueError, KeyError):
            steps = 0
        step = max((int(points[-1][0]) for points in losses.values() if points), default=0)
        previews = sorted((run / "previews").glob("step-*.webp"))
        job = f"train-{name}"
        state = self.jobs.state(job) or "not started here"
        return Status(state, step, steps, losses, previews[-1] if previews else None, self.jobs.log(job))

    def preview(self, name: str) -> Path:
        """The newest preview of a training."""
        if (newest := self.status(name).preview) is None:
            raise ValueError(f"the training {name} has no preview yet")
        return newest

    def page(self, name: str) -> Path:
        """A file of the pages about datasets and trainings.

        Raises:
            ValueError: there is none, or it is outside of their folder.
        """
        path = (self.pages / name).resolve()
        if not path.is_relative_to(self.pages.resolve()) or not path.is_file():
            raise ValueError(f"there is no page {name[:80]!r}")
        return path

    def _known(self, name: str) -> Path:
        if checked_name(name) not in self.names():
            raise ValueError(f"there is no training {name!r}; there are: {', '.join(self.names()) or 'none yet'}")
        return self.runs / name


def _flags(fields: Sequence[Field], settings: Mapping[str, Any]) -> list[str]:
    flags = {field.name: field.flag for field in fields}
    return [f"--{flags[name]}={value}" for name, value in named_values(fields, settings).items()]


def _line(log: Path) -> Points:
    """Losses by step, as far as they are whole."""
    points = []
    for line in log.read_text("utf-8", "replace").splitlines() if log.is_file() else ():
        try:
            facts = json.loads(line)
            points.append((float(facts["step"]), float(facts["loss"])))
        except (ValueError, KeyError, TypeError):
            continue  # the last one may be half written
    return points
