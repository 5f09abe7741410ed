"""Held-out measurement: frames that a model fills in, and stickers that it makes, beside what needs no model.

:func:`score_frames` and :func:`score_generation` take clips as arrays and anything that fills or makes them;
:func:`evaluate` does both for a saved model and a prepared dataset. docs/metrics.md says what each figure means.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from rdtf.data.dataset import StickerDataset, read_manifest
from rdtf.device import best_device
from rdtf.evaluate.clip_similarity import ClipScorer
from rdtf.evaluate.copying import clip_vectors, memorisation
from rdtf.evaluate.estimates import Estimate, interval, mean_estimate, resamples
from rdtf.evaluate.frames import WHITE, check_given, frame_scores, psnr
from rdtf.evaluate.fvd import FEATURES, PROTOCOL, I3d
from rdtf.evaluate.interpolation_baselines import distance_to_known, flow_fill, has_flow, simple_fills
from rdtf.evaluate.judge import Judge, fd_sticker, load_judge, text_agreement
from rdtf.evaluate.lpips import Lpips, load_lpips
from rdtf.evaluate.motion import is_frozen, loop_seam, motion_energy
from rdtf.evaluate.sets import frechet_distance, frechet_extrapolated, frechet_floor, unbiased_mmd
from rdtf.evaluate.video_quality import VideoQuality, load_quality
from rdtf.files import write_text
from rdtf.masks import PATTERNS
from rdtf.pipeline import StickerPipeline, load_pipeline
from rdtf.pixels import composite, premultiply, unpremultiply
from rdtf.progress import bars

FRAMES = 8
MARKS = {name: pattern.marks(FRAMES) for name, pattern in PATTERNS.items()}
"""The measured patterns of :mod:`rdtf.masks` for clips of :data:`FRAMES`; 1 = given."""
MIN_CLIPS = 5
MAX_TRAINING = 20_000
"""Training stickers that made ones are compared with, spread evenly over the split."""
TOGETHER = 16
"""Stickers generated at once."""

Fill = Callable[[Sequence[np.ndarray], Sequence[bool], np.ndarray, int], list[list[np.ndarray]]]
"""Fills unknown frames. It takes clips ``(n, h, w, 4)``, whether each of them loops, ``(n,)`` marks of the known frames
and the number of the first clip (for seeds). It returns one or more filled samples of each clip."""


@dataclass(frozen=True)
class HeldOutClip:
    """A clip of a sticker that training never saw.

    Attributes:
        frames: ``(8, h, w, 4)`` uint8.
        caption, attributes: of the sticker.
        loop: whether the last frame leads on to the first. The clip spans the whole sticker.
    """

    frames: np.ndarray
    caption: str
    attributes: Mapping[str, Any]
    loop: bool


@dataclass(frozen=True)
class TaskResult:
    """How well unknown frames were filled, mean over clips with intervals over clips.

    Attributes:
        pattern: 1 for given frames.
        clips: number of clips.
        methods: for ``model`` (single samples), ``mean of samples`` (what PSNR favours), ``crossfade``, ``nearest``
            and, where OpenCV is there, ``flow``: each measure of :mod:`rdtf.evaluate.frames`; one that is defined for
            fewer than 2 clips is left out.
        by_gap: PSNR over white by the distance to the nearest known frame.
        over_crossfade: the model's PSNR over white less the crossfade's, paired by clip.
    """

    pattern: str
    clips: int
    methods: dict[str, dict[str, Estimate]]
    by_gap: dict[str, dict[int, Estimate]]
    over_crossfade: Estimate


@dataclass(frozen=True)
class Evaluation:
    """Results, with the conditions they were measured under.

    Attributes:
        frames: by task.
        generation: by task (``text``, ``image and text``), what :func:`score_generation` says.
        left_out: what was not measured, and why.
        extractors: networks that looked, with hashes.
        versions: of Python and packages.
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

    def tables(self) -> list[Table]:
        """For the terminal."""
        methods = list(next(iter(self.frames.values())).methods)
        frames = Table("task", "given frames", "clips", *methods, "model less crossfade")
        frames.title = f"PSNR (dB, over white) of unknown frames; {', '.join(self.splits)}; {self.samples} samples"
        for name, task in self.frames.items():
            figures = [f"{task.methods[method]['psnr_white'].value:.2f}" for method in methods]
            frames.add_row(name, task.pattern, str(task.clips), *figures, f"{task.over_crossfade:.2f}")
        tables = [frames]
        if self.generation:
            made = Table("measure", *self.generation, title="Generation, 95 % intervals over clips")
            names = list(dict.fromkeys(name for result in self.generation.values() for name in result))
            for name in names:
                made.add_row(name, *(_shown(result.get(name, "")) for result in self.generation.values()))
            tables.append(made)
        return tables


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, Estimate | float) else str(value)


