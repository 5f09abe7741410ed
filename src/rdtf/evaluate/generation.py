"""Scores of generated stickers beside the real stickers with the same captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rdtf.evaluate.copying import clip_vectors, memorisation
from rdtf.evaluate.estimates import finite_mean, mean_ratio
from rdtf.evaluate.external import FEATURES, ClipScorer, I3d
from rdtf.evaluate.filling import generate
from rdtf.evaluate.frames import is_frozen, loop_seam, motion_energy
from rdtf.evaluate.judge import Judge, agreement
from rdtf.evaluate.namer import Namer, naming
from rdtf.evaluate.sets import set_distances
from rdtf.pipeline import StickerPipeline
from rdtf.world import is_held_out


def make_clips(
    pipe: StickerPipeline,
    captions: Sequence[str],
    images: Sequence[np.ndarray] | None,
    loops: Sequence[bool],
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
    **options: Any,
) -> list[np.ndarray]:
    """Generate one clip for each caption. Seeds count up.

    Args:
        images: first frames, one for each caption. loops: whether each clip should loop.
        options: further arguments of the pipeline.
    """
    given = None if images is None else [{0: image} for image in images]
    return [clip for (clip,) in generate(pipe, captions, given, loops, seed=seed, advance=advance, **options)]


def score_generation(
    made: Sequence[np.ndarray],
    real: Sequence[np.ndarray],
    *,
    captions: Sequence[str] | None = None,
    training: np.ndarray | None = None,
    clip: ClipScorer | None = None,
    i3d: I3d | None = None,
    judge: Judge | None = None,
    namer: Namer | None = None,
    names: Sequence[str] | None = None,
    attributes: Sequence[Mapping[str, Any]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score generated stickers beside real ones.

    Args:
        made, real: equally many clips ``(n, h, w, 4)`` uint8 in the same order; ``n`` at least 2.
        captions: the captions of the clips, for ``clip``.
        training: vectors of training clips (:func:`~rdtf.evaluate.copying.clip_vectors`).
        judge: network for FD-sticker; with few clips only its unbiased MMD is measured. With ``attributes`` (what each
            clip should show) also for text agreement, apart for combinations that training saw and held-out ones.
        namer: network for the fraction of clips that it names as in ``names``. Clips with the name "" do not count.

    Returns:
        the scores by name: estimates, floats or integers. ``real ...`` is the same measure of the real clips.

    Raises:
        ValueError: sets of different sizes.
    """
    if len(made) != len(real):
        raise ValueError(f"{len(made)} made clips for {len(real)} real ones; there must be one for each")
    scores: dict[str, Any] = {"clips": len(made)}
    both = (("", made), ("real ", real))

    def mean_of(name: str, values: Callable[[Sequence[np.ndarray]], Sequence[float]]) -> None:
        for prefix, clips in both:
            if (estimate := finite_mean(values(clips), seed)) is not None:
                scores[prefix + name] = estimate

    mean_of("motion energy", lambda clips: [motion_energy(c) for c in clips])
    ours, theirs = (np.array([motion_energy(c) for c in clips]) for clips in (made, real))
    if theirs.any():
        scores["motion energy, made / real"] = mean_ratio(ours, theirs, seed)
    mean_of("frozen clips", lambda clips: [is_frozen(c) for c in clips])
    mean_of("loop seam", lambda clips: [loop_seam(c) for c in clips])
    if training is not None:
        away, usual, close = memorisation(clip_vectors(made), clip_vectors(real), training, seed)
        scores |= {"distance to training": away, "real distance to training": usual}
        scores |= {"uncommonly close to training": close, "training clips": len(training)}
    if clip is not None and captions is not None:
        mean_of("CLIP similarity", lambda clips: [clip.clipsim(*pair) for pair in zip(captions, clips, strict=True)])
    if judge is not None:
        scores |= set_distances("FD-sticker", judge.features(real), judge.features(made), judge.fewest_clips, seed)
    if judge is not None and attributes is not None:
        novel = np.array([is_held_out(asked) for asked in attributes])
        for kind, where in (("seen", np.flatnonzero(~novel).tolist()), ("held-out", np.flatnonzero(novel).tolist())):
            for prefix, clips in both if where else ():
                shares = agreement(judge, [clips[i] for i in where], [attributes[i] for i in where])
                scores |= {f"{prefix}{name} as asked, {kind} combinations": share for name, share in shares.items()}
    if namer is not None and names is not None and sum(map(bool, names)) >= 2:
        for prefix, clips in both:
            named_clips = [(clip, name) for clip, name in zip(clips, names, strict=True) if name]
            rates = naming(namer, [clip for clip, _ in named_clips], [name for _, name in named_clips], seed)
            scores |= {f"{prefix}{measure}": value for measure, value in rates.items()}
    if i3d is not None:
        scores |= set_distances("FVD", i3d.features(real), i3d.features(made), FEATURES + 1, seed)
    return scores
