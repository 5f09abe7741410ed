"""Training clips of a sticker: its frames in order, and whether time is circular.

A sticker gives many clips. Some have informative frames, for example one of each feature cluster, with a random number
of frames (the paper's extraction). Others have evenly spaced frames of the whole sticker or a part, which keep the
rhythm of the motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rdtf.data.augment import FIRST_AUGMENTED, MIRRORED, PLAIN
from rdtf.data.dataset import StickerRecord
from rdtf.data.keyframes import CLUSTER_COUNTS, Extraction, extract_frames

_LOOP_FRACTION = 0.9  # fraction of whole looping clips that are marked as loops; the others may be continued


@dataclass(frozen=True)
class ClipPlan:
    """The frames of a clip.

    Attributes:
        frames: indices in playing order.
        loop: whether the last frame leads back to the first.
        variant: 0 as it is, 1 mirrored, from 2 on an augmented variant (:mod:`rdtf.data.augment`).
    """

    frames: tuple[int, ...]
    loop: bool
    variant: int


def plan_clip(
    record: StickerRecord,
    max_frames: int,
    rng: np.random.Generator,
    *,
    cluster_fraction: float,
    num_augmented: int = 0,
    shorter: bool = True,
    extraction: Extraction = "cluster-random",
) -> ClipPlan:
    """Draw a clip of at most ``max_frames`` frames.

    Args:
        num_augmented: number of augmented variants to choose from. The sticker and its mirror image (if its caption
            allows that) are chosen from too.
        cluster_fraction: probability of informative frames; otherwise evenly spaced ones of the whole or a part.
        extraction: how the informative frames are chosen, see :func:`~rdtf.data.keyframes.extract_frames`.
        shorter: whether evenly spaced frames may be fewer than there could be.
    """
    total = record.num_frames
    variants = [
        PLAIN,
        *([MIRRORED] if record.flippable else []),
        *range(FIRST_AUGMENTED, FIRST_AUGMENTED + num_augmented),
    ]
    variant = variants[rng.integers(len(variants))]
    if total == 1 or max_frames == 1:
        return ClipPlan((int(rng.integers(total)),), False, variant)
    whole = True
    if max_frames >= CLUSTER_COUNTS[0] and rng.random() < cluster_fraction:
        k = int(rng.choice([k for k in CLUSTER_COUNTS if k <= max_frames]))
        labels = np.asarray(record.clusters[CLUSTER_COUNTS.index(k)])
        frames = extract_frames(extraction, k, labels, rng)
    else:
        most = min(total, max_frames)
        count = int(rng.integers(min(3, most), most + 1)) if shorter else most
        span = total
        if rng.random() < 0.5:
            span = int(rng.integers(count, total + 1))
            whole = span == total
        start = int(rng.integers(0, total - span + 1))
        frames = start + np.arange(count) * span // count
    loop = whole and record.loops and bool(rng.random() < _LOOP_FRACTION)
    if loop:
        frames = np.roll(frames, int(rng.integers(len(frames))))
    return ClipPlan(tuple(int(i) for i in frames), loop, variant)


def whole_clip(record: StickerRecord, max_frames: int, first: int) -> ClipPlan:
    """The whole sticker in as many evenly spaced frames as possible, at most ``max_frames``.

    Args:
        first: frame that a looping sticker begins with; others begin with their own first frame.
    """
    count, total = min(record.num_frames, max_frames), record.num_frames
    frames = np.arange(count) * total // count
    if record.loops:
        frames = (frames + first) % total
    return ClipPlan(tuple(int(i) for i in frames), record.loops, PLAIN)
