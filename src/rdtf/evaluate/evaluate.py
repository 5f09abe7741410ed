"""Evaluation of a saved model on a prepared dataset: filled-in frames and generated stickers, beside baselines.

:func:`~rdtf.evaluate.filling.score_frames` and :func:`~rdtf.evaluate.generation.score_generation` take clips as arrays
and work with any method. docs/metrics.md explains each measure.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from rdtf.data.dataset import StickerDataset, StickerRecord, read_manifest
from rdtf.device import best_device
from rdtf.evaluate.copying import clip_vectors
from rdtf.evaluate.estimates import Estimate
from rdtf.evaluate.external import FEATURES, PROTOCOL, ClipScorer, I3d
from rdtf.evaluate.filling import FRAMES, MARKS, TaskResult, pipeline_fill, score_frames
from rdtf.evaluate.generation import make_clips, score_generation
from rdtf.evaluate.judge import load_judge
from rdtf.evaluate.namer import Namer, sticker_name
from rdtf.files import write_text
from rdtf.loading import load_pipeline
from rdtf.progress import bars

QUICK = 100.0
"""Milliseconds between the frames of the clips of the task :data:`QUICK_TASK`."""
QUICK_TASK = "in-between, 0.1 s"
MIN_CLIPS = 5
MAX_TRAINING = 20_000
"""Number of training stickers, evenly spaced over the split, that generated ones are compared with."""


@dataclass(frozen=True)
class HeldOutClip:
    """A clip ``(8, h, w, 4)`` uint8 of a sticker that training never saw, and facts of the sticker.

    Attributes:
        loop: whether the last frame leads on to the first. The clip spans the whole sticker.
    """

    frames: np.ndarray
    caption: str
    attributes: Mapping[str, Any]
    loop: bool
    id: str = ""


@dataclass(frozen=True)
class Evaluation:
    """Results and the conditions of the measurement.

    Attributes:
        frames: results of filling by task.
        generation: results of :func:`score_generation` by task (``text``, ``image and text``).
        left_out: measures that are missing, with the reasons.
        extractors: names and hashes of the networks of the measures.
        versions: versions of Python and packages.
        stickers: ids of the held-out stickers, in the order of ``by_clip`` of the tasks whose clips they all give.
    """

    model: str
    data: str
    fingerprint: str
    splits: tuple[str, ...]
    steps: int
    samples: int
    seed: int
    frames: dict[str, TaskResult]
    generation: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    extractors: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    stickers: list[str] = field(default_factory=list)

    def tables(self) -> list[Table]:
        """Tables for the terminal."""
        methods = list(next(iter(self.frames.values())).methods)
        frames = Table("task", "given frames", "clips", *methods, "model less crossfade")
        frames.title = f"PSNR (dB, over white) of unknown frames; {', '.join(self.splits)}; {self.samples} samples"
        looks = Table("task", "method", "cleanliness", "half-transparent", "motion", "flicker")
        looks.title = "How unknown frames look; ratios to the real clips"
        for name, task in self.frames.items():
            figures = [f"{task.methods[method]['psnr_white'].value:.2f}" for method in methods]
            frames.add_row(name, task.pattern, str(task.clips), *figures, f"{task.over_crossfade:.2f}")
            for method in ("model", "crossfade"):
                scores, ratios = task.methods[method], task.ratios[method]
                found = [scores.get("cleanliness"), ratios.get("half_transparent"), ratios.get("motion")]
                found.append(scores.get("flicker"))
                looks.add_row(name, method, *("-" if value is None else f"{value.value:.2f}" for value in found))
        if not self.generation:
            return [frames, looks]
        made = Table("measure", *self.generation, title="Generation, 95 % intervals over clips")
        for name in dict.fromkeys(name for result in self.generation.values() for name in result):
            values = [result.get(name, "") for result in self.generation.values()]
            made.add_row(name, *(f"{v:.3f}" if isinstance(v, Estimate | float) else str(v) for v in values))
        return [frames, looks, made]


def evaluate(
    model: Path | str,
    data: Path,
    *,
    splits: Sequence[str] = ("val", "test"),
    steps: int | None = None,
    samples: int = 8,
    limit: int | None = None,
    seed: int = 0,
    clip: Path | None = None,
    fvd: Path | None = None,
    judge: str | Path | None = None,
    namer: Path | None = None,
    out: Path | None = None,
) -> Evaluation:
    """Measure a model on stickers that were kept out of training.

    Each sticker with at least 8 frames gives one clip of 8 evenly spaced frames. Frames are filled without captions.
    One sticker is generated for each caption.

    Args:
        samples: number of samples of each clip with filled frames. Seeds count up from ``seed`` over clips and samples.
        limit: most clips.
        clip, fvd: local weights, see :class:`ClipScorer` and :class:`I3d`.
        judge: for FD-sticker and text agreement, see :func:`rdtf.evaluate.judge.load_judge`.
        namer: folder of a network that names stickers, see :mod:`rdtf.evaluate.namer`.
        out: JSON file to write.

    Raises:
        ValueError: fewer than 5 clips, too few for FVD, or stickers of another size than the model's.
    """
    pipe = load_pipeline(model)
    held_out = held_out_clips(data, splits)[:limit]
    clips, loops = [clip.frames for clip in held_out], [clip.loop for clip in held_out]
    if len(clips) < MIN_CLIPS:
        raise ValueError(f"{data}: {len(clips)} stickers of 8 or more frames in {', '.join(splits)}; need {MIN_CLIPS}")
    if clips[0].shape[1] != pipe.config.sample_size:
        raise ValueError(f"{data} is {clips[0].shape[1]} px, the model {pipe.config.sample_size} px; prepare it anew")
    quick = quick_clips(data, splits)[:limit]
    named = [clip for clip in held_out if clip.caption]
    if fvd is not None and len(named) <= FEATURES:
        raise ValueError(
            f"FVD needs more than {FEATURES} held-out clips with captions, {data} has {len(named)}; leave it out"
        )
    # The networks for score_generation, and their names with hashes.
    scorers: dict[str, Any] = {}
    extractors: dict[str, str] = {}
    left_out: dict[str, str] = {}
    if clip is not None:
        scorers["clip"] = ClipScorer(clip, str(best_device()))
        weights = hashlib.sha256()
        for file in sorted(clip.glob("*.safetensors")):
            weights.update(file.read_bytes())
        extractors["clip"] = f"{clip.resolve().name} {weights.hexdigest()}"
    if fvd is not None:
        scorers["i3d"] = I3d(fvd, str(best_device()))
        extractors["fvd"] = f"{PROTOCOL} {scorers['i3d'].sha256}"
    if judge is not None:
        scorers["judge"] = load_judge(judge)
        extractors["judge"] = f"{judge} {scorers['judge'].digest}"
        if len(named) < (needed := scorers["judge"].fewest_clips):
            left_out["FD-sticker"] = f"{len(named)} held-out clips have captions; {needed} are needed by this judge"
    if namer is not None:
        scorers["namer"] = Namer.load(Path(namer))
        extractors["namer"] = f"{namer} {scorers['namer'].digest}"
    if len(quick) < MIN_CLIPS:
        left_out[QUICK_TASK] = f"{len(quick)} stickers show 0.8 s in steps of 0.1 s or finer; {MIN_CLIPS} are needed"
        quick = []
    if len(named) < MIN_CLIPS:
        left_out["generation"] = f"{len(named)} held-out stickers have captions and 8 frames; {MIN_CLIPS} are needed"
        named = []
    generation: dict[str, dict[str, Any]] = {}
    with bars() as progress:
        task = progress.add_task("Evaluating", total=len(MARKS) * len(clips) + len(quick) + 2 * len(named), note="")

        def advance(count: int) -> None:
            progress.advance(task, count)

        fill = pipeline_fill(pipe, steps=steps, samples=samples, seed=seed)
        frames = score_frames(fill, clips, loops, seed=seed, advance=advance)
        if "flow" not in next(iter(frames.values())).methods:
            left_out["flow"] = "optical flow needs OpenCV: pip install 'rdtf[metrics]'"
        if quick:
            marks = {QUICK_TASK: MARKS["in-between"]}
            frames |= score_frames(fill, quick, patterns=marks, seed=seed, advance=advance)
        if named:
            real, words = [clip.frames for clip in named], [clip.caption for clip in named]
            looping, asked = [clip.loop for clip in named], [clip.attributes for clip in named]
            training = _training_vectors(data) if len(real) >= 20 else None
            if training is None:
                left_out["memorisation"] = f"{len(real)} held-out clips; 20 are needed"
            names = _names(scorers.get("namer"), named)
            if namer is not None and "" in names:
                left_out["naming"] = f"{names.count('')} of {len(names)} clips have names that the namer lacks"
            drawn = all("body" in each for each in asked)
            if judge is not None and not drawn:
                left_out["text agreement"] = "not all of these stickers say what they show, as drawn ones do"
            for name, images in (("text", None), ("image and text", [clip[0] for clip in real])):
                made = make_clips(pipe, words, images, looping, seed=seed, advance=advance, num_inference_steps=steps)
                generation[name] = score_generation(
                    made,
                    real,
                    captions=words,
                    training=training,
                    names=names,
                    attributes=asked if drawn else None,
                    seed=seed,
                    **scorers,
                )
    packages = ("rdtf", "torch", "numpy", "diffusers", "scipy")
    result = Evaluation(
        model=str(model),
        data=str(data),
        fingerprint=read_manifest(data).fingerprint,
        splits=tuple(splits),
        steps=steps or pipe.config.steps,
        samples=samples,
        seed=seed,
        frames=frames,
        generation=generation,
        left_out=left_out,
        extractors=extractors,
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        stickers=[clip.id for clip in held_out],
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, json.dumps(asdict(result), indent=1))
    return result


def _names(namer: Namer | None, clips: Sequence[HeldOutClip]) -> list[str]:
    """The name of each sticker that the namer knows; otherwise ``""``."""
    if namer is None:
        return [""] * len(clips)
    names = [sticker_name(clip.caption, clip.attributes, namer.config.name_by) for clip in clips]
    known = {*namer.config.names}
    return [name if name in known else "" for name in names]


def _stickers(data: Path, splits: Sequence[str | None]) -> Iterator[tuple[StickerRecord, StickerDataset, int]]:
    """The stickers of 8 and more frames: the record, its dataset and its number there."""
    for split in splits:
        dataset = StickerDataset(data, split)
        for i in range(len(dataset)):
            record = dataset.record(i)
            if record.num_frames >= FRAMES:
                yield record, dataset, i


def held_out_clips(data: Path, splits: Sequence[str | None]) -> list[HeldOutClip]:
    """Clips of 8 evenly spaced frames, one for each sticker with at least 8 frames.

    Args:
        splits: splits of the dataset in order; None stands for all stickers.
    """
    clips = []
    for record, dataset, i in _stickers(data, splits):
        frames = dataset.frames(i)[np.arange(FRAMES) * record.num_frames // FRAMES]
        clips.append(HeldOutClip(frames, record.caption, record.attributes, record.loops, record.id))
    return clips


def quick_clips(data: Path, splits: Sequence[str | None]) -> list[np.ndarray]:
    """Clips of 8 frames that are 0.1 s apart, from the start of each sticker with 0.8 s in steps of at most 0.1 s."""
    clips = []
    for record, dataset, i in _stickers(data, splits):
        durations = np.asarray(record.durations)
        if durations.max() <= QUICK and durations.sum() >= FRAMES * QUICK:
            starts = np.cumsum(durations) - durations
            shown = np.searchsorted(starts, np.arange(FRAMES) * QUICK + 1e-3, side="right") - 1
            clips.append(dataset.frames(i)[shown])
    return clips


def _training_vectors(data: Path) -> np.ndarray:
    training = StickerDataset(data, "train")
    count = min(len(training), MAX_TRAINING)
    return clip_vectors(training.frames(i * len(training) // count) for i in range(count))
