"""The conditions under which a resumed run is bit-equal to an unbroken one."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from rdtf.data.dataset import Manifest

LASTING = (
    "size", "model", "codec", "text", "objective", "residual_to_known", "muon",
    "start_from", "grow", "add_text_prior", "add_text_motion", "tune", "tune_options",
)  # fmt: skip
"""Settings that change the tensors of a checkpoint or their meaning. They cannot change within a run."""
HARMLESS = ("checkpoint_every", "preview_every", "previews", "eval_every", "eval_clips", "threads")
"""Settings that change no bit of the result. (``threads`` does change bits; :func:`conditions` compares it.)"""


def conditions(device: torch.device, bf16: bool, processes: int = 1) -> dict[str, str]:
    """Whatever changes the last bits of a sum, by name."""
    return {
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "processes": str(processes),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "precision": "bf16" if bf16 else "fp32",
    }


def _processor() -> str:
    """The processor's model and the instruction set that torch uses."""
    model = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{model} ({torch.backends.cpu.get_cpu_capability()})"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """``"old -> new"`` for every name whose value differs; nested names are joined by dots."""
    found: dict[str, str] = {}
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= {f"{name}.{inner}": text for inner, text in differences(old, new).items()}
        elif old != new:
            found[name] = f"{_short(old)} -> {_short(new)}"
    return found


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values by their names, joined by dots. Empty dictionaries stay values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= {f"{name}.{inner}": leaf for inner, leaf in flat(value).items()}
        else:
            found[name] = value
    return found


def _short(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def exactness_doubt(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A sentence on why a resumed run may differ from an unbroken one; empty if both are bit-equal.

    Args:
        before, now: ``settings``, ``conditions`` and ``frozen`` (fingerprints of frozen parts).

    Raises:
        ValueError: something differs that cannot change within a run.
    """
    if not now.keys() <= before.keys():
        return "Not promised to be bit-equal to an unbroken run: the checkpoint does not say how it was made"
    changed = differences(before["settings"], now["settings"])
    fixed = {name: text for name, text in changed.items() if name.partition(".")[0] in LASTING}
    if fixed:
        raise ValueError(f"these settings cannot change within a run: {listed(fixed)}; start a new run for them")
    if frozen := differences(before["frozen"], now["frozen"]):
        raise ValueError(
            f"the run was trained with another codec, text encoder or base of the same name: {listed(frozen)}"
        )
    shown = {name: text for name, text in changed.items() if name not in HARMLESS}
    reasons = [listed(found)] if (found := shown | differences(before["conditions"], now["conditions"])) else []
    if now["settings"]["max_minutes"] is not None:
        reasons.append("the schedule follows the clock (max_minutes)")
    return f"Not promised to be bit-equal to an unbroken run: {'; '.join(reasons)}" if reasons else ""


def listed(values: Mapping[str, str]) -> str:
    """``name old -> new, ...``."""
    return ", ".join(f"{name} {text}" for name, text in values.items())


_NAMED_FACTS = {"settings", "counts", "sources"}  # of a dataset, which a message about changes names


def data_facts(manifest: Manifest) -> dict[str, Any]:
    """Facts about a dataset that a run saves, to find changes later."""
    return manifest.model_dump(mode="json", include={"fingerprint", "files", *_NAMED_FACTS})


def changed_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The differences between the facts of two datasets, in words; empty if there are none."""
    if before["fingerprint"] == now["fingerprint"]:
        return ""
    named = {name: text for name, text in differences(before, now).items() if name.split(".")[0] in _NAMED_FACTS}
    return listed(named) or "equally many stickers, but other frames, captions or order"


def _steps(path: Path) -> Iterator[tuple[int, int]]:
    """The step and the length in bytes of each line of a log, up to the first damaged line."""
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError), path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield int(json.loads(line)["step"]), len(line)


def last_step(path: Path) -> int:
    """The step of a log's last undamaged line; 0 if there is none."""
    return max((step for step, _ in _steps(path)), default=0)


def cut_lines(path: Path, step: int, gaps: bool = False) -> int:
    """Remove the lines after ``step`` from a log, because these steps are done again, and what follows a damaged line.

    Args:
        gaps: steps may be missing, as in a log of every tenth step.

    Returns:
        the step of the last line left; 0 if there is none.
    """
    last, size = 0, 0
    for at, length in _steps(path):
        if not last < at <= step or not (gaps or at == last + 1):
            break
        last, size = at, size + length
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(size)
    return last
