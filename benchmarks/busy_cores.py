"""A training step beside another program: ``python benchmarks/busy_cores.py``.

The step of ``rdtf train`` (default size ``tiny``, 64 px, fp32) on cores that nothing else uses, and beside a process
that keeps one of them busy: in as many threads as there are cores, which wait for each other as OpenMP has it or, asked
by ``OMP_WAIT_POLICY``, asleep; and in one thread. Each figure is of a process of its own. Prints a table and ends in
one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from rich.table import Table

from rdtf.data.prepare import prepare
from rdtf.data.settings import PrepareSettings
from rdtf.progress import bars, console
from rdtf.train.settings import recipe_settings
from rdtf.train.step import Learner
from rdtf.world import write_world

WAITS = {"as OpenMP has it": {}, "asleep": {"OMP_WAIT_POLICY": "passive"}}


def measure(data: Path, threads: int, size: str, steps: int) -> float:
    """Median seconds of a step in this process."""
    with tempfile.TemporaryDirectory() as run:
        learner = Learner(data, Path(run), recipe_settings("fast", size=size, precision="fp32", threads=threads))
        seconds = []
        for step in range(steps + 2):
            began = time.perf_counter()
            learner.train_step(0.3)
            if step >= 2:  # the first ones make the kernels
                seconds.append(time.perf_counter() - began)
    return median(seconds)


@contextmanager
def beside(busy: bool) -> Iterator[None]:
    """A process that counts for ever, or none."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if other:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="tiny", help="of the network")
    parser.add_argument("--stickers", type=int, default=100)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5, help="timed steps a row")
    parser.add_argument("--one", nargs=2, metavar=("DATA", "THREADS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measure(Path(options.one[0]), int(options.one[1]), options.size, options.steps))
        return

    cores = len(os.sched_getaffinity(0))
    rows = [*[(cores, waits) for waits in WAITS if cores > 1], (1, "-")]
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    results = []
    with tempfile.TemporaryDirectory() as folder, bars() as progress:
        world, data = Path(folder) / "world", Path(folder) / "data"
        task = progress.add_task("Trainings", total=2 * len(rows), note="drawing stickers")
        write_world(world, options.stickers, 0, size=options.pixels)
        prepare([world], data, PrepareSettings(size=options.pixels, splits=(1.0, 0.0, 0.0)))
        for threads, waits in rows:
            found = {}
            for name, busy in (("idle", False), ("busy", True)):
                progress.update(task, note=f"{threads} threads, {waits}, {name}")
                command = [sys.executable, __file__, "--size", options.size, "--steps", str(options.steps)]
                with beside(busy):
                    done = subprocess.run(
                        [*command, "--one", str(data), str(threads)],
                        stdout=subprocess.PIPE,
                        text=True,
                        env=plain | WAITS.get(waits, {}),
                        check=True,
                    )
                found[f"{name}_s"] = float(done.stdout.splitlines()[-1])
                progress.advance(task)
            results.append({"threads": threads, "waits": waits, **found})

    title = f"a step of {options.size}, {options.pixels} px, {cores} cores (medians)"
    table = Table("threads", "wait", "idle cores", "beside a busy process", title=title)
    for r in results:
        table.add_row(str(r["threads"]), r["waits"], f"{r['idle_s']:.2f} s", f"{r['busy_s']:.2f} s")
    console.print(table)
    print(json.dumps({"cores": cores, "size": options.size, "pixels": options.pixels, "rows": results}))


if __name__ == "__main__":
    main()
