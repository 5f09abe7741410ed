"""``rdtf compare``: draw or take stickers, pretrain the base, run every variant with every seed, write tables."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rdtf.codec import load_codec
from rdtf.data.dataset import StickerDataset, read_manifest
from rdtf.data.prepare import prepare
from rdtf.data.settings import PrepareSettings
from rdtf.device import usable_cores
from rdtf.evaluate.judge import load_judge
from rdtf.files import folder_lock, write_text
from rdtf.progress import bars, console
from rdtf.research.compare.paths import BASE, Paths
from rdtf.research.compare.results import write_results
from rdtf.research.compare.run_variant import count, settings_of, work
from rdtf.research.compare.suites import Suite, World, suite_named
from rdtf.train.latents import LatentCache, cache_folder
from rdtf.train.run import stop_signals
from rdtf.world import write_world

_POLL_SECONDS = 2.0
_STATUS_SECONDS = 60.0
_LOG_LINES = 12
_STOPPED = 3  # exit code of a run that was stopped and saved


class ComparisonStopped(Exception):
    """The comparison was stopped. The same command continues it."""


@dataclass(frozen=True)
class _Job:
    variant: str
    seed: int

    @property
    def name(self) -> str:
        return self.variant if self.variant == BASE else f"{self.variant}, seed {self.seed}"


def compare(
    suite: Suite | str, out: Path, data: Path | None = None, *, jobs: int | None = None, judge: str = "builtin"
) -> Path:
    """Run a suite, or continue one.

    ``out`` gets the datasets, the runs, ``results.json``, ``tables.md`` and ``index.html``, a page with the stickers of
    all variants side by side.

    Args:
        suite: one of :data:`~rdtf.research.compare.suites.SUITES`, or its name.
        data: a prepared dataset. Training uses its train split, measuring its val and test splits. By default stickers
            are drawn as the suite says.
        judge: name for :func:`rdtf.evaluate.judge.load_judge`: the built-in judge, or a folder.
        jobs: parallel runs; by default the number of cores, or one with a GPU.

    Returns:
        path of the page.

    Raises:
        ValueError: an unknown suite, impossible settings, or ``out`` has another comparison or other files.
        ComparisonStopped: Ctrl-C or SIGTERM. Finished work is kept. The tables have the seeds that all variants have
            finished.
        RuntimeError: a run failed; the text names its log.
    """
    if isinstance(suite, str):
        suite = suite_named(suite)
    paths = Paths(out, data or out / "target", data or out / "judged", judge)
    for name, variant in suite.variants.items():
        if not variant.needs_base:  # the settings of other variants are checked with the base's
            settings_of(suite, paths, name, suite.seeds[0])
    _check_folder(out, suite, data, judge)
    with folder_lock(out, "this comparison"):
        _fill_datasets(suite, paths, data)
        reference = _reference(suite, paths)
        todo = [_Job(BASE, 0)] if any(variant.needs_base for variant in suite.variants.values()) else []
        # All variants with the first seed, then with the next. So a comparison that is stopped has a complete table.
        todo += [_Job(variant, seed) for seed in suite.seeds for variant in suite.variants]
        try:
            _run_all(suite, paths, todo, reference, jobs or _cores())
        except ComparisonStopped as stopped:
            if seeds := _finished_seeds(suite, paths):
                page = write_results(replace(suite, seeds=seeds), paths)
                done = ", ".join(map(str, seeds))
                raise ComparisonStopped(f"{stopped}; {page} shows the finished seeds: {done}") from None
            raise
        return write_results(suite, paths)


def _cores() -> int:
    import torch

    return 1 if torch.cuda.is_available() else usable_cores()


def _check_folder(out: Path, suite: Suite, data: Path | None, judge: str) -> None:
    """Check that ``out`` is new or has a comparison with the same settings, data and judge.

    Seeds, variants and tables may be added, because they do not change existing runs.
    """
    settings = _digest(asdict(replace(suite, tables=(), seeds=(), variants={})))
    about: dict[str, Any] = {"suite": suite.name, "settings": settings, "data": None}
    about["judge"] = load_judge(judge).digest
    if data is not None:
        about["data"] = {"folder": str(data.resolve()), "fingerprint": read_manifest(data).fingerprint}
    variants = {name: _digest(asdict(variant)) for name, variant in suite.variants.items()}
    facts = out / "compare.json"
    if facts.is_file():
        before = json.loads(facts.read_text(encoding="utf-8"))
        there = before.pop("variants", {})
        different = [name for name in about if about[name] != before.get(name)]
        different += [f"variant {name}" for name in variants if variants[name] != there.get(name, variants[name])]
        if different:
            raise ValueError(
                f"{out} holds a comparison with other {', '.join(different)}; choose another folder, or delete it"
            )
        variants = {**there, **variants}
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty and holds no comparison; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_text(facts, json.dumps({**about, "variants": variants}, indent=1))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _fill_datasets(suite: Suite, paths: Paths, data: Path | None) -> None:
    """Draw and encode the datasets that are missing."""
    drawn = {} if data is not None else {paths.target: suite.target, paths.judged: suite.judged}
    pixels = suite.pixels if data is None else StickerDataset(data, "train").size
    if any(variant.needs_base for variant in suite.variants.values()):
        drawn[paths.source] = suite.source
    for folder, world in drawn.items():
        if not (folder / "manifest.json").is_file():
            _draw(folder, world, pixels)
    # Filled before parallel runs start, which need it.
    trained_on = {suite.reference: paths.target}
    if not _is_done(_Job(BASE, 0), paths):
        trained_on[BASE] = paths.source
    for variant, folder in trained_on.items():
        if folder.is_dir():
            settings = settings_of(suite, paths, variant, 0)
            dataset = StickerDataset(folder, "train")
            LatentCache(dataset, load_codec(settings.codec), cache_folder(folder, paths.out), settings.num_augmented)


def _draw(folder: Path, world: World, pixels: int) -> None:
    files = folder.with_name(f"{folder.name}-files")
    write_world(
        files,
        world.count,
        world.seed,
        size=pixels,
        vocabulary=world.vocabulary,
        style=world.style,
        workers=min(usable_cores(), 1 + world.count // 500),
    )
    prepare([files], folder, PrepareSettings(size=pixels))
    shutil.rmtree(files)


def _reference(suite: Suite, paths: Paths) -> float:
    """Operations of a step of the suite's reference variant."""
    file = paths.out / "reference.json"
    if not file.is_file():
        console.print(f"Counting the operations of a step of {suite.variants[suite.reference].title}")
        found = count(paths.target, settings_of(suite, paths, suite.reference, suite.seeds[0]))
        write_text(file, json.dumps(vars(found)))
    return float(json.loads(file.read_text(encoding="utf-8"))["flop"])


