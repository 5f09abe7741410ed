"""Comparison of two runs, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from rdtf.train.checkpoint import Checkpoint, load_latest
from rdtf.train.heldout import HELD_OUT_LOG


def newest(run: Path) -> Checkpoint:
    """The newest checkpoint of a run."""
    found = load_latest(run / "checkpoints")
    assert found is not None, f"{run} has no checkpoint"
    return found[0]


def run_differences(a: Path, b: Path) -> list[str]:
    """Names of what differs: tensors, parts of the state, and logs without times. Empty if all bits are equal."""
    one, other = _parts(a), _parts(b)
    return [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]


def _parts(run: Path) -> dict[str, Any]:
    checkpoint = newest(run)
    passed_over = ("seconds", "settings", "conditions", "frozen")  # of the clock, and of the call
    parts: dict[str, Any] = {name: part for name, part in checkpoint.state.items() if name not in passed_over}
    parts["step"] = checkpoint.step
    for group, tensors in checkpoint.tensors.items():
        for name, tensor in tensors.items():
            bits = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            parts[f"{group}/{name}"] = (tensor.dtype, tensor.shape, bits)
    for name, file in (("log", "log.jsonl"), ("held_out", HELD_OUT_LOG)):
        lines = (run / file).read_text(encoding="utf-8").splitlines() if (run / file).exists() else []
        parts[name] = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
    return parts
