"""Benchmarks run, at their smallest: what they make up for themselves keeps up with what it stands for."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"

SMALLEST = {
    "codec_fidelity": "f8 --limit 2",
    "data_loading": "--stickers 8 --steps 1 --batch-size 2",
    "export_sizes": "--stickers 2 --to slack",
    "find_files": "--files 40",
    "inspect_scale": "--stickers 16",
    "keyframes": "--count 4 --workers 1",
    "near_duplicates": "--count 4 --size 32 --rows 50",
    "temporal_layers": "--channels 32 --cells 4 --frames 2 --repeats 1",
    "world_speed": "--count 4",
}
LONG = {
    "busy_cores",
    "captions_learned",
    "export_compared",
    "judge_proof",
    "kill_resume",
    "leaks",
    "paper_step",
    "peers",
    "plan_accuracy",
    "prepare_scale",
    "recipes",
    "sampling",
    "train_judge",
    "train_namer",
    "train_step",
}
"""About a minute and more even at their smallest."""


def test_every_benchmark_has_its_place() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == SMALLEST.keys() | LONG
    assert not SMALLEST.keys() & LONG


@pytest.mark.parametrize("name", SMALLEST)
def test_it_runs_and_ends_in_one_json_line(name: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Run in this process: a new one would import torch anew."""
    script, threads = FOLDER / f"{name}.py", torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", [str(script), *SMALLEST[name].split()])
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    assert isinstance(json.loads(capsys.readouterr().out.splitlines()[-1]), dict)
