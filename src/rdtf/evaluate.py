"""Held-out measurement of the frame-exact tasks, always beside what needs no model at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from rdtf.data.dataset import StickerDataset
from rdtf.metrics.fills import simple_fills
from rdtf.metrics.frames import psnr
from rdtf.pipeline import load_pipeline
from rdtf.pixels import composite
from rdtf.progress import bars

WHITE = (255, 255, 255)
PATTERNS = {
    "in-between": "10101010",
    "in-between, wide": "10010010",
    "extend forward": "11111000",
    "extend backward": "00011111",
    "from one image": "10000000",
}
MIN_CLIPS = 5


@dataclass(frozen=True)
class TaskResult:
    """PSNR in dB of the unknown frames over white, mean over clips, and the standard error of the mean.

    Attributes:
        model: of single samples. model_mean: of the mean of ``samples`` samples (what PSNR favours).
        crossfade, nearest: of the known frames' cross-fade, and of repeating the nearest known frame.
        margin: standard error of the model's difference to the crossfade.
    """

    pattern: str
    clips: int
    model: float
    model_mean: float
    crossfade: float
    nearest: float
    margin: float


@dataclass(frozen=True)
class Evaluation:
    """Results by task, with the conditions they were measured under."""

    model: str
    data: str
    fingerprint: str
    splits: tuple[str, ...]
    steps: int
    samples: int
    seed: int
    tasks: dict[str, TaskResult]

    def table(self) -> Table:
        """For the terminal."""
        table = Table("task", "given frames", "clips", "model", "mean of samples", "crossfade", "nearest")
        table.title = f"PSNR (dB, over white) of unknown frames; {', '.join(self.splits)}; {self.samples} samples"
        for name, r in self.tasks.items():
            figures = [f"{value:.2f}" for value in (r.model, r.model_mean, r.crossfade, r.nearest)]
            table.add_row(name, r.pattern, str(r.clips), *figures)
        return table


def evaluate(
    model: Path,
    data: Path,
    *,
    splits: Sequence[str] = ("val", "test"),
    steps: int | None = None,
    samples: int = 4,
    limit: int | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> Evaluation:
    """Measure in-betweening and extension on stickers that were kept out of training.

    Each sticker with at least 8 frames gives one clip of 8 evenly spaced frames; no caption is given.

    Args:
        samples: samples a clip, with seeds ``seed``, ``seed + 1``, ...
        limit: at most so many clips.
        out: JSON file to write.

    Raises:
        ValueError: fewer than 5 clips, or stickers of another size than the model's.
    """
    pipe = load_pipeline(model)
    clips, fingerprint = _clips(data, splits)
    clips = clips[:limit]
    if len(clips) < MIN_CLIPS:
        raise ValueError(f"{data}: {len(clips)} stickers of 8 or more frames in {', '.join(splits)}; need {MIN_CLIPS}")
    if clips[0].shape[1] != pipe.config.sample_size:
        raise ValueError(f"{data} is {clips[0].shape[1]} px, the model {pipe.config.sample_size} px; prepare it anew")
    results = {}
    with bars() as progress:
        task = progress.add_task("Evaluating", total=len(PATTERNS) * len(clips), note="")
        for name, pattern in PATTERNS.items():
            known = np.array([mark == "1" for mark in pattern])
            scores = []
            for clip in clips:
                given = {int(i): clip[i] for i in np.flatnonzero(known)}
                drawn = pipe(
                    [""] * samples, frames=given, num_frames=len(known), num_inference_steps=steps, seed=seed
                ).stickers
                scores.append(_scores(clip, known, [sticker.frames for sticker in drawn]))
                progress.advance(task)
            results[name] = _summary(pattern, scores)
    result = Evaluation(
        str(model), str(data), fingerprint, tuple(splits), steps or pipe.config.steps, samples, seed, results
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    return result


def _clips(data: Path, splits: Sequence[str]) -> tuple[list[np.ndarray], str]:
    clips, fingerprint = [], ""
    for split in splits:
        dataset = StickerDataset(data, split)
        fingerprint = dataset.fingerprint
        for i in range(len(dataset)):
            count = dataset.record(i).num_frames
            if count >= 8:
                clips.append(dataset.frames(i)[np.arange(8) * count // 8])
    return clips, fingerprint


def _scores(clip: np.ndarray, known: np.ndarray, samples: Sequence[np.ndarray]) -> dict[str, float]:
    def unknown(frames: np.ndarray) -> np.ndarray:
        return composite(frames[~known], WHITE)

    truth = unknown(clip)
    fills = simple_fills(clip, known)
    drawn = [unknown(sample) for sample in samples]
    mean = np.rint(np.mean(drawn, axis=0)).astype(np.uint8)
    return {
        "model": float(np.mean([psnr(picture, truth) for picture in drawn])),
        "model_mean": psnr(mean, truth),
        "crossfade": psnr(unknown(fills["crossfade"]), truth),
        "nearest": psnr(unknown(fills["nearest"]), truth),
    }


def _summary(pattern: str, scores: list[dict[str, float]]) -> TaskResult:
    mean = {key: float(np.mean([s[key] for s in scores])) for key in scores[0]}
    difference = [s["model"] - s["crossfade"] for s in scores]
    margin = float(np.std(difference, ddof=1) / np.sqrt(len(scores)))
    return TaskResult(pattern, len(scores), margin=margin, **mean)
