"""One run of a comparison, in its own process: count its compute, train it, measure it.

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
from rdtf.research.compare.paths import BASE, Paths
from rdtf.research.compare.suites import Suite
from rdtf.train.heldout import HELD_OUT_LOG
from rdtf.train.run import resume, train
from rdtf.train.settings import BROUGHT, TrainSettings, changed_settings, recipe_settings
from rdtf.train.step import Learner

COUNTED_STEPS = 8


@dataclass(frozen=True)
class Compute:
    """The cost of a training.

    Attributes:
        flop: mean floating-point operations of a step: forward and backward pass, and matrix products of Muon.
        parameters, trained: parameters of network and text encoder, and the number of trained ones.
    """

    flop: float
    parameters: int
    trained: int


def settings_of(suite: Suite, paths: Paths, variant: str, seed: int, steps: int | None = None) -> TrainSettings:
    """The settings of a run."""
    if variant == BASE:
        return recipe_settings("fast", **{**suite.training, **suite.base, "seed": seed})
    chosen = suite.variants[variant]
    values: dict[str, Any] = {**suite.training, "seed": seed, "steps": steps or suite.steps}
    if chosen.tune is None:
        return changed_settings(recipe_settings("fast", **values).model_dump(exclude_unset=True), chosen.settings)
    own = {name: value for name, value in values.items() if name not in BROUGHT}
    if (rates := paths.rates(variant)).is_file():
        losses = json.loads(rates.read_text(encoding="utf-8"))
        own["lr"] = float(min(losses, key=losses.__getitem__))
    return recipe_settings("tune", **own, start_from=str(paths.run(BASE, 0)), tune=chosen.tune, **chosen.settings)


def try_rates(suite: Suite, paths: Paths, variant: str, steps: int) -> bool:
    """Find a tuned method's learning rate: see :class:`~rdtf.research.compare.suites.Suite`.

    Args:
        steps: steps of the method's training.

    Returns:
        False if it was stopped.

    Raises:
        ValueError: the data hold no stickers for a held-out loss.
    """
    losses: dict[str, float] = {}
    for rate in suite.rates:
        run = paths.rate_run(variant, rate)
        settings = settings_of(suite, paths, variant, suite.seeds[0], max(1, steps // 4))
        if (run / "config.json").is_file():
            report = resume(paths.target, run)
        else:
            report = train(paths.target, run, settings.model_copy(update={"lr": rate}))
        if not report.finished:
            return False
        log = run / HELD_OUT_LOG
        if not log.is_file():
            raise ValueError(f"{paths.target} has no val split, so no learning rate can be chosen; prepare it with one")
        losses[f"{rate:g}"] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["loss"]
    write_text(paths.rates(variant), json.dumps(losses, indent=1))
    return True


def count(data: Path, settings: TrainSettings) -> Compute:
    """Count the operations of some steps, evenly spaced over the training. The steps are not kept."""
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(data, Path(folder), settings)
        with flop_counter() as counter:
            for step in range(COUNTED_STEPS):
                learner.train_step((step + 0.5) / COUNTED_STEPS)
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in learner.net.parameters()]
    return Compute(
        counter.get_total_flops() / COUNTED_STEPS,
        sum(size for size, _ in sizes),
        sum(size for size, trained in sizes if trained),
    )


def base_teraflop(paths: Paths) -> float:
    """Operations of the base's pretraining, in 10^12."""
    cost = json.loads((paths.run(BASE, 0) / "cost.json").read_text(encoding="utf-8"))
    return float(cost["flop"] * cost["steps"] / 1e12)


def work(suite: Suite, paths: Paths, variant: str, seed: int, reference: float) -> bool:
    """Do the missing parts of a run.

    Args:
        reference: operations of a step of the suite's reference variant. A run's budget is this number times the steps
            of the suite.

    Returns:
        False if it was stopped.
    """
    run = paths.run(variant, seed)
    run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(suite.training.get("threads") or torch.get_num_threads())
    if variant != BASE and suite.variants[variant].untrained:
        base = paths.run(BASE, 0)
        nothing = {**json.loads((base / "cost.json").read_text(encoding="utf-8")), "flop": 0.0, "trained": 0}
        _write_result(suite, paths, variant, seed, nothing, {"steps": 0, "seconds": 0.0}, model=base)
        return True
    data = paths.source if variant == BASE else paths.target
    cost, first = run / "cost.json", paths.run(variant, suite.seeds[0]) / "cost.json"
    if not cost.is_file() and first.is_file():  # the number of steps is the same for all seeds
        write_text(cost, first.read_text(encoding="utf-8"))
    if not cost.is_file():
        found = count(data, settings_of(suite, paths, variant, seed))
        steps = suite.base["steps"] if variant == BASE else max(1, round(reference * suite.steps / found.flop))
        write_text(cost, json.dumps({**vars(found), "steps": steps}))
    costs = json.loads(cost.read_text(encoding="utf-8"))
    trained = run / "trained.json"
    tuned = variant != BASE and suite.variants[variant].tune is not None
    untried = tuned and suite.rates and not paths.rates(variant).is_file()
    if untried and not try_rates(suite, paths, variant, costs["steps"]):
        return False
    if not trained.is_file():
        if (run / "config.json").is_file():
            report = resume(data, run)
        else:
            report = train(data, run, settings_of(suite, paths, variant, seed, costs["steps"]))
        if not report.finished:
            return False
        write_text(trained, json.dumps({"steps": report.steps, "seconds": report.seconds}))
    if variant != BASE:
        _write_result(suite, paths, variant, seed, costs, json.loads(trained.read_text(encoding="utf-8")))
    return True


def _write_result(
    suite: Suite,
    paths: Paths,
    variant: str,
    seed: int,
    costs: dict[str, Any],
    spent: dict[str, Any],
    model: Path | None = None,
) -> None:
    """Measure a run unless it is measured.

    Args:
        costs: cost of the training, see :class:`Compute`. spent: steps and seconds of the training.
        model: another model to measure.
    """
    run = paths.run(variant, seed)
    if (run / "result.json").is_file():
        return
    own = costs["flop"] * spent["steps"] / 1e12
    measures = measure(run, paths, suite, seed, model) | {
        "cost.parameters": costs["parameters"] / 1e6,
        "cost.trained": costs["trained"] / 1e6,
        "cost.steps": spent["steps"],
        "cost.teraflop": own,
        "cost.with_base": own + (base_teraflop(paths) if suite.variants[variant].needs_base else 0.0),
        "cost.seconds": spent["seconds"],
    }
    write_text(run / "result.json", json.dumps(measures, indent=1))
