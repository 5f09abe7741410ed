"""Kills a training again and again, resumes it, and counts lost runs and differing bits.

    python benchmarks/kill_resume.py --kills 1000

Two thirds of the kills come at named points (:mod:`rdtf.faults`), the others after a random time; all are SIGKILL. A
run of twelve steps is killed up to ``--chain`` times on its way and is then compared, bit by bit, with one that was
never stopped. A run is lost if it cannot be resumed. The tiny network trains on one thread; processes are forked from
a warm one, so that no kill falls into the imports.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from rdtf.data.prepare import PrepareSettings, prepare
from rdtf.faults import VARIABLE
from rdtf.progress import bars, console
from rdtf.train.checkpoint import checkpoints, load_latest, step_of
from rdtf.train.run import resume, train
from rdtf.train.settings import TrainSettings, recipe_settings
from rdtf.world import write_world

STEPS = 12
TINY = {
    "widths": (16, 32),
    "attention": (False, True),
    "sti_pool": (2, 1),
    "sti_heads": 1,
    "head_dim": 16,
    "text_width": 16,
    "condition_width": 8,
    "condition_out": 8,
}
EVERY = 3  # steps between checkpoints
IN_STEPS = ("data.next", "step.after_backward", "step.after_opt", "log.append")
IN_SAVES = (
    *("ckpt.tmp_open", "ckpt.mid_write", "ckpt.before_fsync", "ckpt.before_manifest", "ckpt.before_rename"),
    *("ckpt.after_rename", "pipeline.before_rename", "files.mid_publish", "ckpt.before_prune", "files.mid_remove"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--chain", type=int, default=5, help="kills a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="end earlier, after this time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console.quiet = True
    with tempfile.TemporaryDirectory(prefix="rdtf-kills-") as folder:
        result = measure(Path(folder), options)
    print(f"{result['kills']} kills of {result['runs']} runs in {result['seconds']:.0f} s:")
    print(
        f"{result['lost']} lost runs, {result['different']} runs with differing bits, {result['leftovers']} leftovers"
    )
    for reason in result["reasons"]:
        print(reason)
    for place, count in sorted(result["places"].items()):
        print(f"  {count:5d}  {place}")
    print(json.dumps(result))


def settings() -> TrainSettings:
    return recipe_settings(
        "fast",
        model=TINY,
        codec="pixel2",
        sampling={"steps": 2},
        steps=STEPS,
        batch_size=4,
        frames=4,
        num_augmented=1,
        warmup_steps=2,
        precision="fp32",
        threads=1,
        checkpoint_every=EVERY,
        previews=1,
        preview_every=5,
    )


def measure(folder: Path, options: argparse.Namespace) -> dict:
    data, straight, run = folder / "data", folder / "straight", folder / "run"
    write_world(folder / "world", 24, 1, size=16, vocabulary="small")
    prepare([folder / "world"], data, PrepareSettings(size=16, splits=(1.0, 0.0, 0.0), workers=1))
    train(data, straight, settings())
    began = time.monotonic()
    train(data, folder / "again", settings())
    length = time.monotonic() - began  # of a whole run, for kills at random times
    draw, places, reasons = random.Random(options.seed), Counter(), []
    kills = runs = lost = different = leftovers = 0
    began = time.monotonic()
    with bars() as progress:
        task = progress.add_task("Kills", total=options.kills, note="")
        while kills < options.kills and time.monotonic() - began < 60 * options.minutes:
            runs += 1
            shutil.rmtree(run, ignore_errors=True)
            for _ in range(min(options.chain, options.kills - kills)):
                place = attempt(data, run, draw, length)
                if place is None:
                    break
                kills += 1
                places[place] += 1
                progress.update(task, completed=kills)
            if (code := go_on(data, run, "")) != 0:
                lost += 1
                reasons.append(f"run {runs} cannot be resumed: exit code {code}")
                continue
            found = differences(straight, run)
            different += bool(found)
            reasons += [f"run {runs}: {line}" for line in found]
            leftovers += sum(path.name.endswith((".partial", ".old", ".removed")) for path in run.rglob("*"))
    return {
        "kills": kills,
        "runs": runs,
        "lost": lost,
        "different": different,
        "leftovers": leftovers,
        "seconds": round(time.monotonic() - began, 1),
        "seed": options.seed,
        "places": dict(places),
        "reasons": reasons,
    }


def differences(one: Path, other: Path) -> list[str]:
    """Names of the tensors and parts of the state whose bits differ between the newest checkpoints of two runs."""
    sides = []
    for run in (one, other):
        checkpoint, _ = load_latest(run / "checkpoints")
        parts = {name: part for name, part in checkpoint.state.items() if name != "seconds"}
        for group, tensors in checkpoint.tensors.items():
            parts |= {f"{group}/{name}": tensor.numpy().tobytes() for name, tensor in tensors.items()}
        sides.append({"step": checkpoint.step, **parts})
    return [name for name in sides[0] | sides[1] if sides[0].get(name) != sides[1].get(name)]


def attempt(data: Path, run: Path, draw: random.Random, length: float) -> str | None:
    """One start that is killed; where. None if the run came to its end before."""
    saved = checkpoints(run / "checkpoints")
    left = STEPS - (step_of(saved[-1]) if saved else 0)
    if draw.random() < 1 / 3:
        code = go_on(data, run, "", draw.uniform(0, length * min(left, 2 * EVERY) / STEPS))
        return "at a random time" if code == -signal.SIGKILL else None
    if draw.random() < 0.4:
        point, times = draw.choice(IN_STEPS), draw.randint(1, max(1, min(left, 2 * EVERY)))
    else:
        point = draw.choice(IN_SAVES[: -2 if len(saved) < 2 else None])
        times = draw.randint(1, 2) if left > EVERY else 1
    return point if go_on(data, run, f"{point}:{times}") == -signal.SIGKILL else None


def go_on(data: Path, run: Path, fault: str, patience: float | None = None) -> int | None:
    """Start or resume the run in a process of its own; its exit code, negative if a signal ended it."""

    def child() -> None:
        os.environ[VARIABLE] = fault
        if (run / "config.json").exists():
            resume(data, run)
        else:
            train(data, run, settings())
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(patience)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode


if __name__ == "__main__":
    main()
