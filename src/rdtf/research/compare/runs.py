"""One run of a comparison: count its compute, train it, measure it.

Each part writes a file and is skipped if the file exists. So a comparison that was stopped or killed can continue.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rdtf.files import write_text
from rdtf.flops import flop_counter
from rdtf.research.compare.measure import measure
from rdtf.research.compare.suites import Suite
from rdtf.train.heldout import HELD_OUT_LOG
from rdtf.train.run import TrainReport, resume, train
from rdtf.train.settings import START_DECIDES, TrainSettings, changed_settings, recipe_settings
from rdtf.train.step import Learner

BASE = "base"
"""Name of the pretrained base in place of a variant's."""
COUNTED_STEPS = 8


def read(file: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Comparison:
    """A suite in a folder.

    Attributes:
        out: folder for everything. data: a prepared dataset; None: stickers are drawn as the suite says.
        judge: see :func:`rdtf.evaluate.judge.load_judge`.
    """

    suite: Suite
    out: Path
    data: Path | None = None
    judge: str = "builtin"

    @property
    def target(self) -> Path:
        """Dataset for training."""
        return self.data or self.out / "target"

    @property
    def judged(self) -> Path:
        """Dataset for measuring."""
        return self.data or self.out / "judged"

    @property
    def source(self) -> Path:
        """Dataset of the base's pretraining."""
        return self.out / "source"

    @property
    def needs_base(self) -> bool:
        """Whether a variant starts from the base."""
        return any(variant.needs_base for variant in self.suite.variants.values())

    def run(self, variant: str, seed: int) -> Path:
        """The folder of a run. The base has a single run."""
        return self.out / BASE if variant == BASE else self.out / "runs" / variant / str(seed)

    def rates(self, variant: str) -> Path:
        """The file of a tuned method's held-out losses by its learning rate."""
        return self.out / "runs" / variant / "rates.json"

    def is_done(self, variant: str, seed: int) -> bool:
        """Whether a run is trained and measured."""
        return (self.run(variant, seed) / ("trained.json" if variant == BASE else "result.json")).is_file()

    def settings(self, variant: str, seed: int, steps: int | None = None) -> TrainSettings:
        """The settings of a run."""
        suite = self.suite
        if variant == BASE:
            return recipe_settings("fast", **{**suite.training, **suite.base, "seed": seed})
        chosen = suite.variants[variant]
        values: dict[str, Any] = {**suite.training, "seed": seed, "steps": steps or suite.steps}
        if chosen.tune is None:
            return changed_settings(recipe_settings("fast", **values).model_dump(exclude_unset=True), chosen.settings)
        own = {name: value for name, value in values.items() if name not in START_DECIDES}
        if (rates := self.rates(variant)).is_file():
            losses = read(rates)
            own["lr"] = float(min(losses, key=losses.__getitem__))
        return recipe_settings("tune", **own, start_from=str(self.run(BASE, 0)), tune=chosen.tune, **chosen.settings)

    def reference(self) -> float:
        """Operations of a step of the suite's reference variant, counted once."""
        file = self.out / "reference.json"
        if not file.is_file():
            write_text(file, json.dumps(count(self.target, self.settings(self.suite.reference, self.suite.seeds[0]))))
        return float(read(file)["flop"])

    def base_teraflop(self) -> float:
        """Operations of the base's pretraining, in 10^12."""
        cost = read(self.run(BASE, 0) / "cost.json")
        return float(cost["flop"] * cost["steps"] / 1e12)


def count(data: Path, settings: TrainSettings) -> dict[str, float]:
    """The cost of a training, from some steps evenly spaced over it. The steps are not kept.

    Returns:
        ``flop``, mean floating-point operations of a step (forward and backward pass, matrix products of Muon);
        ``parameters`` of network and text encoder; the number of ``trained`` ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(data, Path(folder), settings)
        with flop_counter() as counter:
            for step in range(COUNTED_STEPS):
                learner.train_step((step + 0.5) / COUNTED_STEPS)
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in learner.net.parameters()]
    return {
        "flop": counter.get_total_flops() / COUNTED_STEPS,
        "parameters": sum(size for size, _ in sizes),
        "trained": sum(size for size, trained in sizes if trained),
    }


def work(comparison: Comparison, variant: str, seed: int) -> bool:
    """Do the missing parts of a run. Its budget is the operations of the suite's steps of the reference variant.

    Returns:
        False if it was stopped.
    """
    suite, run = comparison.suite, comparison.run(variant, seed)
    run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(suite.training.get("threads") or torch.get_num_threads())
    chosen = None if variant == BASE else suite.variants[variant]
    if chosen is not None and chosen.untrained:
        base = comparison.run(BASE, 0)
        costs = {**read(base / "cost.json"), "flop": 0.0, "trained": 0}
        _measure(comparison, variant, seed, costs, {"steps": 0, "seconds": 0.0}, base)
        return True
    data = comparison.source if chosen is None else comparison.target
    cost, first = run / "cost.json", comparison.run(variant, suite.seeds[0]) / "cost.json"
    if not cost.is_file() and first.is_file():  # the number of steps is the same for all seeds
        write_text(cost, first.read_text(encoding="utf-8"))
    if not cost.is_file():
        costs = count(data, comparison.settings(variant, seed))
        budget = comparison.reference() * suite.steps
        steps = suite.base["steps"] if chosen is None else max(1, round(budget / costs["flop"]))
        write_text(cost, json.dumps({**costs, "steps": steps}))
    costs, trained = read(cost), run / "trained.json"
    if chosen and chosen.tune and suite.rates and not comparison.rates(variant).is_file():
        losses = {f"{rate:g}": _try_rate(comparison, variant, rate, costs["steps"]) for rate in suite.rates}
        if None in losses.values():
            return False
        write_text(comparison.rates(variant), json.dumps(losses, indent=1))
    if not trained.is_file():
        report = _train(data, run, comparison.settings(variant, seed, costs["steps"]))
        if not report.finished:
            return False
        write_text(trained, json.dumps({"steps": report.steps, "seconds": report.seconds}))
    if chosen is not None:
        _measure(comparison, variant, seed, costs, read(trained), run)
    return True


def _train(data: Path, run: Path, settings: TrainSettings) -> TrainReport:
    """Begin a training, or resume it with the settings that it began with."""
    return resume(data, run) if (run / "config.json").is_file() else train(data, run, settings)


def _try_rate(comparison: Comparison, variant: str, rate: float, steps: int) -> float | None:
    """The held-out loss of a quarter of a tuned method's training with this learning rate; None if it was stopped.

    Raises:
        ValueError: the data hold no stickers for a held-out loss.
    """
    run = comparison.rates(variant).with_name("rates") / f"{rate:g}"
    settings = comparison.settings(variant, comparison.suite.seeds[0], max(1, steps // 4))
    if not _train(comparison.target, run, settings.model_copy(update={"lr": rate})).finished:
        return None
    log = run / HELD_OUT_LOG
    if not log.is_file():
        raise ValueError(
            f"{comparison.target} has no val split, so no learning rate can be chosen; prepare it with one"
        )
    return float(json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["loss"])


def _measure(
    comparison: Comparison, variant: str, seed: int, costs: dict[str, Any], spent: dict[str, Any], model: Path
) -> None:
    """Measure a model as the result of a run, unless the run is measured.

    Drawn data have a dataset for measuring. A given dataset is measured on its test split, and on its val split if no
    learning rate was chosen on it.

    Args:
        costs: cost of the training, see :func:`count`. spent: its steps and seconds.
    """
    suite, run = comparison.suite, comparison.run(variant, seed)
    if (run / "result.json").is_file():
        return
    splits: tuple[str | None, ...] = ("test",) if suite.rates else ("val", "test")
    if comparison.data is None:
        splits = (None,)
    own = costs["flop"] * spent["steps"] / 1e12
    base = comparison.base_teraflop() if suite.variants[variant].needs_base else 0.0
    measures = measure(model, run, comparison.judged, splits, suite, seed, comparison.judge) | {
        "cost.parameters": costs["parameters"] / 1e6,
        "cost.trained": costs["trained"] / 1e6,
        "cost.steps": spent["steps"],
        "cost.teraflop": own,
        "cost.with_base": own + base,
        "cost.seconds": spent["seconds"],
    }
    write_text(run / "result.json", json.dumps(measures, indent=1))
