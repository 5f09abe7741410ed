"""Benchmarks run, at their smallest: what they make up for themselves keeps up with what it stands for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"

SMALLEST = {
    "data_loading": "--stickers 64 --steps 1 --batch-size 2",
    "export_sizes": "--stickers 2 --to slack",
    "find_files": "--files 40",
    "inspect_scale": "--stickers 64",
    "keyframes": "--count 4 --workers 1",
    "near_duplicates": "--count 4 --size 32 --rows 50",
    "temporal_layers": "--channels 32 --cells 4 --frames 2 --repeats 1",
    "train_step": "--stickers 8 --steps 1 --batch-size 2",
    "world_speed": "--count 4",
}
LONG = {
    "busy_cores",
    "export_compared",
    "judge_proof",
    "kill_resume",
    "leaks",
    "paper_step",
    "peers",
    "plan_accuracy",
    "prepare_scale",
}
"""About a minute and more even at their smallest."""


def test_every_benchmark_has_its_place() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == SMALLEST.keys() | LONG
    assert not SMALLEST.keys() & LONG


@pytest.mark.parametrize("name", SMALLEST)
def test_it_runs_and_ends_in_one_json_line(name: str) -> None:
    command = [sys.executable, str(FOLDER / f"{name}.py"), *SMALLEST[name].split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert isinstance(json.loads(done.stdout.splitlines()[-1]), dict)