def evaluate(
    model: Path,
    data: Path,
    *,
    splits: Sequence[str] = ("val", "test"),
    steps: int | None = None,
    samples: int = 4,
    limit: int | None = None,
    seed: int = 0,
    clip: Path | None = None,
    lpips: Path | None = None,
    fvd: Path | None = None,
    judge: str | Path | None = None,
    quality: Path | None = None,
    out: Path | None = None,
) -> Evaluation:
    """Measure a model on stickers that were kept out of training.

    Each sticker with at least 8 frames gives one clip of 8 evenly spaced frames. To fill frames no caption is given;
    stickers are made, one each, for the captions of those that have one.

    Args:
        samples: samples a clip where frames are filled. Seeds count up from ``seed`` over clips and samples.
        limit: at most so many clips.
        clip, lpips, fvd: local weights, see :class:`ClipScorer`, :func:`load_lpips` and :class:`I3d`.
        judge: for FD-sticker and text agreement, see :func:`rdtf.evaluate.judge.load_judge`.
        quality: folder of DOVER and FAST-VQA, see :func:`~rdtf.evaluate.video_quality.load_quality`.
        out: JSON file to write.

    Raises:
        ValueError: fewer than 5 clips, too few for FVD, or stickers of another size than the model's.
    """
    pipe = load_pipeline(model)
    held_out = held_out_clips(data, splits)[:limit]
    clips, loops = [clip.frames for clip in held_out], [clip.loop for clip in held_out]
    captions, attributes = [clip.caption for clip in held_out], [clip.attributes for clip in held_out]
    if len(clips) < MIN_CLIPS:
        raise ValueError(f"{data}: {len(clips)} stickers of 8 or more frames in {', '.join(splits)}; need {MIN_CLIPS}")
    if clips[0].shape[1] != pipe.config.sample_size:
        raise ValueError(f"{data} is {clips[0].shape[1]} px, the model {pipe.config.sample_size} px; prepare it anew")
    named = [i for i, caption in enumerate(captions) if caption]
    if fvd is not None and len(named) <= FEATURES:
        raise ValueError(
            f"FVD needs more than {FEATURES} held-out clips with captions, {data} has {len(named)}; leave it out"
        )
    scorers, extractors = _networks(clip, fvd, judge, quality)
    perceptual = load_lpips(lpips) if lpips else None
    if lpips is not None:
        extractors["lpips"] = f"0.1 on AlexNet {_hash(sorted(lpips.glob('*.pth')))}"
    left_out = {} if has_flow() else {"flow": "optical flow needs OpenCV: pip install 'rdtf[metrics]'"}
    generation: dict[str, dict[str, Any]] = {}
    if judge is not None and len(named) < (needed := scorers["judge"].fewest_clips):
        left_out["FD-sticker"] = f"{len(named)} held-out clips have captions; {needed} are needed by this judge"
    if len(named) < MIN_CLIPS:
        left_out["generation"] = f"{len(named)} held-out stickers have captions and 8 frames; {MIN_CLIPS} are needed"
    with bars() as progress:
        total = len(MARKS) * len(clips) + 2 * len(named) * ("generation" not in left_out)
        task = progress.add_task("Evaluating", total=total, note="")

        def advance(count: int) -> None:
            progress.advance(task, count)

        fill = pipeline_fill(pipe, steps=steps, samples=samples, seed=seed)
        frames = score_frames(fill, clips, loops, lpips=perceptual, seed=seed, advance=advance)
        if "generation" not in left_out:
            real, words = [clips[i] for i in named], [captions[i] for i in named]
            looping = [loops[i] for i in named]
            training = _training_vectors(data) if len(real) >= 20 else None
            if training is None:
                left_out["memorisation"] = f"{len(real)} held-out clips; 20 are needed"
            for name, images in (("text", None), ("image and text", [clip[0] for clip in real])):
                made = make_clips(pipe, words, images, looping, steps=steps, seed=seed, advance=advance)
                asked = [attributes[i] for i in named]
                generation[name] = score_generation(
                    made,
                    real,
                    captions=words,
                    images=images,
                    training=training,
                    attributes=asked if all("body" in each for each in asked) else None,
                    seed=seed,
                    **scorers,
                )
                if judge is not None and not all("body" in each for each in asked):
                    left_out["text agreement"] = "not all of these stickers say what they show, as drawn ones do"
    result = Evaluation(
        str(model), str(data), read_manifest(data).fingerprint, tuple(splits), steps or pipe.config.steps, samples,
        seed, frames, generation, left_out, extractors, _versions(),
    )  # fmt: skip
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, json.dumps(asdict(result), indent=1))
    return result


