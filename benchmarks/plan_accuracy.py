"""What ``rdtf plan`` predicts against what a training then takes: ``python benchmarks/plan_accuracy.py``.

Both run in fresh processes, one after the other, with the same options, on stickers of the built-in world. Prints
seconds of a step and peak resident memory, predicted and actual, and ends in one JSON line. On cores that other
programs use, ``--clock processor`` lets both count the process's own time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.table import Table

from rdtf.data.prepare import PrepareSettings, prepare
from rdtf.progress import console
from rdtf.world import write_world

_START = "from rdtf.cli import app; app()"
_PROCESSOR = "import time; time.perf_counter = time.monotonic = time.process_time; "


def run(words: list[str], clock: str) -> int:
    """The command in a fresh process; returns its peak resident bytes."""
    code = (_PROCESSOR if clock == "processor" else "") + _START
    process = subprocess.Popen([sys.executable, "-c", code, *words])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"rdtf {' '.join(words)} ended with {process.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--stickers", type=int, default=150)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("options", nargs="*", help="of rdtf train, behind --; default: --size tiny --threads 1")
    settings = parser.parse_args()
    options = [*(settings.options or ["--size", "tiny", "--threads", "1"]), "--steps", str(settings.steps)]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(folder / "world", settings.stickers, size=settings.pixels)
        prepare([folder / "world"], folder / "data", PrepareSettings(size=settings.pixels, workers=1))
        run(["plan", str(folder / "data"), *options, "--out", str(folder / "plan.json")], settings.clock)
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        peak = run(["train", str(folder / "data"), str(folder / "run"), *options], settings.clock)
        last = json.loads((folder / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])

    table = Table("what", "predicted", "actual", "difference", title=f"{' '.join(options)}, {settings.clock} clock")
    result: dict[str, object] = {"options": options, "clock": settings.clock}
    for what, predicted, actual in (
        ("seconds a step", plan["step"], last["seconds"] / settings.steps),
        ("peak MiB", plan["peak"] / 2**20, peak / 2**20),
    ):
        table.add_row(what, f"{predicted:.2f}", f"{actual:.2f}", f"{predicted / actual - 1:+.1%}")
        result[what] = {"predicted": round(predicted, 3), "actual": round(actual, 3)}
    console.print(table)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
