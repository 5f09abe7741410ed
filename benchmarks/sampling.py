"""Fewer denoising steps: seconds and quality of stickers from captions: ``python benchmarks/sampling.py DATA``.

Captions come from the training split of DATA, a prepared dataset; the model must know them. Each caption is made in
every way in turn, from the same noise. So slow moments of the machine hit all ways alike. A way is a number of steps,
and after colons what differs from the model: ``8:guidance=1:shift=2``. A sticker is a still and then a clip. Two
distances to the real stickers of these captions are measured:

- the unbiased MMD of generated and real stickers, times 1000. Its features are small pictures
  (:func:`rdtf.data.keyframes.frame_features`) of the mean frame and of the mean step between frames. Each feature has
  about unit variance over the real stickers;
- the mean absolute error of the first frame to the real typical frame, premultiplied RGBA, of 255.

The reference is 50 steps with the model's guidance. On the flow path a step of DDIM is a step of Euler's method. A
shift s moves noise levels x to s x / (1 + (s - 1) x), so more steps are spent on much noise. Prints a table and ends in
one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from rich.table import Table

from rdtf.data.dataset import StickerDataset
from rdtf.data.keyframes import frame_features, typical_frame
from rdtf.diffusion.schedulers import FlowMatchEulerDiscreteScheduler
from rdtf.evaluate.sets import unbiased_mmd
from rdtf.hub import SHIPPED
from rdtf.loading import load_pipeline
from rdtf.pixels import premultiply
from rdtf.progress import bars, console
from rdtf.sticker import Sticker

FRAMES = 8
_DEFAULT = ("50", "12", "8", "6", "4")
_WAYS = "STEPS[:guidance=G][:shift=S][:solver=unipc or dpm]; the first is the reference"
SOLVERS = {"unipc": "UniPCMultistepScheduler", "dpm": "DPMSolverMultistepScheduler"}


class Way:
    """A number of denoising steps, and what differs from the model: guidance, shift, solver (of :data:`SOLVERS`)."""

    def __init__(self, text: str) -> None:
        self.text, (steps, *rest) = text, text.split(":")
        self.steps, options = int(steps), dict(part.split("=") for part in rest)
        self.guidance = float(options.pop("guidance")) if "guidance" in options else None
        self.shift = float(options.pop("shift")) if "shift" in options else None
        self.solver = options.pop("solver", None)
        if options or self.solver not in (None, *SOLVERS):
            raise ValueError  # argparse names the argument

    def scheduler(self, own: Any) -> Any:
        """The model's scheduler, or another one for the same path."""
        if self.solver is None and self.shift is None:
            return own
        config = {**own.config, "shift": self.shift or own.config.get("shift", 1.0)}
        if self.solver is None:
            return FlowMatchEulerDiscreteScheduler(**config)
        flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": config["shift"]}
        return getattr(diffusers, SOLVERS[self.solver]).from_config({**config, **flow})


def clip_features(frames: np.ndarray) -> np.ndarray:
    """``(2 d,)``: mean features of frames ``(n, s, s, 4)``, and their mean absolute step."""
    features = frame_features(frames)
    return np.concatenate([features.mean(0), np.abs(np.diff(features, axis=0)).mean(0)])


def error(frame: np.ndarray, real: np.ndarray) -> float:
    """Mean absolute difference of two premultiplied frames, of 255."""
    a, b = (premultiply(one[None]).astype(np.float64) for one in (frame, real))
    return float(np.abs(a - b).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared dataset of the model's size")
    parser.add_argument("-m", "--model", default=SHIPPED)
    parser.add_argument("--count", type=int, default=48, help="captions")
    parser.add_argument("--ways", type=Way, nargs="+", default=[*map(Way, _DEFAULT)], help=_WAYS)
    parser.add_argument("--threads", type=int, help="default: torch's")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    pipe, dataset = load_pipeline(options.model), StickerDataset(options.data, "train")
    real: list[np.ndarray] = []
    typical: list[np.ndarray] = []
    captions: list[str] = []
    for i in np.random.default_rng(0).permutation(len(dataset)).tolist():
        record = dataset.record(i)
        caption = record.captions[0]
        if record.num_frames < FRAMES or not caption or pipe.fit(caption).note or pipe.fit(caption).caption != caption:
            continue
        frames = dataset.frames(i)
        typical.append(frames[typical_frame(frame_features(frames), record.coverage)])
        real.append(frames[np.arange(FRAMES) * len(frames) // FRAMES])
        captions.append(caption)
        if len(captions) == options.count:
            break
    if len(captions) < 4:
        raise SystemExit(f"{options.data} has {len(captions)} moving stickers whose captions {options.model} knows")
    ways = {way.text: way for way in options.ways}
    made: dict[str, list[Sticker]] = {way: [] for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    own = pipe.scheduler
    pipe(captions[0], num_frames=FRAMES, num_inference_steps=1)  # the first call builds kernels
    with bars() as progress:
        task = progress.add_task("making stickers", total=len(captions) * len(ways), note="")
        for seed, caption in enumerate(captions):
            for name, way in ways.items():
                pipe.scheduler = way.scheduler(own)
                given = {} if way.guidance is None else {"guidance_scale": way.guidance}
                start = time.perf_counter()
                call = pipe(caption, num_frames=FRAMES, num_inference_steps=way.steps, seed=seed, loop=True, **given)
                seconds[name].append(time.perf_counter() - start)
                made[name] += call.stickers
                progress.advance(task)
    truth = np.stack([clip_features(frames) for frames in real])
    scale = truth.std(0) + 0.1 * truth.std(0).mean()
    table = Table(title=f"{len(captions)} captions, {torch.get_num_threads()} threads")
    for column in ("way", "seconds a sticker", "times as fast", "MMD x 1000", "95 %", "error of the typical frame"):
        table.add_column(column, justify="right")
    summary = {}
    slowest = float(np.median(seconds[options.ways[0].text]))
    for way, stickers in made.items():
        drawn = np.stack([clip_features(sticker.frames) for sticker in stickers])
        mmd = unbiased_mmd((truth - truth.mean(0)) / scale, (drawn - truth.mean(0)) / scale)
        low, high = (1000 * x for x in (mmd.low, mmd.high))
        wrong = np.mean([error(sticker.frames[0], still) for sticker, still in zip(stickers, typical, strict=True)])
        took = float(np.median(seconds[way]))
        summary[way] = {"seconds": round(took, 3), "mmd": round(1000 * mmd.value, 2), "error": round(float(wrong), 2)}
        cells = (took, slowest / took, 1000 * mmd.value)
        table.add_row(way, *(f"{x:.2f}" for x in cells), f"{low:.1f} to {high:.1f}", f"{wrong:.2f}")
    console.print(table)
    print(json.dumps({"captions": len(captions), "threads": torch.get_num_threads(), "ways": summary}))


if __name__ == "__main__":
    main()
