"""Checkpoints that are complete or absent.

A checkpoint is a folder of safetensors files and one ``state.json``. It is written under a temporary name, synced,
given a manifest with the size and SHA-256 of every file, and only then renamed; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from rdtf.faults import reach

_MANIFEST = "manifest.json"
_PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """What a training run needs to go on.

    Attributes:
        step: steps done.
        tensors: named groups (one file each) of named tensors.
        state: everything else, JSON-able.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write ``folder/step-XXXXXXXX`` and then remove the oldest beyond ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.partial"):
        shutil.rmtree(leftover)
    final = folder / f"{_PREFIX}{checkpoint.step:08d}"
    partial = final.with_suffix(".partial")
    partial.mkdir()
    reach("ckpt.tmp_open")
    for name, group in checkpoint.tensors.items():
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in group.items()},
            partial / f"{name}.safetensors",
        )
        reach("ckpt.mid_write")
    (partial / "state.json").write_text(json.dumps({"step": checkpoint.step, **checkpoint.state}), encoding="utf-8")
    files = sorted(partial.iterdir())
    manifest = {file.name: {"bytes": file.stat().st_size, "sha256": _digest(file)} for file in files}
    reach("ckpt.before_fsync")
    for file in files:
        _sync(file)
    reach("ckpt.before_manifest")
    (partial / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    _sync(partial / _MANIFEST)
    _sync(partial)
    reach("ckpt.before_rename")
    if final.exists():  # a resumed run that reaches the same step again
        shutil.rmtree(final)
    partial.rename(final)
    _sync(folder)
    reach("ckpt.after_rename")
    for old in _whole(folder)[:-keep]:
        reach("ckpt.before_prune")
        shutil.rmtree(old)
    return final


def load_latest(folder: Path) -> tuple[Checkpoint, list[str]] | None:
    """The newest checkpoint that verifies, and a line for each newer one that was skipped; None if there is none.

    Raises:
        ValueError: there are checkpoints, but every one of them is damaged.
    """
    skipped: list[str] = []
    for path in reversed(_whole(folder)):
        try:
            return load_checkpoint(path), skipped
        except ValueError as error:
            skipped.append(str(error))
    if skipped:
        raise ValueError("no checkpoint can be used:\n" + "\n".join(skipped))
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        ValueError: a file is missing or differs from the manifest.
    """
    try:
        manifest: Mapping[str, Any] = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: its manifest cannot be read ({error})") from error
    if not isinstance(manifest, dict) or "state.json" not in manifest:
        raise ValueError(f"{path}: its manifest is damaged")
    for name, facts in manifest.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != facts["bytes"] or _digest(file) != facts["sha256"]:
            raise ValueError(f"{file}: missing or damaged (it differs from the manifest)")
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    tensors = {Path(n).stem: load_file(path / n) for n in manifest if n.endswith(".safetensors")}
    return Checkpoint(state.pop("step"), tensors, state)


def _whole(folder: Path) -> list[Path]:
    """Checkpoints by step, oldest first; a partial folder, or one without a manifest, was never finished."""
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if not p.suffix and (p / _MANIFEST).is_file())


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: ``<parameter index>.<name>``."""
    states = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, state in states.items() for name, value in state.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore :func:`optimizer_tensors`; step sizes are left as they are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)].detach()
        if value.shape == parameter.shape:
            # In the parameter's memory order too: fused optimizers pair the two element by element in memory.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(part_like(value, parameter))
        states.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its parts; every process has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor, the part that belongs here if ``like`` is in parts; otherwise all of it."""
    return distribute_tensor(tensor, like.device_mesh, like.placements) if isinstance(like, DTensor) else tensor
