from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import rdtf.train.plan as planning
from rdtf.cli import app
from rdtf.train.plan import Plan, make_plan
from rdtf.train.run import Trainer
from rdtf.train.step import Learner
from tests.conftest import TINY_NETWORK
from tests.train.test_run import settings

MIB = 2**20


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_SECONDS", 0.0)
    monkeypatch.setattr(planning, "_DRAWN", 6)


class Memory:
    """A machine whose memory follows the clips of the largest pass so far."""

    base, per_clip, free = 100 * MIB, 50 * MIB, 1000 * MIB

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
        vars(self).update(values)
        self.clips, original = 0, Learner.backward

        def counted(learner: Learner, batch: Any, *others: Any) -> Any:
            self.clips = max(self.clips, len(batch))
            return original(learner, batch, *others)

        def peak(device: torch.device, *, now: bool = False) -> int:
            return 0 if now else self.base + self.per_clip * self.clips

        monkeypatch.setattr(Learner, "backward", counted)
        monkeypatch.setattr(planning, "peak_memory", peak)
        monkeypatch.setattr(planning, "reset_peak_memory", lambda device: setattr(self, "clips", 0))
        monkeypatch.setattr(planning, "free_memory", lambda device: self.free)


def plan(data: Path, folder: Path, **overrides: Any) -> Plan:
    return make_plan(data, settings(**{"batch_size": 8, **overrides}), folder)


def test_a_plan_measures_steps_and_leaves_nothing(tiny_data: Path, tmp_path: Path):
    made = plan(tiny_data, tmp_path, steps=45)
    assert made.steps == 45
    assert made.training == pytest.approx(45 * made.step)
    assert min(made.step, made.disk) > 0
    assert made.held < made.peak < made.free
    assert list(tmp_path.iterdir()) == []
    json.dumps(asdict(made))


def test_minutes_end_it_where_they_come_first(tiny_data: Path, tmp_path: Path):
    made = plan(tiny_data, tmp_path, steps=100_000, max_minutes=1.0)
    assert made.steps == math.ceil(60 / made.step) < 100_000
    assert plan(tiny_data, tmp_path, steps=3, max_minutes=1000.0).steps == 3


def test_memory_is_read_off_one_and_two_clips(tiny_data: Path, tmp_path: Path, monkeypatch):
    Memory(monkeypatch)
    made = plan(tiny_data, tmp_path)
    clips, frames = made.largest
    assert (clips, frames) == (6, 4)
    assert made.room == int((0.92 * 1000 - 150) / 50) + 1
    assert made.peak == 100 * MIB + 50 * MIB * clips


def test_a_pass_that_does_not_fit_is_refused_before_it_is_made(tiny_data: Path, tmp_path: Path, monkeypatch):
    memory = Memory(monkeypatch, free=320 * MIB)
    with pytest.raises(
        ValueError, match=r"pass of 6 clips of 4 frames needs about 400 MiB.*--set gradient_accumulation_steps=2 does"
    ):
        plan(tiny_data, tmp_path)
    assert memory.clips == 2
    assert plan(tiny_data, tmp_path, gradient_accumulation_steps=2).largest[0] == 3  # and what was advised does fit

    Memory(monkeypatch, free=140 * MIB)
    with pytest.raises(ValueError, match=r"one clip is too much: try --set gradient_checkpointing=true, fewer"):
        plan(tiny_data, tmp_path)


def test_a_network_that_does_not_fit_is_refused_before_it_is_built(tiny_data: Path, tmp_path: Path, monkeypatch):
    def build(*_args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(Trainer, "__init__", build)
    monkeypatch.setattr(planning, "free_memory", lambda device: 19_000 * MIB)
    huge = {"size": "paper", "model": {}, "muon": False}
    with pytest.raises(ValueError, match=r"at least 1\d.\d GiB.*smaller --size"):
        plan(tiny_data, tmp_path, **huge)
    monkeypatch.setattr(planning, "free_memory", lambda device: 40_000 * MIB)
    with pytest.raises(AssertionError):
        plan(tiny_data, tmp_path, **huge)


def test_the_first_step_does_not_count(tiny_data: Path, tmp_path: Path, monkeypatch):
    clock, steps = [0.0], []

    def step(learner: Learner, progress: float) -> None:
        steps.append(learner.step)
        clock[0] += 100.0 if len(steps) == 1 else 2.0
        learner.step += 1

    monkeypatch.setattr(Learner, "train_step", step)
    monkeypatch.setattr(planning.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(planning, "_SECONDS", 9.0)
    assert plan(tiny_data, tmp_path).step == 2.0
    assert steps[1:] == [0, 1, 2, 3, 4]


def test_the_command_takes_the_options_of_training(tiny_data: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["plan", str(tiny_data), "--size", "tiny", "--steps", "7", "--batch-size", "4", "--codec", "pixel2"]
    words += ["--set", f"model={json.dumps(TINY_NETWORK)}", "--set", "previews=0", "--threads", "1", "-o", "plan.json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(Path("plan.json").read_text())["steps"] == 7
    assert "7 steps" in result.output
    monkeypatch.setattr(planning, "free_memory", lambda device: 1000)
    assert CliRunner().invoke(app, words).exit_code == 2
