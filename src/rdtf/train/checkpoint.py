"""Checkpoints that are complete or absent.

A checkpoint is a folder of safetensors files and one ``state.json``. A save writes it under a temporary name, syncs it,
adds a manifest with the size and SHA-256 of every file, syncs again and verifies. Only then the folder is renamed and
older checkpoints are removed. Nothing is ever unpickled.
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
from pydantic import BaseModel, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from rdtf.faults import reach
from rdtf.files import check_space, disk_errors, mend, publish, remove, sync

_MANIFEST = "manifest.json"
_PREFIX = "step-"


class _File(BaseModel):
    bytes: int
    sha256: str


_FILES = TypeAdapter(dict[str, _File])  # of a manifest


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on after ``step`` steps: groups (one file each) of named tensors, and JSON-able state."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]

    @property
    def bytes(self) -> int:
        """Approximate size on disk."""
        sizes = (tensor.numel() * tensor.element_size() for group in self.tensors.values() for tensor in group.values())
        return int(1.01 * sum(sizes)) + len(json.dumps(self.state))


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write ``folder/step-XXXXXXXX`` and then, once it verifies, remove the oldest beyond ``keep``.

    Raises:
        DiskError: the checkpoint does not fit on the disk or cannot be written; earlier checkpoints are untouched.
        ValueError: a tensor holds values that are not finite.
    """
    for name, group in checkpoint.tensors.items():
        _check_finite(f"step {checkpoint.step} is not saved", name, group)
    folder.mkdir(parents=True, exist_ok=True)
    mend(folder, f"{_PREFIX}*")
    check_space(folder, checkpoint.bytes)
    final = folder / f"{_PREFIX}{checkpoint.step:08d}"
    partial = folder / f"{final.name}.partial"
    with disk_errors(folder, checkpoint.bytes):
        try:
            _write(partial, checkpoint)
            _verify(partial, from_disk=True)
            reach("ckpt.before_rename")
            publish(partial, final)
        except Exception:
            shutil.rmtree(partial, ignore_errors=True)  # frees the space on a full disk
            raise
        reach("ckpt.after_rename")
        for old in [path for path in checkpoints(folder, finished=True) if path != final][: -(keep - 1) or None]:
            reach("ckpt.before_prune")
            remove(old)
    return final


def _write(partial: Path, checkpoint: Checkpoint) -> None:
    partial.mkdir()
    reach("ckpt.tmp_open")
    for name, group in checkpoint.tensors.items():
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in group.items()}, partial / f"{name}.safetensors"
        )
        reach("ckpt.mid_write")
    state = json.dumps({"step": checkpoint.step, **checkpoint.state})
    (partial / "state.json").write_text(state, encoding="utf-8")
    files = sorted(partial.iterdir())
    manifest = {file.name: {"bytes": file.stat().st_size, "sha256": _digest(file)} for file in files}
    reach("ckpt.before_fsync")
    for file in files:
        sync(file)
    reach("ckpt.before_manifest")
    (partial / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync(partial / _MANIFEST)
    sync(partial)


def load_latest(folder: Path) -> tuple[Checkpoint, list[str]] | None:
    """The newest undamaged checkpoint, and a line for each damaged newer one. None if there are no checkpoints.

    Raises:
        ValueError: every checkpoint is damaged, or the folder cannot be read.
    """
    skipped: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            return load_checkpoint(path), skipped
        except ValueError as error:
            skipped.append(str(error))
    if skipped:
        raise ValueError("no checkpoint can be used, and nothing was changed:\n" + "\n".join(skipped))
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        ValueError: a file is missing, cannot be read or differs from the manifest, or a tensor holds values that are
            not finite.
    """
    try:
        names = _verify(path)
    except OSError as error:
        raise ValueError(f"{path}: it cannot be read ({error.strerror or error})") from error
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        step = int(state.pop("step"))
        tensors = {Path(n).stem: load_file(path / n) for n in names if n.endswith(".safetensors")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise ValueError(f"{path}: its files cannot be read ({error})") from error
    if path.name.startswith(_PREFIX) and path.name.partition(".")[0] != f"{_PREFIX}{step:08d}":
        raise ValueError(f"{path}: it holds step {step}, not the one of its name")
    for name, group in tensors.items():
        _check_finite(str(path), name, group)
    return Checkpoint(step, tensors, state)


def checkpoints(folder: Path, *, finished: bool = False) -> list[Path]:
    """Checkpoints by step, oldest first, damaged ones too. A save that was cut short has another name.

    Args:
        finished: only those with a manifest.

    Raises:
        ValueError: the folder is there and cannot be read.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error.strerror}); nothing was changed") from error
    found = [name for name in names if name.startswith(_PREFIX) and name.removeprefix(_PREFIX).isdecimal()]
    paths = sorted((folder / name for name in found), key=step_of)
    return [path for path in paths if os.access(path / _MANIFEST, os.R_OK)] if finished else paths


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.name.removeprefix(_PREFIX))


def _verify(path: Path, *, from_disk: bool = False) -> list[str]:
    """The files of a checkpoint after comparing them with its manifest.

    Args:
        from_disk: drop the system's cached copies first, where the system allows it, so that the disk is read.
    """
    try:
        manifest = _FILES.validate_json((path / _MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: its manifest cannot be read ({error})") from error
    if "state.json" not in manifest or any(Path(name).name != name for name in manifest):
        raise ValueError(f"{path}: its manifest is damaged")
    for name, facts in manifest.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != facts.bytes or _digest(file, from_disk) != facts.sha256:
            raise ValueError(f"{file}: missing or damaged (it differs from the manifest)")
    return list(manifest)


def _check_finite(what: str, name: str, group: Mapping[str, Tensor]) -> None:
    for key, tensor in group.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{what}: {key} in {name} holds values that are not finite")


def _digest(file: Path, from_disk: bool = False) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        if from_disk and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: ``<parameter index>.<name>``."""
    states = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, state in states.items() for name, value in state.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore :func:`optimizer_tensors`. Learning rates do not change."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)].detach()
        if value.shape == parameter.shape:
            # Fused optimizers read parameter and state in memory order, so both need the same strides.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(part_like(value, parameter))
        states.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one. Every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a full tensor if ``like`` is sharded, otherwise the tensor itself."""
    return distribute_tensor(tensor, like.device_mesh, like.placements) if isinstance(like, DTensor) else tensor
