"""``rdtf compare``: draw or take stickers, pretrain the base, run every variant with every seed, write tables."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rdtf.codec import load_codec
from rdtf.data.dataset import MANIFEST, StickerDataset, read_manifest
from rdtf.data.prepare import prepare
from rdtf.data.settings import PrepareSettings
from rdtf.device import usable_cores
from rdtf.evaluate.judge import load_judge
from rdtf.files import folder_lock, write_text
from rdtf.progress import bars
from rdtf.research.compare.results import write_results
from rdtf.research.compare.runs import BASE, Comparison, read, work
from rdtf.train.latents import LatentCache, cache_folder
from rdtf.train.reproducibility import differences, listed
from rdtf.train.run import stop_signals
from rdtf.world import write_world

_POLL_SECONDS = 2.0
_LOG = "output.txt"


class ComparisonStopped(Exception):
    """The comparison was stopped. The same command continues it."""


def compare(comparison: Comparison, jobs: int | None = None) -> Path:
    """Run a comparison, or continue one.

    Its folder gets the datasets, the runs, ``results.json``, ``tables.md`` and ``index.html``, a page with the stickers
    of all variants side by side.

    Args:
        jobs: parallel runs; by default the number of cores, or one with a GPU.

    Returns:
        path of the page.

    Raises:
        ValueError: impossible settings, or the folder has another comparison or other files.
        ComparisonStopped: Ctrl-C or SIGTERM. Finished work is kept. The tables have the seeds that all variants have
            finished.
        RuntimeError: a run failed; the text names its log.
    """
    suite = comparison.suite
    for name, variant in suite.variants.items():
        if not variant.needs_base:  # the settings of other variants are checked with the base's
            comparison.settings(name, suite.seeds[0])
    _check_folder(comparison)
    with folder_lock(comparison.out, "this comparison"):
        _fill_datasets(comparison)
        comparison.reference()
        try:
            _run_all(comparison, jobs or (1 if torch.cuda.is_available() else usable_cores()))
        except ComparisonStopped as stopped:
            finished = [s for s in suite.seeds if all(comparison.is_done(name, s) for name in suite.variants)]
            if not finished:
                raise
            page = write_results(replace(comparison, suite=replace(suite, seeds=tuple(finished))))
            done = ", ".join(map(str, finished))
            raise ComparisonStopped(f"{stopped}; {page} shows the finished seeds: {done}") from None
        return write_results(comparison)


def _check_folder(comparison: Comparison) -> None:
    """Check that the folder is new or has a comparison with the same settings, data and judge.

    Seeds, variants and tables may be added, because they do not change existing runs.
    """
    suite, out = comparison.suite, comparison.out
    about: dict[str, Any] = {
        "suite": asdict(replace(suite, tables=(), seeds=(), variants={})),
        "data": None if comparison.data is None else read_manifest(comparison.data).fingerprint,
        "judge": load_judge(comparison.judge).digest,
        "variants": {name: asdict(variant) for name, variant in suite.variants.items()},
    }
    about = json.loads(json.dumps(about))
    facts = out / "compare.json"
    if facts.is_file():
        before = read(facts)
        about["variants"] = {**before["variants"], **about["variants"]}
        before["variants"] = {**about["variants"], **before["variants"]}
        if changed := differences(before, about):
            raise ValueError(f"{out} holds another comparison ({listed(changed)}); choose another folder, or delete it")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty and holds no comparison; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_text(facts, json.dumps(about, indent=1))


def _fill_datasets(comparison: Comparison) -> None:
    """Draw and encode the datasets that are missing. Parallel runs need them."""
    suite, data = comparison.suite, comparison.data
    drawn = {} if data is not None else {comparison.target: suite.target, comparison.judged: suite.judged}
    pixels = suite.pixels if data is None else StickerDataset(data, "train").size
    if comparison.needs_base:
        drawn[comparison.source] = suite.source
    for folder, world in drawn.items():
        if not (folder / MANIFEST).is_file():
            files = folder.with_name(f"{folder.name}-files")
            workers = min(usable_cores(), 1 + world.count // 500)
            names = {"vocabulary": world.vocabulary, "style": world.style}
            write_world(files, world.count, world.seed, size=pixels, workers=workers, **names)
            prepare([files], folder, PrepareSettings(size=pixels))
            shutil.rmtree(files)
    trained_on = {suite.reference: comparison.target}
    if not comparison.is_done(BASE, 0):
        trained_on[BASE] = comparison.source
    for variant, folder in trained_on.items():
        if folder.is_dir():
            settings = comparison.settings(variant, 0)
            dataset, cache = StickerDataset(folder, "train"), cache_folder(folder, comparison.out)
            LatentCache(dataset, load_codec(settings.codec), cache, settings.num_augmented)


def _run_all(comparison: Comparison, jobs: int) -> None:
    """Do the runs that are missing, each in a process of its own.

    First comes the base, then all variants with the first seed (whose runs choose learning rates), then the others. So
    a comparison that is stopped has a complete table of some seeds.
    """
    suite = comparison.suite
    phases = [[(BASE, 0)] if comparison.needs_base else [], [(variant, suite.seeds[0]) for variant in suite.variants]]
    phases.append([(variant, seed) for seed in suite.seeds[1:] for variant in suite.variants])
    phases = [[run for run in phase if not comparison.is_done(*run)] for phase in phases]
    stopped = ComparisonStopped(f"stopped; the same command goes on in {comparison.out}")
    with bars() as progress, stop_signals() as stop:
        task = progress.add_task("Comparing", total=sum(map(len, phases)), note="")
        for phase in phases:
            # A session of its own: the terminal's Ctrl-C reaches this process alone, which asks its runs to stop.
            begin = getattr(os, "setsid", None)
            pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), begin)
            waiting = {pool.submit(_child, comparison, *run): run for run in phase}
            try:
                while waiting:
                    done, _ = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
                    if stop.is_set():
                        raise stopped
                    for future in done:
                        variant, seed = waiting.pop(future)
                        try:
                            finished = future.result()
                        except Exception as error:
                            log = comparison.run(variant, seed) / _LOG
                            raise RuntimeError(
                                f"{variant}, seed {seed} failed ({error}); its output is in {log}"
                            ) from error
                        if not finished:
                            raise stopped
                        progress.advance(task)
            finally:
                for process in multiprocessing.active_children():
                    process.terminate()  # a training saves first
                pool.shutdown(cancel_futures=True)


def _child(comparison: Comparison, variant: str, seed: int) -> bool:
    """:func:`~rdtf.research.compare.runs.work`, with its output in a file of the run's folder."""
    folder = comparison.run(variant, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOG).open("a", encoding="utf-8", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    return work(comparison, variant, seed)
