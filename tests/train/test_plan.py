from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import rdtf.train.plan as planning
from rdtf.cli import app
from rdtf.train.plan import Plan, make_plan
from rdtf.train.run import Trainer
from tests.conftest import TINY_NETWORK
from tests.train.test_run import settings

MIB = 2**20


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_SECONDS", 0.3)
    monkeypatch.setattr(planning, "_LOOKED_AT", 6)


class Memory:
    """A machine whose memory follows the clips of the largest pass so far."""

    base, per_clip, free = 100 * MIB, 50 * MIB, 1000 * MIB

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
        vars(self).update(values)
        self.clips, original = 0, planning._Measurement._pass

        def counted(measurement: Any, batch: Any) -> None:
            self.clips = max(self.clips, len(batch))
            original(measurement, batch)

        def peak(device: torch.device, *, now: bool = False) -> int:
            return 0 if now else self.base + self.per_clip * self.clips

        monkeypatch.setattr(planning._Measurement, "_pass", counted)
        monkeypatch.setattr(planning, "peak_memory", peak)
        monkeypatch.setattr(planning, "reset_peak_memory", lambda device: setattr(self, "clips", 0))
        monkeypatch.setattr(planning, "free_memory", lambda device: self.free)


def plan(data: Path, folder: Path, **overrides: Any) -> Plan:
    return make_plan(data, settings(**{"batch_size": 8, **overrides}), folder)


def test_a_plan_counts_steps_saves_previews_and_leaves_nothing(tiny_data: Path, tmp_path: Path):
    made = plan(tiny_data, tmp_path, steps=45, checkpoint_every=10, previews=2, preview_every=20)
    assert (made.steps, made.saves, made.previews) == (45, 5, 3)  # every 10th and the end; every 20th and the end
    assert made.training == pytest.approx(45 * made.step)
    assert made.total == pytest.approx(made.training + 5 * made.save + 3 * made.preview)
    assert min(made.step, made.save, made.preview, made.save_disk) > 0
    assert made.held < made.peak < made.free
    assert list(tmp_path.iterdir()) == []
    json.dumps(made.facts())


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
    assert any("memory is left" in line and "16" in line for line in made.advice)


def test_a_pass_that_does_not_fit_is_refused_before_it_is_made(tiny_data: Path, tmp_path: Path, monkeypatch):
    memory = Memory(monkeypatch, free=320 * MIB)
    with pytest.raises(
        ValueError, match=r"pass of 6 clips of 4 frames needs about 400 MiB.*--set gradient_accumulation_steps=2 does"
    ):
        plan(tiny_data, tmp_path)
    assert memory.clips == 2
    assert plan(tiny_data, tmp_path, gradient_accumulation_steps=2).largest[0] == 3  # and what was advised does fit

    Memory(monkeypatch, free=140 * MIB)
    with pytest.raises(ValueError, match=r"one clip is too much: try --set gradient_checkpointing=true, or --frames 2"):
        plan(tiny_data, tmp_path)


def test_a_network_that_does_not_fit_is_refused_before_it_is_built(tiny_data: Path, tmp_path: Path, monkeypatch):
    def build(*_args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(Trainer, "__init__", build)
    monkeypatch.setattr(planning, "free_memory", lambda device: 19_000 * MIB)
    huge = {"size": "paper", "model": {}, "muon": False}
    with pytest.raises(ValueError, match=r"at least 1\d.\d GiB.*--set ema_on_disk=true.*or --size base fits"):
        plan(tiny_data, tmp_path, **huge)
    with pytest.raises(AssertionError):
        plan(tiny_data, tmp_path, **huge, ema_on_disk=True)


def test_an_average_step_is_made_of_its_passes(tiny_data: Path, tmp_path: Path):
    measured = planning._Measurement(Trainer(tiny_data, tmp_path / "run", settings(batch_size=6)))
    measured.update_seconds, measured.drawing = 0.25, 0.0
    measured.timed = [(size, 0.5 + 0.1 * size) for size in (3, 8, 20)]
    steps = [sum(0.5 + 0.1 * clips * frames for clips, frames in shapes) for shapes in measured.drawn]
    assert measured._step_seconds() == pytest.approx(sum(steps) / len(steps) + 0.25)
    measured.timed = [(4, 2.0), (4, 4.0)]  # nothing to tell a fixed part from
    steps = [sum(0.75 * clips * frames for clips, frames in shapes) for shapes in measured.drawn]
    assert measured._step_seconds() == pytest.approx(sum(steps) / len(steps) + 0.25)


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
