"""Scores of filled-in frames, of a model and of baselines without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rdtf.evaluate.estimates import Estimate, mean_estimate, mean_ratio
from rdtf.evaluate.frames import WHITE, check_given, frame_scores, half_transparent, psnr
from rdtf.evaluate.interpolation_baselines import distance_to_known, flow_fill, has_flow, simple_fills
from rdtf.evaluate.lpips import Lpips
from rdtf.masks import PATTERNS
from rdtf.pipeline import StickerPipeline
from rdtf.pixels import composite, premultiply, unpremultiply

FRAMES = 8
MARKS = {name: pattern.marks(FRAMES) for name, pattern in PATTERNS.items()}
"""The measured patterns of :mod:`rdtf.masks` for clips of :data:`FRAMES`; 1 = given."""
TOGETHER = 16
"""Stickers in a batch."""

Fill = Callable[[Sequence[np.ndarray], Sequence[bool], np.ndarray, int], list[list[np.ndarray]]]
"""A function that fills unknown frames. Arguments: clips ``(n, h, w, 4)``, whether each clip loops, the known frames
``(n,)`` bool, and the number of the first clip (for seeds). It returns one or more filled samples of each clip."""


@dataclass(frozen=True)
class TaskResult:
    """Scores of filled-in frames for one task: means over clips with intervals over clips.

    Attributes:
        pattern: the mask as text, 1 = given.
        clips: number of clips.
        methods: the measures of :mod:`rdtf.evaluate.frames` by method: ``model`` (single samples), ``best of samples``
            (by PSNR over white), ``mean of samples`` (which PSNR favours), ``crossfade``, ``nearest`` and, with OpenCV,
            ``flow``. A measure is missing if fewer than 2 clips define it.
        ratios: by method, filled frames relative to true frames: number of half-transparent pixels
            (``half_transparent``) and mean difference of neighbouring frames (``motion``). Ratios of means over clips.
        by_gap: PSNR over white by the distance to the nearest known frame.
        over_crossfade: PSNR over white of the model minus that of the crossfade, paired by clip.
        by_clip: PSNR over white of the model for each clip.
    """

    pattern: str
    clips: int
    methods: dict[str, dict[str, Estimate]]
    by_gap: dict[str, dict[int, Estimate]]
    over_crossfade: Estimate
    ratios: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    by_clip: list[float] = field(default_factory=list)


def pipeline_fill(pipe: StickerPipeline, *, steps: int | None = None, samples: int = 1, seed: int = 0) -> Fill:
    """A fill function of a pipeline. It works without captions, on several clips at once."""

    def fill(
        clips: Sequence[np.ndarray], loops: Sequence[bool], known: np.ndarray, first: int
    ) -> list[list[np.ndarray]]:
        filled: list[list[np.ndarray]] = []
        together = max(1, TOGETHER // samples)
        for start in range(0, len(clips), together):
            given = [{int(i): clip[i] for i in np.flatnonzero(known)} for clip in clips[start : start + together]]
            drawn = pipe(
                [""] * len(given),
                frames=given,
                num_frames=len(known),
                num_inference_steps=steps,
                num_stickers_per_prompt=samples,
                loop=loops[start : start + together],
                batch_size=TOGETHER,
                seed=seed + (first + start) * samples,
            ).stickers
            filled += [[s.frames for s in drawn[i : i + samples]] for i in range(0, len(drawn), samples)]
        return filled

    return fill


def score_frames(
    fill: Fill,
    clips: Sequence[np.ndarray],
    loops: Sequence[bool] | None = None,
    *,
    patterns: Mapping[str, str] = MARKS,
    lpips: Lpips | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, TaskResult]:
    """Score the unknown frames of a fill function, and of crossfade, nearest frame and optical flow.

    Args:
        fill: gets whole clips and must use only their known frames.
        clips: 2 or more clips ``(n, h, w, 4)`` uint8 of the patterns' length.
        loops: whether each clip loops; by default none. Time is circular in a loop, for all methods.
        seed: seed of the intervals.

    Raises:
        ValueError: fewer than 2 clips, or a changed given frame.
    """
    results = {}
    loops = [False] * len(clips) if loops is None else loops
    for name, pattern in patterns.items():
        known = np.array([mark == "1" for mark in pattern])
        rows: dict[str, list[dict[str, float]]] = {}
        gaps: dict[str, list[dict[int, float]]] = {}
        looks: dict[str, list[dict[str, float]]] = {}
        real: list[dict[str, float]] = []
        for start in range(0, len(clips), TOGETHER):
            part = clips[start : start + TOGETHER]
            looping = loops[start : start + TOGETHER]
            filled_part = fill(part, looping, known, start)
            for number, (clip, loop, samples) in enumerate(zip(part, looping, filled_part, strict=True), start):
                for sample in samples:
                    try:
                        check_given(sample, clip, known)
                    except ValueError as error:
                        raise ValueError(f"{name}, clip {number}: {error}") from error
                mean = np.mean([premultiply(sample).astype(np.float64) for sample in samples], axis=0)
                methods = {
                    "model": samples,
                    "mean of samples": [unpremultiply(np.rint(mean).astype(np.uint8))],
                    **{fill_name: [filled] for fill_name, filled in simple_fills(clip, known, loop).items()},
                    **({"flow": [flow_fill(clip, known, loop)]} if has_flow() else {}),
                }
                for method, made in methods.items():
                    scored = [_frame_scores(one, clip, known, lpips) for one in made]
                    rows.setdefault(method, []).append(_mean_scores(scored))
                    gaps.setdefault(method, []).append(_mean_scores([_by_gap(one, clip, known, loop) for one in made]))
                    looks.setdefault(method, []).append(_mean_scores([_amounts(one, known) for one in made]))
                    if method == "model":
                        best = max(scored, key=lambda scores: scores["psnr_white"])
                        rows.setdefault("best of samples", []).append(best)
                real.append(_amounts(clip, known))
            advance(len(part))
        over = [a["psnr_white"] - b["psnr_white"] for a, b in zip(rows["model"], rows["crossfade"], strict=True)]
        results[name] = TaskResult(
            pattern,
            len(clips),
            {method: _estimates(scores, seed) for method, scores in rows.items()},
            {method: _estimates(scores, seed) for method, scores in gaps.items()},
            mean_estimate(over, seed),
            {method: _ratios(amounts, real, seed) for method, amounts in looks.items()},
            [scores["psnr_white"] for scores in rows["model"]],
        )
    return results


def _frame_scores(made: np.ndarray, truth: np.ndarray, known: np.ndarray, lpips: Lpips | None) -> dict[str, float]:
    scores = frame_scores(made, truth, known)
    if lpips is not None:
        scores["lpips"] = float(lpips.of_frames(made[~known], truth[~known]).mean())
    return scores


def _amounts(clip: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """Half-transparent pixels of the unknown frames, and motion of the steps from or to an unknown frame."""
    unknown = ~known
    steps = np.abs(np.diff(premultiply(clip).astype(np.float64), axis=0)).mean((1, 2, 3))
    return {
        "half_transparent": half_transparent(clip[unknown]),
        "motion": float(steps[unknown[1:] | unknown[:-1]].mean()),
    }


def _ratios(ours: Sequence[dict[str, float]], real: Sequence[dict[str, float]], seed: int) -> dict[str, Estimate]:
    found = {}
    for name in real[0]:
        above, below = (np.array([amounts[name] for amounts in clips]) for clips in (ours, real))
        if below.any():
            found[name] = mean_ratio(above, below, seed)
    return found


def _by_gap(made: np.ndarray, truth: np.ndarray, known: np.ndarray, loop: bool) -> dict[int, float]:
    away = distance_to_known(known, loop)
    return {
        int(gap): psnr(composite(made[away == gap], WHITE), composite(truth[away == gap], WHITE))
        for gap in np.unique(away[away > 0])
    }


def _mean_scores(scores: Sequence[dict[Any, float]]) -> dict[Any, float]:
    return {key: float(np.mean([s[key] for s in scores])) for key in scores[0]}


def _estimates(scores: Sequence[dict[Any, float]], seed: int) -> dict[Any, Estimate]:
    found = {}
    for key in dict.fromkeys(key for s in scores for key in s):
        values = np.array([s[key] for s in scores if key in s])
        if np.isfinite(values).sum() >= 2:  # a clip without soft edges has no fringe
            found[key] = mean_estimate(values[np.isfinite(values)], seed)
    return found