# --------------------------------------------------------------------------------------------------------- jobs


def _is_done(job: _Job, paths: Paths) -> bool:
    return (paths.run(job.variant, job.seed) / ("trained.json" if job.variant == BASE else "result.json")).is_file()


def _finished_seeds(suite: Suite, paths: Paths) -> tuple[int, ...]:
    """Seeds that all variants have finished."""
    return tuple(seed for seed in suite.seeds if all(_is_done(_Job(name, seed), paths) for name in suite.variants))


def _waits(job: _Job, suite: Suite, paths: Paths) -> bool:
    """Whether a run must wait for the base, or for the learning rate from the run of the first seed."""
    if job.variant == BASE:
        return False
    variant = suite.variants[job.variant]
    if variant.needs_base and not _is_done(_Job(BASE, 0), paths):
        return True
    finds_rate = variant.tune is not None and bool(suite.rates)
    return finds_rate and job.seed != suite.seeds[0] and not paths.rates(job.variant).is_file()


def _run_all(suite: Suite, paths: Paths, todo: Sequence[_Job], reference: float, at_once: int) -> None:
    waiting = [job for job in todo if not _is_done(job, paths)]
    running: dict[_Job, BaseProcess] = {}
    spawn = multiprocessing.get_context("spawn")
    reported = time.monotonic()
    with bars() as progress, _ended(running), stop_signals() as stop:
        task = progress.add_task("Comparing", total=len(todo), completed=len(todo) - len(waiting), note="")
        while waiting or running:
            for job in list(waiting):
                if len(running) < at_once and not _waits(job, suite, paths):
                    waiting.remove(job)
                    running[job] = spawn.Process(target=_child, args=(suite, paths, job.variant, job.seed, reference))
                    running[job].start()
            # Checked before the runs, because the terminal's Ctrl-C reaches and ends them too.
            if stop.wait(_POLL_SECONDS):
                raise ComparisonStopped("stopped; the same command goes on")
            for job, process in list(running.items()):
                if process.exitcode is None:
                    continue
                del running[job]
                if process.exitcode == _STOPPED:
                    raise ComparisonStopped(f"stopped after saving; the same command goes on in {paths.out}")
                if process.exitcode:
                    raise RuntimeError(_failure(job, paths, process.exitcode))
                progress.advance(task)
            note = "; ".join(f"{job.name}: {_state(job, paths)}" for job in running)
            progress.update(task, note=note)
            if not console.is_terminal and time.monotonic() - reported > _STATUS_SECONDS:
                reported = time.monotonic()
                done = len(todo) - len(waiting) - len(running)
                console.print(f"{done} of {len(todo)} runs; {note}", soft_wrap=True)


def _child(suite: Suite, paths: Paths, variant: str, seed: int, reference: float) -> None:
    """The main function of a run's process. Its output goes into a file of the run's folder."""
    folder = paths.run(variant, seed)
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / "output.txt").open("a", encoding="utf-8", buffering=1)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.exit(0 if work(suite, paths, variant, seed, reference) else _STOPPED)


@contextmanager
def _ended(running: dict[_Job, BaseProcess]) -> Iterator[None]:
    """Stop all runs when the comparison ends early, and wait until they have saved."""
    try:
        yield
    except KeyboardInterrupt:
        raise ComparisonStopped("stopped; the same command goes on") from None
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()


def _state(job: _Job, paths: Paths) -> str:
    """The progress of a run, from its files."""
    run = paths.run(job.variant, job.seed)
    if (run / "trained.json").is_file():
        return "measuring"
    log, cost = run / "log.jsonl", run / "cost.json"
    if not (log.is_file() and cost.is_file()):
        return "beginning"
    with log.open("rb") as lines:
        done = sum(1 for _ in lines)
    return f"step {done}/{json.loads(cost.read_text(encoding='utf-8'))['steps']}"


def _failure(job: _Job, paths: Paths, code: int) -> str:
    output = paths.run(job.variant, job.seed) / "output.txt"
    last = output.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    return f"{job.name} ended with code {code}; its output is in {output}. It ends with:\n" + "\n".join(last)