def _networks(
    clip: Path | None, fvd: Path | None, judge: str | Path | None, quality: Path | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The networks that look at made stickers, as :func:`score_generation` takes them, and what each of them is."""
    scorers: dict[str, Any] = {}
    extractors = {}
    if clip is not None:
        scorers["clip"] = ClipScorer(clip, str(best_device()))
        extractors["clip"] = f"{clip.resolve().name} {_hash(sorted(clip.glob('*.safetensors')))}"
    if fvd is not None:
        scorers["i3d"] = I3d(fvd, str(best_device()))
        extractors["fvd"] = f"{PROTOCOL} {scorers['i3d'].sha256}"
    if judge is not None:
        scorers["judge"] = load_judge(judge)
        extractors["judge"] = f"{judge} {scorers['judge'].digest}"
    if quality is not None:
        scorers["quality"] = load_quality(quality)
        extractors |= {network.name: network.sha256 for network in scorers["quality"]}
    return scorers, extractors


def pipeline_fill(pipe: StickerPipeline, *, steps: int | None = None, samples: int = 1, seed: int = 0) -> Fill:
    """Fill with a pipeline, without captions, several clips at once."""

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
                seed=seed + (first + start) * samples,
            ).stickers
            filled += [[s.frames for s in drawn[i : i + samples]] for i in range(0, len(drawn), samples)]
        return filled

    return fill


def make_clips(
    pipe: StickerPipeline,
    captions: Sequence[str],
    images: Sequence[np.ndarray] | None = None,
    loops: Sequence[bool] | None = None,
    *,
    frames: int = FRAMES,
    steps: int | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> list[np.ndarray]:
    """Generate one clip for each caption. Seeds count up.

    Args:
        images: first frames, one for each caption.
        loops: whether each clip is to loop; none of them by default.
    """
    made: list[np.ndarray] = []
    for start in range(0, len(captions), TOGETHER):
        words = captions[start : start + TOGETHER]
        given = None if images is None else [{0: image} for image in images[start : start + TOGETHER]]
        drawn = pipe(
            words,
            frames=given,
            num_frames=frames,
            num_inference_steps=steps,
            loop=[False] * len(words) if loops is None else loops[start : start + len(words)],
            seed=seed + start,
        ).stickers
        made += [sticker.frames for sticker in drawn]
        advance(len(words))
    return made


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
    """Score whatever fills frames, on unknown frames only, beside crossfade, nearest frame and optical flow.

    Args:
        fill: gets whole clips and must use their known frames only.
        clips: ``(n, h, w, 4)`` uint8, as long as the patterns; 2 or more.
        loops: whether each clip loops; none of them by default. In a loop time is circular for all methods.
        seed: of the intervals.

    Raises:
        ValueError: fewer than 2 clips, or a given frame came back changed.
    """
    results = {}
    loops = [False] * len(clips) if loops is None else loops
    for name, pattern in patterns.items():
        known = np.array([mark == "1" for mark in pattern])
        rows: dict[str, list[dict[str, float]]] = {}
        gaps: dict[str, list[dict[int, float]]] = {}
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
            advance(len(part))
        over = [a["psnr_white"] - b["psnr_white"] for a, b in zip(rows["model"], rows["crossfade"], strict=True)]
        results[name] = TaskResult(
            pattern,
            len(clips),
            {method: _estimates(scores, seed) for method, scores in rows.items()},
            {method: _estimates(scores, seed) for method, scores in gaps.items()},
            mean_estimate(over, seed),
        )
    return results


def _frame_scores(made: np.ndarray, truth: np.ndarray, known: np.ndarray, lpips: Lpips | None) -> dict[str, float]:
    scores = frame_scores(made, truth, known)
    if lpips is not None:
        scores["lpips"] = float(lpips.of_frames(made[~known], truth[~known]).mean())
    return scores


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
        if np.isfinite(values).sum() >= 2:  # a fringe, for one, needs a soft edge
            found[key] = mean_estimate(values[np.isfinite(values)], seed)
    return found


def score_generation(
    made: Sequence[np.ndarray],
    real: Sequence[np.ndarray],
    *,
    captions: Sequence[str] | None = None,
    images: Sequence[np.ndarray] | None = None,
    training: np.ndarray | None = None,
    clip: ClipScorer | None = None,
    i3d: I3d | None = None,
    judge: Judge | None = None,
    attributes: Sequence[Mapping[str, Any]] | None = None,
    quality: Sequence[VideoQuality] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Score made stickers beside the real ones they were made for.

    Args:
        made, real: as many clips ``(n, h, w, 4)`` uint8 each, in the same order; ``n`` at least 2.
        captions: what each was made for; asked for by ``clip``.
        images: first frames that were given.
        training: vectors of training clips (:func:`~rdtf.evaluate.copying.clip_vectors`).
        judge: for FD-sticker, of too few clips its unbiased MMD alone, and with ``attributes``, what each clip is to
            show, for text agreement.
        quality: networks that rate each clip without the real one.

    Returns:
        By name an :class:`Estimate`, a float or a whole number. ``real ...`` beside a figure is the same of the real
        clips: its ceiling or its measure.

    Raises:
        ValueError: sets of unlike sizes, fewer than 2 clips, or too few for a measure that was asked for.
    """
    if len(made) != len(real):
        raise ValueError(f"{len(made)} made clips for {len(real)} real ones; there must be one for each")
    scores: dict[str, Any] = {"clips": len(made)}
    energy = {name: np.array([motion_energy(c) for c in clips]) for name, clips in (("made", made), ("real", real))}
    scores["motion energy"] = mean_estimate(energy["made"], seed)
    scores["real motion energy"] = mean_estimate(energy["real"], seed)
    if energy["real"].any():
        scores["motion energy, made / real"] = _ratio(energy["made"], energy["real"], seed)
    for prefix, clips in (("", made), ("real ", real)):
        scores[f"{prefix}frozen clips"] = mean_estimate([float(is_frozen(c)) for c in clips], seed)
        seams = np.array([loop_seam(c) for c in clips])
        if np.isfinite(seams).sum() >= 2:
            scores[f"{prefix}loop seam"] = mean_estimate(seams[np.isfinite(seams)], seed)
    if training is not None:
        found = memorisation(clip_vectors(made), clip_vectors(real), training, seed)
        scores["distance to training"] = found.made
        scores["real distance to training"] = found.held_out
        scores["uncommonly close to training"] = found.close
        scores["training clips"] = len(training)
    if clip is not None and captions is not None:
        for prefix, clips in (("", made), ("real ", real)):
            pairs = zip(captions, clips, strict=True)
            scores[f"{prefix}CLIP similarity"] = mean_estimate([clip.clipsim(c, f) for c, f in pairs], seed)
    if clip is not None and images is not None:
        for prefix, clips in (("", made), ("real ", real)):
            # Of the frames after the given one: that it is like itself says nothing.
            likeness = [clip.image_similarity(i, f[1:]) for i, f in zip(images, clips, strict=True)]
            scores[f"{prefix}image similarity"] = mean_estimate(likeness, seed)
    for network in quality:
        for prefix, clips in (("", made), ("real ", real)):
            rated = [network.scores(c, seed=seed + i) for i, c in enumerate(clips)]
            scores |= {f"{prefix}{name}": mean_estimate([s[name] for s in rated], seed) for name in rated[0]}
    if judge is not None:
        features = judge.features(real), judge.features(made)
        if len(made) < judge.fewest_clips:
            scores["FD-sticker (unbiased MMD)"] = unbiased_mmd(*features, seed=seed)
        else:
            distance = fd_sticker(judge, *features, seed)
            scores["FD-sticker (unbiased MMD)"] = distance.mmd
            scores["FD-sticker"] = distance.frechet
            scores[f"FD-sticker floor, {distance.floor_clips} against {distance.floor_clips} real"] = distance.floor
            scores["FD-sticker extrapolated"] = distance.frechet_inf
        if attributes is not None:
            for novelty, kinds in text_agreement(judge, made, real, attributes).items():
                for kind, shares in kinds.items():
                    prefix = "real " if kind == "real" else ""
                    among = f"{novelty.replace('_', '-')} combinations"
                    scores |= {f"{prefix}{name} as asked, {among}": share for name, share in shares.items()}
    if i3d is not None:
        a, b = i3d.features(real), i3d.features(made)
        scores["FVD"] = frechet_distance(a, b)
        scores["FVD (unbiased MMD)"] = unbiased_mmd(a, b, seed=seed)
        half = len(a) // 2
        if half > FEATURES:
            scores[f"FVD floor, {half} against {half} real"] = frechet_floor(a, half, seed)
        if len(a) >= 5 * (FEATURES + 1):
            scores["FVD extrapolated"] = frechet_extrapolated(a, b, seed)
    return scores


def _ratio(above: np.ndarray, below: np.ndarray, seed: int) -> Estimate:
    """Ratio of means, both sets drawn anew for the interval."""
    draws = [resamples(len(x), seed, f"ratio {i}") @ x / len(x) for i, x in enumerate((above, below))]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = draws[0] / draws[1]
    low, high = interval(ratios[np.isfinite(ratios)])
    return Estimate(float(above.mean() / below.mean()), low, high, min(len(above), len(below)))


def held_out_clips(data: Path, splits: Sequence[str | None]) -> list[HeldOutClip]:
    """Clips of 8 evenly spaced frames, one for each sticker that has as many.

    Args:
        splits: of the dataset, one after the other; None for all of it.
    """
    clips = []
    for split in splits:
        dataset = StickerDataset(data, split)
        for i in range(len(dataset)):
            record = dataset.record(i)
            if (count := record.num_frames) >= FRAMES:
                frames = dataset.frames(i)[np.arange(FRAMES) * count // FRAMES]
                clips.append(HeldOutClip(frames, record.caption, record.attributes, record.loops))
    return clips


def _training_vectors(data: Path) -> np.ndarray:
    training = StickerDataset(data, "train")
    count = min(len(training), MAX_TRAINING)
    return clip_vectors(training.frames(i * len(training) // count) for i in range(count))


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    packages = ("rdtf", "torch", "numpy", "diffusers", "scipy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
