"""Scores of generated stickers beside the real stickers with the same captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rdtf.evaluate.clip_similarity import ClipScorer
from rdtf.evaluate.copying import clip_vectors, memorisation
from rdtf.evaluate.estimates import mean_estimate, mean_ratio
from rdtf.evaluate.filling import FRAMES, TOGETHER
from rdtf.evaluate.fvd import FEATURES, I3d
from rdtf.evaluate.judge import Judge, fd_sticker, text_agreement
from rdtf.evaluate.motion import is_frozen, loop_seam, motion_energy
from rdtf.evaluate.namer import Namer, naming
from rdtf.evaluate.sets import frechet_distance, frechet_extrapolated, frechet_floor, unbiased_mmd
from rdtf.evaluate.video_quality import VideoQuality
from rdtf.pipeline import StickerPipeline


def make_clips(
    pipe: StickerPipeline,
    captions: Sequence[str],
    images: Sequence[np.ndarray] | None = None,
    loops: Sequence[bool] | None = None,
    *,
    frames: int = FRAMES,
    steps: int | None = None,
    seed: int = 0,
    still_first: bool | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> list[np.ndarray]:
    """Generate one clip for each caption. Seeds count up.

    Args:
        images: first frames, one for each caption.
        loops: whether each clip should loop; by default none.
        still_first: see :class:`rdtf.pipeline.StickerPipeline`; by default the model's.
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
            still_first=still_first,
            batch_size=TOGETHER,
        ).stickers
        made += [sticker.frames for sticker in drawn]
        advance(len(words))
    return made


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
    namer: Namer | None = None,
    names: Sequence[str] | None = None,
    attributes: Sequence[Mapping[str, Any]] | None = None,
    quality: Sequence[VideoQuality] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Score generated stickers beside real ones.

    Args:
        made, real: equally many clips ``(n, h, w, 4)`` uint8 in the same order; ``n`` at least 2.
        captions: the captions of the clips, for ``clip``.
        images: given first frames.
        training: vectors of training clips (:func:`~rdtf.evaluate.copying.clip_vectors`).
        judge: network for FD-sticker; with few clips only its unbiased MMD is measured. With ``attributes`` (what each
            clip should show) also for text agreement.
        namer: network for the fraction of clips that it names as in ``names``. Clips with the name "" do not count.
        quality: networks that rate each clip without the real one.

    Returns:
        the scores by name: estimates, floats or integers. ``real ...`` is the same measure of the real clips.

    Raises:
        ValueError: sets of different sizes, fewer than 2 clips, or too few clips for a measure.
    """
    if len(made) != len(real):
        raise ValueError(f"{len(made)} made clips for {len(real)} real ones; there must be one for each")
    scores: dict[str, Any] = {"clips": len(made)}
    energy = {name: np.array([motion_energy(c) for c in clips]) for name, clips in (("made", made), ("real", real))}
    scores["motion energy"] = mean_estimate(energy["made"], seed)
    scores["real motion energy"] = mean_estimate(energy["real"], seed)
    if energy["real"].any():
        scores["motion energy, made / real"] = mean_ratio(energy["made"], energy["real"], seed)
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
            # Without the given frame, which is equal to the image.
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
    if namer is not None and names is not None and sum(map(bool, names)) >= 2:
        for prefix, clips in (("", made), ("real ", real)):
            named_clips = [(clip, name) for clip, name in zip(clips, names, strict=True) if name]
            rates = naming(namer, [clip for clip, _ in named_clips], [name for _, name in named_clips], seed)
            scores |= {f"{prefix}{measure}": value for measure, value in rates.items()}
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
