"""Several processes on one machine (gloo); forked, so that none has to import torch anew."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rdtf.progress import console
from rdtf.train.checkpoint import load_latest
from rdtf.train.run import resume, train
from rdtf.train.settings import recipe_settings
from rdtf.train.step import Learner
from tests.train.test_run import FEW, log, newest, settings

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available() or sys.platform != "linux", reason="forks processes that compute, for which CUDA is unfit"
)


def launch(count: int, job: Callable[[], Any], folder: Path, timeout: float = 60.0) -> list[str]:
    """Run ``job`` in ``count`` processes of one group; returns what it returned or raised in each, as text."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)

    def child(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(True)  # a single process's, from before the fork
        console.quiet = True
        try:
            result = repr(job())
        except Exception as error:
            traceback.print_exc()
            result = f"{type(error).__name__}: {error}"
        (folder / str(rank)).write_text(result)
        os._exit(0)

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=child, args=(rank,)) for rank in range(count)]
    for process in children:
        process.start()
    end = time.monotonic() + timeout
    for process in children:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            pytest.fail("a process hangs")
    return [(folder / str(rank)).read_text() if (folder / str(rank)).exists() else "" for rank in range(count)]


def steady(**overrides: Any) -> Any:
    """Settings whose curriculum reacts, with a batch that falls into groups of several lengths."""
    return settings(**{"batch_size": 6, "muon": False, "lr": 1e-3, **overrides})


def stopped_at(step: int, act: Callable[[Learner], Any], job: Callable[[], Any]) -> Callable[[], Any]:
    """The job, but that ``act`` is done at the end of a step."""
    original = Learner.train_step

    def wrapped(self: Learner, progress: float) -> dict[str, Any]:
        line = original(self, progress)
        if self.step == step:
            act(self)
        return line

    def run() -> Any:
        Learner.train_step = wrapped  # type: ignore[method-assign]
        try:
            return job()
        finally:
            Learner.train_step = original  # type: ignore[method-assign]

    return run


def terminate(learner: Learner) -> None:
    """As a scheduler does, and for one of the processes only."""
    if learner.devices.rank == learner.devices.count - 1:
        os.kill(os.getpid(), signal.SIGTERM)


def assert_same_trace(a: Path, b: Path, rel: float = 2e-4) -> None:
    """Equal to rounding: losses, norms; and the curriculum saw the same samples."""
    one, other = log(a), log(b)
    assert [line["step"] for line in one] == [line["step"] for line in other]
    for x, y in zip(one, other, strict=True):
        assert x["loss"] == pytest.approx(y["loss"], rel=rel)
        assert x["grad_norm"] == pytest.approx(y["grad_norm"], rel=10 * rel)
        assert x["loss_by_task"] == pytest.approx(y["loss_by_task"], rel=rel)
    first, second = (newest(run).state["curriculum"] for run in (a, b))
    assert first["losses"] == pytest.approx(second["losses"], rel=rel)
    assert first["means"] == pytest.approx(second["means"], rel=rel)


