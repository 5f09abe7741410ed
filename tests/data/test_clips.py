from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rdtf.data.augment import FIRST_AUGMENTED, MIRRORED, PLAIN
from rdtf.data.clips import plan_clip, whole_clip
from rdtf.data.dataset import StickerRecord
from rdtf.data.keyframes import CLUSTER_COUNTS, Extraction


def record(frames: int, **changes) -> StickerRecord:
    """A sticker whose clusters cut its frames into equal stretches."""
    clusters = tuple(tuple(min(i * k // frames, k - 1) for i in range(frames)) for k in CLUSTER_COUNTS)
    plain = StickerRecord(
        id="0" * 16,
        caption="a cat",
        captions=("a cat",),
        attributes={},
        source="cat.webp",
        license=None,
        split="train",
        num_frames=frames,
        size=16,
        durations=(100.0,) * frames,
        coverage=(0.5,) * frames,
        motion=0.1,
        loops=frames > 1,
        flippable=True,
        clusters=clusters,
    )
    return replace(plain, **changes)


def plans(sticker: StickerRecord, max_frames: int = 8, times: int = 300, **kwargs):
    rng = np.random.default_rng(0)
    kwargs = {"cluster_fraction": 0.5, **kwargs}
    return [plan_clip(sticker, max_frames, rng, **kwargs) for _ in range(times)]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("max_frames", [1, 2, 3, 8, 16])
@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 20, 40])
def test_clips_are_frames_of_the_sticker_in_order(frames: int, max_frames: int, share: float):
    for plan in plans(record(frames), max_frames, 40, cluster_fraction=share):
        assert 1 <= len(plan.frames) <= min(frames, max_frames)
        assert len(set(plan.frames)) == len(plan.frames)
        assert all(0 <= i < frames for i in plan.frames)
        turned = np.roll(plan.frames, -int(np.argmin(plan.frames)))
        assert (np.diff(turned) > 0).all()  # in time order, but for where a loop was cut open
        assert plan.loop or tuple(turned) == plan.frames


@pytest.mark.parametrize("frames", [8, 9, 40])
def test_without_shorter_clips_every_clip_is_full(frames: int):
    for plan in plans(record(frames), 8, 60, cluster_fraction=0.0, shorter=False):
        assert len(plan.frames) == 8


def test_clusters_give_one_frame_each_and_every_count():
    seen = {len(plan.frames) for plan in plans(record(40), 8, cluster_fraction=1.0)}
    assert seen == set(CLUSTER_COUNTS)
    assert {len(plan.frames) for plan in plans(record(40), 5, cluster_fraction=1.0)} == {3, 4, 5}
    for plan in plans(record(40), 8, cluster_fraction=1.0):
        k = len(plan.frames)
        assert sorted(i * k // 40 for i in plan.frames) == list(range(k))


def test_no_clustering_of_more_clusters_than_frames_is_used():
    """Merged clusters would break the rhythm; with too few frames for any clustering, clips are spaced evenly."""
    for most in (3, 5):
        for plan in plans(record(40, loops=False), most, cluster_fraction=1.0):
            k = len(plan.frames)
            assert sorted(i * k // 40 for i in plan.frames) == list(range(k))
    for plan in plans(record(40, loops=False), 2, cluster_fraction=1.0):
        assert len(plan.frames) == 2


def test_informative_frames_are_chosen_as_asked_for():
    def seen(extraction: Extraction) -> dict[int, set[tuple[int, ...]]]:
        found = plans(record(41, loops=False), cluster_fraction=1.0, extraction=extraction)
        return {k: {plan.frames for plan in found if len(plan.frames) == k} for k in CLUSTER_COUNTS}

    for k, frames in seen("cluster-first").items():
        assert frames == {tuple(-(-i * 41 // k) for i in range(k))}
    for k, frames in seen("equal-interval").items():
        assert frames == {tuple(i * 41 // k for i in range(k))}
    assert len(seen("cluster-random")[3]) > 20


def test_a_single_frame_is_any_frame_and_no_loop():
    drawn = plans(record(12), 1)
    assert all(len(plan.frames) == 1 and not plan.loop for plan in drawn)
    assert {plan.frames[0] for plan in drawn} == set(range(12))


def test_whole_clips_are_evenly_spaced_from_a_frame_on():
    assert whole_clip(record(20), 8, 3).frames == tuple((3 + i * 20 // 8) % 20 for i in range(8))
    assert whole_clip(record(5), 8, 0).frames == (0, 1, 2, 3, 4)
    straight = whole_clip(record(20, loops=False), 8, 3)
    assert straight.frames == tuple(i * 20 // 8 for i in range(8)) and not straight.loop
    assert whole_clip(record(20), 8, 3).loop and whole_clip(record(20), 8, 3).variant == PLAIN


def test_the_same_sticker_gives_many_clips():
    assert len({plan.frames for plan in plans(record(20))}) > 100


def test_even_clips_keep_the_rhythm():
    lengths = set()
    for plan in plans(record(24, loops=False), cluster_fraction=0.0):
        steps = np.diff(plan.frames)
        assert steps.max() - steps.min() <= 1
        lengths.add(len(plan.frames))
    assert lengths == set(range(3, 9))


def test_only_whole_looping_stickers_become_circular():
    assert not any(plan.loop for plan in plans(record(12, loops=False)))
    assert not any(plan.loop for plan in plans(record(1)))
    looping = [plan for plan in plans(record(12), cluster_fraction=0.0) if plan.loop]
    whole = [plan for plan in plans(record(12), cluster_fraction=1.0)]
    assert sum(plan.loop for plan in whole) / len(whole) == pytest.approx(0.9, abs=0.06)
    assert 20 < len(looping) < 280
    for plan in looping:
        steps = np.diff([*sorted(plan.frames), min(plan.frames) + 12])
        assert steps.max() - steps.min() <= 1  # even round the seam, so a part of the sticker cannot pass for a loop
    assert len({plan.frames[0] for plan in looping}) > 5  # cut open anywhere


@pytest.mark.parametrize("frames", [1, 9])
def test_variants(frames: int):
    free, bound = record(frames), record(frames, flippable=False)
    copies = {FIRST_AUGMENTED, FIRST_AUGMENTED + 1}
    assert {plan.variant for plan in plans(free)} == {PLAIN, MIRRORED}
    assert {plan.variant for plan in plans(free, num_augmented=2)} == {PLAIN, MIRRORED, *copies}
    assert {plan.variant for plan in plans(bound)} == {PLAIN}
    assert {plan.variant for plan in plans(bound, num_augmented=2)} == {PLAIN, *copies}


def test_a_plan_is_a_function_of_its_generator():
    a, b = (plan_clip(record(30), 8, np.random.default_rng(4), cluster_fraction=0.5) for _ in range(2))
    assert a == b
