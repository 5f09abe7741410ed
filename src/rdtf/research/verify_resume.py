"""Test of exact resume on a user's run: the differences of an unbroken and a killed run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdtf.data.dataset import MANIFEST, read_manifest
from rdtf.faults import VARIABLE
from rdtf.files import write_text
from rdtf.progress import bars
from rdtf.train.checkpoint import Checkpoint, checkpoints, load_latest, step_of
from rdtf.train.heldout import HELD_OUT_LOG
from rdtf.train.reproducibility import data_facts, differences
from rdtf.train.settings import TrainSettings, changed_settings, recipe_settings

_OF_THE_CLOCK = ("seconds",)
_OF_THE_CALL = ("settings", "conditions", "frozen")  # compared when a run is resumed; not part of the state


@dataclass(frozen=True)
class RunState:
    """The state of a run that must be equal in both runs.

    Attributes:
        checkpoint: the newest checkpoint.
        log: lines of the log without times. held_out: lines of the evaluations.
    """

    checkpoint: Checkpoint
    log: list[dict[str, Any]]
    held_out: list[dict[str, Any]]

    @classmethod
    def of(cls, run: Path) -> RunState:
        """The state of a run on disk.

        Raises:
            ValueError: there is no undamaged checkpoint.
        """
        found = load_latest(run / "checkpoints")
        if found is None:
            raise ValueError(f"{run} has no checkpoint")
        log, held_out = (
            [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
            for path in (run / "log.jsonl", run / HELD_OUT_LOG)
        )
        log = [{k: v for k, v in line.items() if k not in _OF_THE_CLOCK} for line in log]
        return cls(found[0], log, held_out)

    @property
    def parts(self) -> dict[str, Any]:
        """Tensors by group, and everything else."""
        state = {k: v for k, v in self.checkpoint.state.items() if k not in (*_OF_THE_CLOCK, *_OF_THE_CALL)}
        return {
            **self.checkpoint.tensors,
            "step": self.checkpoint.step,
            **state,
            "log": self.log,
            "held_out": self.held_out,
        }

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every part."""
        return {name: _digest(part) for name, part in self.parts.items()}


def run_differences(a: Path, b: Path) -> list[str]:
    """The differences between two runs, a line for each part; empty if all bits are equal."""
    one, other = RunState.of(a), RunState.of(b)
    if one.digests == other.digests:
        return []
    found = []
    for name in dict.fromkeys([*one.parts, *other.parts]):
        mine, yours = one.parts.get(name), other.parts.get(name)
        if _digest(mine) != _digest(yours):
            found.append(f"{name}: {_difference(mine, yours)}")
    return found


def _digest(part: Any) -> str:
    digest = hashlib.sha256()
    if isinstance(part, dict) and part and all(isinstance(value, Tensor) for value in part.values()):
        for name, tensor in sorted(part.items()):
            digest.update(f"{name}/{tensor.dtype}/{tuple(tensor.shape)}/".encode())
            digest.update(_bits(tensor).numpy().data)
    else:
        digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _difference(a: Any, b: Any) -> str:
    if isinstance(a, list) and isinstance(b, list):  # log lines
        if len(a) != len(b):
            return f"{len(a)} against {len(b)} lines"
        x, y = next((x, y) for x, y in zip(a, b, strict=True) if x != y)
        return f"from step {x['step']} on: " + ", ".join(f"{k} {v}" for k, v in differences(x, y).items())
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return f"{a} against {b}"
    if a.keys() != b.keys():
        return f"other names: {', '.join(sorted(map(str, a.keys() ^ b.keys()))[:5])}"
    if not all(isinstance(value, Tensor) for value in [*a.values(), *b.values()]):
        return ", ".join(f"{name} differs" for name in a if a[name] != b[name])
    unequal = [name for name in a if a[name].shape != b[name].shape or not torch.equal(_bits(a[name]), _bits(b[name]))]
    same_shape = [name for name in unequal if a[name].shape == b[name].shape]
    largest = max((float((a[name].double() - b[name].double()).abs().max()) for name in same_shape), default=0.0)
    return f"{len(unequal)} of {len(a)} tensors, {unequal[0]} first; the largest difference is {largest:.3g}"


