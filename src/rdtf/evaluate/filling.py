"""Scores of filled-in frames, of a model and of baselines without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np

from rdtf.evaluate.estimates import Estimate, finite_mean, mean_estimate, mean_ratio
from rdtf.evaluate.frames import check_given, frame_scores, half_transparent
from rdtf.masks import PATTERNS
from rdtf.pipeline import StickerPipeline
from rdtf.pixels import premultiply, unpremultiply

FRAMES = 8
MARKS = {name: pattern.marks(FRAMES) for name, pattern in PATTERNS.items()}
"""The measured patterns of :mod:`rdtf.masks` for clips of :data:`FRAMES`; 1 = given."""
HAS_OPENCV = find_spec("cv2") is not None
"""Whether OpenCV is installed, which :func:`flow_fill` needs."""
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
        over_crossfade: PSNR over white of the model minus that of the crossfade, paired by clip.
        by_clip: PSNR over white of the model for each clip.
    """

    pattern: str
    clips: int
    methods: dict[str, dict[str, Estimate]]
    over_crossfade: Estimate
    ratios: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    by_clip: list[float] = field(default_factory=list)


def simple_fills(clip: np.ndarray, known: np.ndarray, loop: bool = False) -> dict[str, np.ndarray]:
    """Filled clips by name: ``crossfade`` of the known frames by distance, and ``nearest`` known frame.

    Args:
        clip: ``(n, h, w, 4)`` uint8, straight alpha; unknown frames are not used.
        known: ``(n,)`` bool, at least one True.
        loop: whether time is circular.
    """
    n, positions = len(known), np.flatnonzero(known)
    # Row i has the weights of all frames in the cross-fade at frame i.
    period = n if loop else None
    blend = np.zeros((n, n))
    for position, weights in zip(positions, np.eye(len(positions)), strict=True):
        blend[:, position] = np.interp(np.arange(n), positions, weights, period=period)
    nearest = np.eye(n)[blend.argmax(1)]
    flat = premultiply(clip).reshape(n, -1).astype(np.float64)
    return {
        name: unpremultiply(np.rint(weights @ flat).astype(np.uint8).reshape(clip.shape))
        for name, weights in (("crossfade", blend), ("nearest", nearest))
    }


def flow_fill(clip: np.ndarray, known: np.ndarray, loop: bool = False) -> np.ndarray:
    """Interpolation by optical flow: both known neighbours are warped to the frame's time and blended.

    OpenCV's dense inverse search (DIS, arXiv 1603.03590) finds the flows ``F_ab`` and ``F_ba`` between the known
    neighbours ``a`` and ``b``, in half premultiplied luminance and half alpha. At the time ``t`` in 0..1 between them::

        (1 - t) a[x - t F_ab(x)] + t b[x - (1 - t) F_ba(x)]

    in premultiplied RGBA, transparent outside. A frame with a known one on one side only repeats the nearest.

    Args:
        clip: ``(n, h, w, 4)`` uint8, straight alpha, at least 16 px. known, loop: see :func:`simple_fills`.

    Raises:
        ModuleNotFoundError: OpenCV is not installed.
    """
    cv2 = import_module("cv2")
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    filled = simple_fills(clip, known, loop)["nearest"]
    n, positions = len(clip), np.flatnonzero(known).tolist()
    rows, columns = np.indices(clip.shape[1:3], np.float32)
    pixels = np.stack([columns, rows], -1)

    def warped(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
        return cv2.remap(frame.astype(np.float32), pixels + flow, None, cv2.INTER_LINEAR)

    for first, last in pairwise([*positions, positions[0] + n] if loop else positions):
        a, b = premultiply(clip[[first, last % n]])
        grey = [np.rint(frame @ [0.1495, 0.2935, 0.057, 0.5]).astype(np.uint8) for frame in (a, b)]
        forth, back = search.calc(*grey, None), search.calc(*grey[::-1], None)
        for frame in range(first + 1, last):
            t = (frame - first) / (last - first)
            mixed = np.rint((1 - t) * warped(a, -t * forth) + t * warped(b, (t - 1) * back)).astype(np.uint8)
            filled[frame % n] = unpremultiply(np.minimum(mixed, mixed[..., 3:]))
    return filled


def generate(
    pipe: StickerPipeline,
    captions: Sequence[str],
    given: Sequence[Mapping[int, np.ndarray]] | None,
    loops: Sequence[bool],
    *,
    frames: int = FRAMES,
    samples: int = 1,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
    **options: Any,
) -> list[list[np.ndarray]]:
    """Generate samples for captions and given frames, some stickers at once. Seeds count up over all samples.

    Args:
        given: the given frames of each clip by their positions. options: further arguments of the pipeline.
    """
    made: list[list[np.ndarray]] = []
    together = max(1, TOGETHER // samples)
    for start in range(0, len(captions), together):
        words = list(captions[start : start + together])
        drawn = pipe(
            words,
            frames=None if given is None else list(given[start : start + together]),
            num_frames=frames,
            num_stickers_per_prompt=samples,
            loop=list(loops[start : start + len(words)]),
            batch_size=TOGETHER,
            seed=seed + start * samples,
            **options,
        ).stickers
        made += [[sticker.frames for sticker in drawn[i : i + samples]] for i in range(0, len(drawn), samples)]
        advance(len(words))
    return made


def pipeline_fill(pipe: StickerPipeline, *, steps: int | None = None, samples: int = 1, seed: int = 0) -> Fill:
    """A fill function of a pipeline. It works without captions, on several clips at once."""

    def fill(
        clips: Sequence[np.ndarray], loops: Sequence[bool], known: np.ndarray, first: int
    ) -> list[list[np.ndarray]]:
        given = [{int(i): clip[i] for i in np.flatnonzero(known)} for clip in clips]
        return generate(
            pipe,
            [""] * len(clips),
            given,
            loops,
            frames=len(known),
            samples=samples,
            seed=seed + first * samples,
            num_inference_steps=steps,
        )

    return fill


def score_frames(
    fill: Fill,
    clips: Sequence[np.ndarray],
    loops: Sequence[bool] | None = None,
    *,
    patterns: Mapping[str, str] = MARKS,
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
        amounts: dict[str, list[dict[str, float]]] = {}
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
                mean = np.mean([premultiply(sample) for sample in samples], axis=0)
                methods = {
                    "model": samples,
                    "mean of samples": [unpremultiply(np.rint(mean).astype(np.uint8))],
                    **{fill_name: [filled] for fill_name, filled in simple_fills(clip, known, loop).items()},
                    **({"flow": [flow_fill(clip, known, loop)]} if HAS_OPENCV else {}),
                }
                for method, made in methods.items():
                    scored = [frame_scores(one, clip, known) for one in made]
                    rows.setdefault(method, []).append(_mean_scores(scored))
                    amounts.setdefault(method, []).append(_mean_scores([_amounts(one, known) for one in made]))
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
            mean_estimate(over, seed),
            {method: _ratios(ours, real, seed) for method, ours in amounts.items()},
            [scores["psnr_white"] for scores in rows["model"]],
        )
    return results


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
        above, below = (np.array([amount[name] for amount in clips]) for clips in (ours, real))
        if below.any():
            found[name] = mean_ratio(above, below, seed)
    return found


def _mean_scores(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([s[key] for s in scores])) for key in scores[0]}


def _estimates(scores: Sequence[dict[str, float]], seed: int) -> dict[str, Estimate]:
    found = {key: finite_mean([s[key] for s in scores], seed) for key in scores[0]}
    return {key: estimate for key, estimate in found.items() if estimate is not None}