@pytest.fixture(scope="module")
def alone(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps in one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    train(tiny_data, run, steady())
    return run


def test_two_processes_make_the_same_steps_and_either_resumes_the_other(alone: Path, tiny_data: Path, tmp_path: Path):
    two, one = tmp_path / "two", tmp_path / "one"
    first = stopped_at(2, terminate, lambda: train(tiny_data, two, steady()).finished)
    assert launch(2, first, tmp_path / "a") == ["False", "False"]  # both, though one was told
    assert newest(two).step == 2
    resume(tiny_data, two)
    assert_same_trace(two, alone)

    stopped_at(2, terminate, lambda: train(tiny_data, one, steady()))()
    assert launch(2, lambda: resume(tiny_data, one).steps, tmp_path / "b") == ["4", "4"]
    assert_same_trace(one, alone)
    assert len((one / "log.jsonl").read_text().splitlines()) == 4  # the first process alone writes


@pytest.mark.parametrize("tune", [pytest.param("lora", marks=pytest.mark.slow), "customize-a-video"])
def test_a_tuned_run_and_its_held_out_losses_are_the_same_in_two_processes(
    alone: Path, split_data: Path, tmp_path: Path, tune: str
):
    """The second method trains in two stages, of other parameters each."""
    asked = recipe_settings(
        "tune",
        **{**FEW, "batch_size": 6, "lr": 1e-3, "eval_clips": 6, "eval_every": 2},
        start_from=str(alone),
        tune=tune,
        tune_options={"rank": 2, **({"absorb": 0.5} if tune == "customize-a-video" else {})},
    )
    one, two = tmp_path / "one", tmp_path / "two"
    train(split_data, one, asked)
    assert launch(2, lambda: train(split_data, two, asked).steps, tmp_path / "a") == ["4", "4"]
    assert_same_trace(two, one)
    losses = [[json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()] for run in (one, two)]
    assert [line["step"] for line in losses[0]] == [line["step"] for line in losses[1]] != []
    for a, b in zip(*losses, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4) and a["by_task"] == pytest.approx(b["by_task"], rel=1e-4)


def test_a_batch_in_parts_is_the_same_step(alone: Path, tiny_data: Path, tmp_path: Path):
    train(tiny_data, tmp_path / "run", steady(gradient_accumulation_steps=3))
    assert_same_trace(tmp_path / "run", alone)


def test_too_many_processes_for_the_batch_are_refused(tiny_data: Path, tmp_path: Path):
    said = launch(2, lambda: train(tiny_data, tmp_path / "run", steady(batch_size=1)), tmp_path / "a")
    assert all(text.startswith("ValueError: 2 processes have nothing to share in a batch_size of 1") for text in said)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_process_that_dies_ends_the_run_and_the_next_start_goes_on(alone: Path, tiny_data: Path, tmp_path: Path):
    run = tmp_path / "run"

    def die(learner: Learner) -> None:
        if learner.devices.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    began = time.monotonic()
    first, second = launch(2, stopped_at(3, die, lambda: train(tiny_data, run, steady())), tmp_path / "a")
    assert first.startswith("LostProcessError: ") and "--resume" in first
    assert second == ""
    assert time.monotonic() - began < 30
    assert newest(run).step == 2
    resume(tiny_data, run)
    assert_same_trace(run, alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("muon", "extra"),
    [(True, {}), (False, {"gradient_checkpointing": True, "gradient_accumulation_steps": 2, "previews": 2})],
)
def test_sharded_parameters_make_the_same_steps(tiny_data: Path, tmp_path: Path, muon: bool, extra: dict[str, Any]):
    train(tiny_data, tmp_path / "alone", steady(muon=muon))
    run = tmp_path / "run"
    job = stopped_at(1, terminate, lambda: train(tiny_data, run, steady(muon=muon, fsdp=True, **extra)).steps)
    assert launch(2, job, tmp_path / "a") == ["1", "1"]
    assert launch(2, stopped_at(3, terminate, lambda: resume(tiny_data, run).steps), tmp_path / "b") == ["3", "3"]
    assert resume(tiny_data, run).steps == 4  # and one process takes up what two had in parts
    assert_same_trace(run, tmp_path / "alone")
    found = load_latest(tmp_path / "alone/checkpoints")
    assert found is not None
    for group, tensors in newest(run).tensors.items():
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, found[0].tensors[group][name], rtol=2e-2, atol=2e-4)


@pytest.mark.slow
def test_four_processes_make_the_same_steps(alone: Path, tiny_data: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert launch(4, lambda: train(tiny_data, run, steady()).steps, tmp_path / "a") == ["4"] * 4
    assert_same_trace(run, alone)
    assert json.loads((run / "config.json").read_text())["settings"]["batch_size"] == 6