@dataclass(frozen=True)
class Verification:
    """The result of :func:`verify_resume`.

    Attributes:
        first, steps: first step and number of steps.
        kills: points at which the second run was killed.
        unbroken, killed: digests of each part of the two runs.
        differences: empty if everything is equal.
    """

    first: int
    steps: int
    kills: tuple[str, ...]
    unbroken: Mapping[str, str]
    killed: Mapping[str, str]
    differences: list[str]


def verify_resume(source: Path, *, steps: int = 6) -> Verification:
    """Run the same steps twice, once unbroken and once killed (``kill -9``) twice, and compare all bits.

    The steps follow the newest checkpoint of a run, with its settings. For a finished run or a prepared dataset (with
    the recipe ``fast``) they are the first steps. ``source`` is only read. The folder for temporary files (``TMPDIR``)
    needs space for two runs.

    Args:
        source: a run's or a prepared dataset's folder.
        steps: at least 4.

    Raises:
        ValueError: ``source`` is neither, its data are missing, or a step fails.
    """
    if steps < 4:
        raise ValueError(f"verifying a resume needs 4 or more steps, not {steps}")
    data, settings, start = _source(source, steps)
    first = step_of(start) if start else 0
    kills = (f"log.append:{steps // 2}", "ckpt.mid_write")
    with tempfile.TemporaryDirectory(prefix="rdtf-verify-") as folder, bars() as progress:
        task = progress.add_task("Verifying", total=4, note="unbroken")
        runs = []
        for name, every in (("unbroken", 10**9), ("killed", 1)):
            runs.append(Path(folder, name))
            own = changed_settings(settings.model_dump(), {"checkpoint_every": every})
            _lay_out(runs[-1], data, own, start)
        _launch(data, runs[0], f"log.append:{steps}=term")
        progress.update(task, advance=1, note="killed after a step")
        _launch(data, runs[1], kills[0])
        progress.update(task, advance=1, note="killed in a checkpoint")
        _launch(data, runs[1], kills[1])
        progress.update(task, advance=1, note="to the end")
        found = checkpoints(runs[1] / "checkpoints")
        done = step_of(found[-1]) - first if found else 0
        _launch(data, runs[1], f"log.append:{steps - done}=term")
        progress.update(task, advance=1, note="")
        unbroken, killed = (RunState.of(run).digests for run in runs)
        return Verification(first, steps, kills, unbroken, killed, run_differences(*runs))


def _source(source: Path, steps: int) -> tuple[Path, TrainSettings, Path | None]:
    """Data, settings and first checkpoint."""
    config = source / "config.json"
    if not config.is_file():
        if not (source / MANIFEST).is_file():
            raise ValueError(f"{source} is neither a run (config.json) nor a prepared dataset ({MANIFEST})")
        return source, recipe_settings("fast", previews=0), None
    saved = json.loads(config.read_text(encoding="utf-8"))
    settings = TrainSettings.model_validate({**saved["settings"], "previews": 0, "max_minutes": None})
    whole = [path for path in checkpoints(source / "checkpoints") if step_of(path) + steps <= settings.steps]
    return Path(saved["data"]), settings, whole[-1] if whole else None


def _lay_out(run: Path, data: Path, settings: TrainSettings, start: Path | None) -> None:
    """Make a run's folder for ``--resume``."""
    run.mkdir()
    facts = {"settings": settings.model_dump(), "data": str(data.resolve()), "dataset": data_facts(read_manifest(data))}
    write_text(run / "config.json", json.dumps(facts))
    if start is not None:
        shutil.copytree(start, run / "checkpoints" / start.name)
        for name in ("log.jsonl", HELD_OUT_LOG):
            if (start.parents[1] / name).exists():
                shutil.copy(start.parents[1] / name, run)


def _launch(data: Path, run: Path, fault: str) -> None:
    """Run ``rdtf train --resume`` in a new process with a fault, which must happen."""
    command = [sys.executable, "-m", "rdtf.cli", "train", str(data), str(run), "--resume"]
    done = subprocess.run(command, env={**os.environ, VARIABLE: fault}, capture_output=True, text=True, check=False)
    expected = (75, 0) if fault.endswith("=term") else (-9,)
    if done.returncode not in expected:
        raise ValueError(f"a training of the experiment ended with {done.returncode}:\n{done.stderr[-2000:]}")
