"""Measures of a run. Samples use the run's seed, and all runs have the same judge."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from rdtf.evaluate.evaluate import held_out_clips
from rdtf.evaluate.filling import FRAMES, pipeline_fill
from rdtf.evaluate.frames import check_given, frame_scores
from rdtf.evaluate.generation import make_clips
from rdtf.evaluate.interpolation_baselines import simple_fills
from rdtf.evaluate.judge import Judge, agreement, fd_sticker, load_judge
from rdtf.evaluate.motion import motion_energy
from rdtf.evaluate.sets import unbiased_mmd
from rdtf.files import atomic_file
from rdtf.loading import load_pipeline
from rdtf.masks import PATTERNS
from rdtf.pipeline import StickerPipeline
from rdtf.research.compare.paths import Paths
from rdtf.research.compare.suites import Suite
from rdtf.train.heldout import HELD_OUT_LOG

SHOWN = 12  # inputs of the page
FEWEST = 20  # clips for a distance of sets
_GIVEN = {  # name of the measure: its patterns
    "interpolation": ("in-between", "in-between, wide"),
    "forward": ("extend forward",),
    "backward": ("extend backward",),
}


def measure(run: Path, paths: Paths, suite: Suite, seed: int, model: Path | None = None) -> dict[str, float]:
    """Measures by name. Measures that the data do not allow (too few clips, no attributes) are missing.

    The samples of the page go into the run's ``samples.npz``.

    Args:
        run: folder of a finished training. model: another model to measure.
        paths: its dataset gives the clips: all clips of a dataset drawn for measuring, otherwise the test split, and
            the val split if no learning rate was chosen on it.
    """
    pipe = load_pipeline(model or run)
    held_out = held_out_clips(paths.judged, _splits(paths, suite))
    if not held_out:
        raise ValueError(f"{paths.judged}: no held-out sticker has {FRAMES} frames; prepare more stickers")
    held_out = [held_out[i] for i in np.random.default_rng(0).permutation(len(held_out))]
    clips, loops = [clip.frames for clip in held_out], [clip.loop for clip in held_out]
    captions, attributes = [clip.caption for clip in held_out], [clip.attributes for clip in held_out]
    judge = load_judge(paths.judge)
    count = min(suite.clips, len(clips))
    measures: dict[str, float] = {"clips": count}

    steps, first = suite.sampling_steps, 1000 * seed
    real, words = clips[:count], captions[:count]
    animated = make_clips(pipe, words, [clip[0] for clip in real], loops, steps=steps, seed=first)
    written = make_clips(
        pipe, words[: max(SHOWN, suite.clips // 2)], None, loops, steps=steps, seed=first, still_first=False
    )
    with atomic_file(run / "samples.npz") as file:
        np.savez_compressed(
            file,
            captions=np.array(words[:SHOWN]),
            real=np.stack(real[:SHOWN]),
            it2v=np.stack(animated[:SHOWN]),
            t2v=np.stack(written[:SHOWN]),
        )
    for name, made in (("it2v", animated), ("t2v", written)):
        measures |= {f"{name}.{key}": value for key, value in _judged(judge, clips, made, attributes).items()}
    measures["it2v.psnr"] = _frames(real, animated, np.arange(FRAMES) == 0)["psnr"]
    measures["it2v.motion"] = _energy(animated) / _energy(real)
    if "it2v.floor" in measures:
        measures["floor"] = measures.pop("it2v.floor")
        measures.pop("t2v.floor", None)
    measures["text_clips"] = len(written)

    few = clips[: max(1, suite.clips // 8)]
    measures["given_clips"] = len(few)
    fill = pipeline_fill(pipe, steps=steps, seed=first)
    for task, patterns in _GIVEN.items():
        scores, faded = [], []
        for pattern in patterns:
            known = PATTERNS[pattern].known(FRAMES)
            scores.append(_frames(few, [sample for (sample,) in fill(few, loops[: len(few)], known, 0)], known))
            crossfades = [simple_fills(c, known, loop)["crossfade"] for c, loop in zip(few, loops, strict=False)]
            faded.append(_frames(few, crossfades, known)["psnr"])
        measures |= {f"{task}.{key}": float(np.mean([score[key] for score in scores])) for key in scores[0]}
        measures[f"{task}.crossfade"] = float(np.mean(faded))
    measures |= _logged(run)
    measures["cost.forward_ms"] = _forward_ms(pipe)
    return measures


def _splits(paths: Paths, suite: Suite) -> tuple[str | None, ...]:
    """Splits for measuring. Their stickers are not used for training or for choosing learning rates."""
    if paths.judged != paths.target:
        return (None,)
    return ("test",) if suite.rates else ("val", "test")


def _logged(run: Path) -> dict[str, float]:
    """The last held-out loss, and the percentage of steps with each difficulty of the curriculum."""
    held_out, log = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
        for path in (run / HELD_OUT_LOG, run / "log.jsonl")
    )
    found = {f"difficulty.{i}": 100 * fmean(line["difficulty"] == i for line in log) for i in range(5)} if log else {}
    return found | ({"heldout.loss": held_out[-1]["loss"]} if held_out else {})


def _judged(
    judge: Judge, real: Sequence[np.ndarray], made: Sequence[np.ndarray], attributes: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    found: dict[str, float] = {}
    if len(made) >= FEWEST:
        features = judge.features(real), judge.features(made)
        if len(made) >= judge.fewest_clips:
            distance = fd_sticker(judge, *features)
            found |= {"fd": distance.frechet, "floor": distance.floor, "mmd": 1000 * distance.mmd.value}
        else:
            found["mmd"] = 1000 * unbiased_mmd(*features).value
    asked = attributes[: len(made)]
    if all("body" in each for each in asked):  # drawn stickers know what they show
        shares = agreement(judge, made, asked)
        found |= {name: 100 * shares[name].value for name in ("body", "colour", "action")}
    return found


def _frames(real: Sequence[np.ndarray], made: Sequence[np.ndarray], known: np.ndarray) -> dict[str, float]:
    """Measures of the unknown frames over white: means over clips. Raises if a given frame changed."""
    scores = []
    for truth, clip in zip(real, made, strict=True):
        check_given(clip, truth, known)
        scores.append(frame_scores(clip, truth, known))
    return {key: float(np.mean([score[f"{key}_white"] for score in scores])) for key in ("psnr", "ssim")}


def _energy(clips: Sequence[np.ndarray]) -> float:
    return float(np.mean([motion_energy(clip) for clip in clips]))


@torch.no_grad()
def _forward_ms(pipe: StickerPipeline, repeats: int = 15) -> float:
    """Median time of a pass of the network for one clip."""
    side = pipe.config.sample_size // pipe.codec.downscale
    clip = torch.zeros(1, pipe.codec.latent_channels, FRAMES, side, side, device=pipe.device)
    known = torch.arange(FRAMES, device=pipe.device)[None] == 0
    text = pipe.dfgn.text_context(*pipe.text_encoder(pipe.text_encoder.prepare(["a red cat"])))
    level, loop = torch.tensor([500.0], device=pipe.device), torch.zeros(1, dtype=torch.bool, device=pipe.device)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        pipe.dfgn(clip, level, clip, known, torch.ones_like(known), loop, text)
        if pipe.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))
