"""A whole comparison, tiny: every file it promises, stopped and gone on with, refused where it does not fit."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import rdtf.research.compare.run as module
import rdtf.research.compare.runs as runs
from rdtf.evaluate.judge import Judge, JudgeConfig
from rdtf.flops import flop_counter
from rdtf.research.compare import Comparison, ComparisonStopped, compare
from rdtf.research.compare.runs import BASE, count, read, work
from rdtf.research.compare.suites import SUITES, Claim, Suite, TableSpec, Variant, World, suite_named
from rdtf.train.run import TrainReport
from rdtf.train.settings import TrainSettings
from rdtf.world import FULL, STILL
from tests.conftest import SMALLEST_NETWORK

BODIES, COLOURS, ACTIONS = FULL["body"], FULL["colour"], (*FULL["action"], STILL)

TINY_TRAINING = {
    "model": SMALLEST_NETWORK,
    "codec": "pixel2",
    "batch_size": 4,
    "frames": 4,
    "num_augmented": 0,
    "muon": False,
    "eval_clips": 4,
}

TINY = Suite(
    "tiny",
    pixels=16,
    target=World(24, seed=5),
    judged=World(16, seed=1),
    source=World(24, seed=2, style="flat"),
    training={**TINY_TRAINING, "previews": 0, "precision": "fp32", "threads": 1},
    base={"model": {**SMALLEST_NETWORK, "widths": (32,)}, "steps": 2},
    variants={
        "rdtf": Variant("RDTF"),
        "lora": Variant("LoRA", tune="lora"),
        "untrained": Variant("the base as it is", untrained=True),
        "none": Variant("no <b>curriculum</b>", {"curriculum": "none", "batch_size": 2}),
    },
    reference="rdtf",
    steps=3,
    seeds=(0,),
    tables=(
        TableSpec(
            "Methods", ("rdtf", "lora"), ("it2v.fd", "it2v.psnr", "t2v.body"), (Claim("rdtf", "lora", ("it2v.psnr",)),)
        ),
        TableSpec("Cost", ("rdtf", "lora", "none"), ("cost.parameters", "cost.trained", "cost.teraflop")),
        TableSpec("The base", ("untrained", "lora"), ("it2v.psnr",)),
    ),
    clips=4,
    sampling_steps=1,
    rates=(1e-9, 3.0),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    Judge(JudgeConfig(names={"body": BODIES, "colour": COLOURS, "action": ACTIONS}, damages=("blur",))).save(
        folder / "judge"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_run_all", _one_after_the_other)  # a process for each would cost more than its run
        patch.setattr(runs, "COUNTED_STEPS", 2)
        compare(of(folder / "out"))
    return folder / "out"


def of(out: Path, suite: Suite = TINY) -> Comparison:
    return Comparison(suite, out, judge=str(out.parent / "judge"))


def _one_after_the_other(comparison: Comparison, jobs: int) -> None:
    for run in [(BASE, 0), *((variant, seed) for seed in TINY.seeds for variant in TINY.variants)]:
        assert work(comparison, *run)


def test_a_comparison_leaves_tables_results_and_a_page(finished: Path):
    results = json.loads((finished / "results.json").read_text())["results"]
    assert {variant: set(seeds) for variant, seeds in results.items()} == {name: {"0"} for name in TINY.variants}
    tables = (finished / "tables.md").read_text()
    assert "## Methods" in tables and "RDTF better than LoRA (the paper's): open in PSNR dB (by " in tables
    assert "FD-sticker" not in tables.split("## Methods")[1]  # four clips are too few for it
    page = (finished / "index.html").read_text()
    assert "no &lt;b&gt;curriculum&lt;/b&gt;" in page and "<b>curriculum" not in page
    assert page.count("data:image/webp") == 4 * (1 + len(TINY.variants))  # the real sticker and each variant's
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_every_run_has_the_compute_of_the_reference(finished: Path):
    results = json.loads((finished / "results.json").read_text())["results"]
    budget = results["rdtf"]["0"]["cost.teraflop"]
    assert results["untrained"]["0"]["cost.steps"] == results["untrained"]["0"]["cost.teraflop"] == 0
    for variant, seeds in results.items():
        for measures in [] if variant == "untrained" else seeds.values():
            # Steps are whole: half a step more or less.
            assert abs(measures["cost.teraflop"] / budget - 1) <= 0.5 / measures["cost.steps"] + 0.02, variant
    assert results["none"]["0"]["cost.steps"] > results["rdtf"]["0"]["cost.steps"]  # smaller batches, more steps
    lora = results["lora"]["0"]
    assert 0 < lora["cost.trained"] < lora["cost.parameters"] / 2
    base = json.loads((finished / "base" / "cost.json").read_text())
    assert lora["cost.with_base"] == pytest.approx(lora["cost.teraflop"] + base["flop"] * base["steps"] / 1e12)
    assert results["rdtf"]["0"]["cost.with_base"] == budget
    assert results["rdtf"]["0"]["cost.trained"] == results["rdtf"]["0"]["cost.parameters"]


def test_a_tuned_method_takes_the_better_of_the_rates(finished: Path):
    losses = read(of(finished).rates("lora"))
    assert losses.keys() == {"1e-09", "3"} and losses["3"] != losses["1e-09"]
    chosen = read(of(finished).run("lora", 0) / "config.json")["settings"]["lr"]
    assert chosen == float(min(losses, key=losses.__getitem__))


def test_what_is_done_is_not_done_again(finished: Path):
    comparison = of(finished)
    result = comparison.run("none", 0) / "result.json"
    before = result.read_text()
    result.unlink()
    assert work(comparison, "none", 0)  # measured anew; trained it was
    assert json.loads(result.read_text()) == json.loads(before)
    written = result.stat().st_mtime_ns
    assert work(comparison, "none", 0) and result.stat().st_mtime_ns == written


def test_stopped_it_shows_the_seeds_that_are_whole(finished: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object) -> None:
        raise ComparisonStopped("stopped")

    monkeypatch.setattr(module, "_run_all", stop)
    two = replace(TINY, seeds=(0, 1))  # more seeds of what is there: no other comparison
    with pytest.raises(ComparisonStopped, match="index.html shows the finished seeds: 0$"):
        compare(of(finished, two))
    assert json.loads((finished / "results.json").read_text())["results"]["rdtf"].keys() == {"0"}
    result = of(finished).run("lora", 0) / "result.json"
    figures = result.read_text()
    result.unlink()
    with pytest.raises(ComparisonStopped, match="stopped$"):
        compare(of(finished, two))
    result.write_text(figures)


def test_runs_are_processes_that_go_on(finished: Path):
    """One run, really in a process of its own, after its training was stopped before the end."""
    folder = of(finished).run("lora", 0)
    (folder / "trained.json").unlink()
    (folder / "result.json").unlink()
    assert compare(of(finished), 1) == finished / "index.html"
    assert (folder / "result.json").is_file() and (folder / "output.txt").is_file()


def test_a_signal_ends_the_runs_too(finished: Path):
    result = of(finished).run("none", 0) / "result.json"
    kept = result.read_text()
    result.unlink()
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))  # while the run's process imports torch
    timer.start()
    try:
        with pytest.raises(ComparisonStopped, match="the same command goes on"):
            compare(of(finished), 1)
        assert not multiprocessing.active_children()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        timer.join()
        result.write_text(kept)


def test_a_run_that_fails_ends_the_comparison_with_its_error(finished: Path):
    comparison = of(finished)
    result = comparison.run("none", 0) / "result.json"
    kept = result.read_text()
    result.unlink()
    samples = comparison.run("none", 0) / "pipeline" / "model_index.json"
    index = samples.read_text()
    samples.unlink()
    try:
        with pytest.raises(RuntimeError, match=r"none, seed 0 failed \(.*holds no trained model(.|\n)*output\.txt"):
            compare(comparison, 1)
    finally:
        samples.write_text(index)
        result.write_text(kept)


def test_another_comparison_is_refused(finished: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"another comparison \(suite.steps 3 -> 4\); choose another folder"):
        compare(of(finished, replace(TINY, steps=4)))
    changed = {**TINY.variants, "none": Variant("none", {"curriculum": "linear"})}
    with pytest.raises(ValueError, match=r"another comparison \(variants.none.title"):
        compare(of(finished, replace(TINY, variants=changed)))
    with pytest.raises(ValueError, match="suite.name tiny -> small"):
        compare(of(finished, SUITES["small"]))
    with pytest.raises(ValueError, match="unknown suite 'huge'; choose one of small, medium"):
        suite_named("huge")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="is not empty and holds no comparison"):
        compare(Comparison(TINY, tmp_path, judge=str(finished.parent / "judge")))


def test_settings_of_runs(tmp_path: Path):
    comparison = Comparison(TINY, tmp_path)
    assert comparison.settings("none", 1).curriculum == "none"
    tuned, base = comparison.settings("lora", 1), comparison.settings(BASE, 0)
    assert tuned.tune == "lora" and tuned.seed == 1 and tuned.steps == TINY.steps
    assert tuned.start_from == str(comparison.run(BASE, 0)) and base.model["widths"] == (32,)
    assert comparison.settings("rdtf", 0).tune is None


def test_settings_that_no_training_can_have_end_it_before_anything_is_drawn(tmp_path: Path):
    for name, value, told in (("learning_rate", 1e-3, "learning_rate"), ("size", "huge", "unknown size 'huge'")):
        with pytest.raises(ValueError, match=told):
            compare(Comparison(TINY.part(settings={name: value}), tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_counted_operations_scale_with_the_batch(finished: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runs, "COUNTED_STEPS", 2)
    one, two = (
        count(finished / "target", of(finished, TINY.part(settings={"batch_size": n})).settings("rdtf", 0))
        for n in (4, 8)
    )
    assert 1.3 < two["flop"] / one["flop"] < 3.2  # the lengths of clips differ
    assert one["parameters"] == two["parameters"]


def test_attention_on_a_processor_is_counted():
    q = torch.zeros(2, 4, 16, 8, requires_grad=True)
    with flop_counter() as counter:
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    product = 2 * (2 * 4) * 16 * 16 * 8  # of one of two in a pass forward; backward has five
    assert counter.get_total_flops() == 7 * product


def test_all_seeds_have_as_many_steps(finished: Path, monkeypatch: pytest.MonkeyPatch):
    """A variant's operations are counted with the first seed and not again."""
    steps = []

    def stopped(data: Path, run: Path, settings: TrainSettings) -> TrainReport:
        steps.append(settings.steps)
        return TrainReport(run, 0, 0.0, False)

    monkeypatch.setattr(runs, "train", stopped)
    monkeypatch.setattr(runs, "count", lambda *_: pytest.fail("counted again"))
    comparison = of(finished, replace(TINY, seeds=(0, 1)))
    try:
        assert not work(comparison, "none", 1)
        assert steps == [read(comparison.run("none", 0) / "cost.json")["steps"]]
    finally:
        shutil.rmtree(comparison.run("none", 1))
