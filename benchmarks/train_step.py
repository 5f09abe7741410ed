"""Where the time of a training step goes: ``python benchmarks/train_step.py``.

Stickers of the built-in world, the settings of ``rdtf train`` (default size ``tiny``, 64 px, codec f4). Side by side:
fp32 and, unless it is emulated, bf16; Muon and AdamW alone; latents and text from the cache, and computed anew in every
step; on a GPU, passes that are recorded and those that are asked for one kernel after the other. Prints a table,
compares the rule for ``precision=auto`` with the fastest precision, and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from rdtf.codec import Codec
from rdtf.data.augment import MIRRORED, PLAIN
from rdtf.data.dataset import StickerDataset
from rdtf.data.prepare import prepare
from rdtf.data.settings import PrepareSettings
from rdtf.device import best_device
from rdtf.pixels import to_tensor
from rdtf.progress import bars, console
from rdtf.train.hardware import choose_precision, has_bf16
from rdtf.train.latents import LatentCache
from rdtf.train.settings import recipe_settings
from rdtf.train.source import TextCache
from rdtf.train.step import Learner
from rdtf.world import write_world

PARTS = ("data", "optimiser", "average")


class OnlineLatents:
    """Stands in for a cache: every clip is drawn from the frames and encoded when it is asked for."""

    def __init__(self, cached: LatentCache, dataset: StickerDataset, codec: Codec) -> None:
        self.cached, self.dataset, self.codec = cached, dataset, codec

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cached, name)

    def clip(self, sticker: int, frames: Sequence[int], variant: int) -> Tensor:
        drawn = self.dataset.frames(sticker)[list(frames)]
        if variant == MIRRORED:
            drawn = drawn[:, :, ::-1]
        elif variant != PLAIN:
            drawn = self.cached.augmentation(self.cached.record(sticker), variant).apply(drawn)
        return self.codec.encode(to_tensor(np.ascontiguousarray(drawn))).movedim(0, 1).cpu()


def measure(data: Path, steps: int, **options: Any) -> dict[str, float]:
    """Medians in seconds of a step and of its parts; ``model`` is what is left: noise, forward and backward pass."""
    online = options.pop("online", False)
    with tempfile.TemporaryDirectory() as run:
        learner = Learner(data, Path(run), recipe_settings("fast", **options))
        if online:
            learner.source.latents = OnlineLatents(learner.source.latents, StickerDataset(data, "train"), learner.codec)
        spent: dict[str, list[float]] = defaultdict(list)
        learner.source.batches = _timed(learner.source.batches, spent["data"])
        for optimizer in learner.optimizers:
            optimizer.step = _timed(optimizer.step, spent["optimiser"])
        learner.ema.step = _timed(learner.ema.step, spent["average"])
        rows = []
        for step in range(steps + 3):
            if online:
                learner.source.text = TextCache(learner.net.text)
            for times in spent.values():
                times.clear()
            began = _now()
            learner.train_step(0.3)
            total = _now() - began
            if step >= 3:  # the first ones make the kernels
                rows.append([total, *(sum(spent[part]) for part in PARTS)])
    step_s, *parts = (median(column) for column in zip(*rows, strict=True))
    return {"step": step_s, **dict(zip(PARTS, parts, strict=True)), "model": step_s - sum(parts)}


def _timed(call: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = _now()
        result = call(*args, **kwargs)
        times.append(_now() - began)
        return result

    return timed


def _now() -> float:
    """Seconds, when everything asked for so far is done."""
    if best_device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="tiny", help="of the network")
    parser.add_argument("--stickers", type=int, default=200)
    parser.add_argument("--steps", type=int, default=15, help="timed steps a row")
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    precisions = ["fp32", "bf16"] if has_bf16(best_device()) else ["fp32"]
    last = precisions[-1]
    variants: dict[str, dict[str, Any]] = {
        **{precision: {"precision": precision} for precision in precisions},
        "fp32, AdamW alone": {"precision": "fp32", "muon": False},
        f"{last}, nothing cached": {"precision": last, "online": True},
    }
    if best_device().type == "cuda":
        variants["bf16, one kernel after the other"] = {"precision": "bf16", "cuda_graphs": False}

    results = {}
    with tempfile.TemporaryDirectory() as folder, bars() as progress:
        world, data = Path(folder) / "world", Path(folder) / "data"
        task = progress.add_task("Variants", total=len(variants), note="drawing stickers")
        write_world(world, options.stickers, 0)
        prepare([world], data, PrepareSettings(splits=(1.0, 0.0, 0.0)))
        for name, variant in variants.items():
            progress.update(task, note=name)
            results[name] = measure(data, options.steps, size=options.size, batch_size=options.batch_size, **variant)
            progress.advance(task)

    title = f"a step of {options.size}, {options.batch_size} stickers, {torch.get_num_threads()} threads (medians)"
    table = Table("variant", "step", "model", *PARTS, "in the model", title=title)
    for name, r in results.items():
        milliseconds = [f"{r[part] * 1e3:.0f} ms" for part in ("step", "model", *PARTS)]
        table.add_row(name, *milliseconds, f"{r['model'] / r['step']:.1%}")
    console.print(table)
    width = max(recipe_settings("fast", size=options.size).network()["widths"])
    chosen, reason = choose_precision(best_device(), width)
    fastest = min(precisions, key=lambda precision: results[precision]["step"])
    console.print(f"The rule takes {chosen}: {reason}. Measured: {fastest} is the fastest of {', '.join(precisions)}.")
    print(
        json.dumps(
            {
                "threads": torch.get_num_threads(),
                **vars(options),
                "rule": chosen,
                "fastest": fastest,
                "variants": results,
            }
        )
    )


if __name__ == "__main__":
    main()
