"""Measures of a run. Samples use the run's seed, and all runs have the same judge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from rdtf.evaluate.evaluate import held_out_clips
from rdtf.evaluate.filling import FRAMES, pipeline_fill, score_frames
from rdtf.evaluate.frames import WHITE, check_given, motion_energy, psnr
from rdtf.evaluate.generation import make_clips
from rdtf.evaluate.judge import Judge, agreement, load_judge
from rdtf.evaluate.sets import frechet_distance, frechet_floor, unbiased_mmd
from rdtf.files import atomic_file
from rdtf.loading import load_pipeline
from rdtf.masks import PATTERNS
from rdtf.pixels import composite
from rdtf.research.compare.suites import Suite
from rdtf.train.heldout import HELD_OUT_LOG

SHOWN = 12  # inputs of the page
FEWEST = 20  # clips for a distance of sets
_GIVEN = {  # name of the measure: its patterns
    "interpolation": ("in-between", "in-between, wide"),
    "forward": ("extend forward",),
    "backward": ("extend backward",),
}


def measure(
    model: Path, run: Path, data: Path, splits: Sequence[str | None], suite: Suite, seed: int, judge_spec: str
) -> dict[str, float]:
    """Measures by name. Measures that the data do not allow (too few clips, no attributes) are missing.

    The samples of the page go into the run's ``samples.npz``.

    Args:
        model: folder of the model. run: folder of the run, with its logs.
        data, splits: a prepared dataset and the splits that give the clips.
    """
    pipe = load_pipeline(model)
    held_out = held_out_clips(data, splits)
    if len(held_out) < 2:
        raise ValueError(f"{data}: {len(held_out)} held-out stickers have {FRAMES} frames, 2 are needed; prepare more")
    held_out = [held_out[i] for i in np.random.default_rng(0).permutation(len(held_out))]
    clips, loops = [clip.frames for clip in held_out], [clip.loop for clip in held_out]
    captions, attributes = [clip.caption for clip in held_out], [clip.attributes for clip in held_out]
    judge = load_judge(judge_spec)
    count = min(suite.clips, len(clips))
    measures: dict[str, float] = {"clips": count}

    steps, first = suite.sampling_steps, 1000 * seed
    real, words = clips[:count], captions[:count]
    animated = make_clips(pipe, words, [clip[0] for clip in real], loops, num_inference_steps=steps, seed=first)
    half = words[: max(SHOWN, suite.clips // 2)]
    written = make_clips(pipe, half, None, loops, num_inference_steps=steps, seed=first, still_first=False)
    shown: dict[str, Any] = {
        "captions": np.array(words[:SHOWN]),
        "real": np.stack(real[:SHOWN]),
        "it2v": np.stack(animated[:SHOWN]),
    }
    with atomic_file(run / "samples.npz") as file:
        np.savez_compressed(file, **shown)
    for name, made in (("it2v", animated), ("t2v", written)):
        measures |= {f"{name}.{key}": value for key, value in _judged(judge, clips, made, attributes).items()}
    for truth, clip in zip(real, animated, strict=True):
        check_given(clip, truth, np.arange(FRAMES) == 0)
    pairs = [(composite(a[1:], WHITE), composite(b[1:], WHITE)) for a, b in zip(animated, real, strict=True)]
    measures["it2v.psnr"] = fmean(psnr(*pair) for pair in pairs)
    measures["it2v.motion"] = fmean(map(motion_energy, animated)) / fmean(map(motion_energy, real))
    if "it2v.floor" in measures:
        measures["floor"] = measures.pop("it2v.floor")
        measures.pop("t2v.floor", None)
    measures["text_clips"] = len(written)

    few = clips[: max(2, suite.clips // 8)]
    measures["given_clips"] = len(few)
    fill = pipeline_fill(pipe, steps=steps, seed=first)
    for task, patterns in _GIVEN.items():
        marks = {pattern: PATTERNS[pattern].marks(FRAMES) for pattern in patterns}
        results = [result.methods for result in score_frames(fill, few, loops[: len(few)], patterns=marks).values()]
        measures[f"{task}.psnr"] = fmean(methods["model"]["psnr_white"].value for methods in results)
        measures[f"{task}.ssim"] = fmean(methods["model"]["ssim_white"].value for methods in results)
        measures[f"{task}.crossfade"] = fmean(methods["crossfade"]["psnr_white"].value for methods in results)
    return measures | _logged(run)


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
        found["mmd"] = 1000 * unbiased_mmd(*features).value
        if len(made) >= judge.fewest_clips:
            found["fd"] = frechet_distance(*features)
            found["floor"] = frechet_floor(features[0], min(len(made), len(real) // 2), seed=0)
    asked = attributes[: len(made)]
    if all("body" in each for each in asked):  # drawn stickers know what they show
        shares = agreement(judge, made, asked)
        found |= {name: 100 * shares[name].value for name in ("body", "colour", "action")}
    return found
