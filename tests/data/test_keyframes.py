"""Clustering of frames, picks from the clusters, loops, motion, coverage."""

from __future__ import annotations

import numpy as np
import pytest

from rdtf.data.keyframes import (
    CLUSTER_COUNTS,
    EXTRACTIONS,
    Extraction,
    cluster_frames,
    coverage,
    extract_frames,
    frame_features,
    frame_steps,
    loops,
    motion,
    seam,
)


def _moving_square(positions: list[int], size: int = 24) -> np.ndarray:
    frames = np.zeros((len(positions), size, size, 4), np.uint8)
    for frame, x in zip(frames, positions, strict=True):
        frame[8:14, x : x + 6] = (200, 40, 90, 255)
    return frames


def _first_appearances(labels: np.ndarray) -> list[int]:
    return list(dict.fromkeys(labels.tolist()))


@pytest.mark.parametrize("count", [1, 2, 7, 20, 40])
def test_labels_are_whole_and_in_order_of_appearance(count: int) -> None:
    features = np.random.default_rng(count).normal(size=(count, 30)).astype(np.float32)
    clusters = cluster_frames(features)
    assert clusters.shape == (6, count) and clusters.dtype == np.int8
    for k, labels in zip(CLUSTER_COUNTS, clusters, strict=True):
        assert _first_appearances(labels) == list(range(min(k, count)))
    np.testing.assert_array_equal(clusters, cluster_frames(features))


def test_clusters_are_the_poses() -> None:
    positions = [0, 0, 1, 1, 9, 10, 9, 17, 18, 18, 0, 1]
    labels = cluster_frames(frame_features(_moving_square(positions)))[0]
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0]


def test_equal_frames_share_a_cluster() -> None:
    features = frame_features(_moving_square([0, 0, 0, 9, 9, 9, 0, 9, 0]))
    assert cluster_frames(features)[2].tolist() == [0, 0, 0, 1, 1, 1, 0, 1, 0]
    assert cluster_frames(features[:4])[-1].tolist() == [0, 0, 0, 1]
    assert not cluster_frames(np.zeros((10, 4), np.float32)).any()
    repeated = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)[[*range(12), 3, 3, 7, 0, 11, 3]]
    for labels in cluster_frames(repeated):
        assert labels[12:].tolist() == labels[[3, 3, 7, 0, 11, 3]].tolist()


def test_no_cluster_stays_empty_where_k_means_leaves_one() -> None:
    # Many equal frames beside few different ones, and points on a line that differ by hardly more than rounding.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        features = np.zeros((30, 2), np.float32)
        features[25:] = rng.normal(size=(5, 2)) * 1e-3
        line = np.float32(1) + rng.permutation(12).astype(np.float32)[:, None] * np.float32(1.2e-7)
        for k, few, close in zip(CLUSTER_COUNTS, cluster_frames(features), cluster_frames(line), strict=True):
            assert len(set(few.tolist())) == min(k, 6)
            assert len(set(close.tolist())) == k


def test_no_frame_is_nearer_to_another_cluster_than_to_its_own() -> None:
    """What k-means ends in, worked out from the features themselves."""
    for seed in range(5):
        features = np.random.default_rng(seed).normal(size=(30, 3)).astype(np.float32)
        for labels in cluster_frames(features):
            means = np.stack([features[labels == label].mean(0) for label in range(labels.max() + 1)])
            nearest = ((features[:, None] - means) ** 2).sum(2).argmin(1)
            assert (nearest == labels).mean() >= 0.9  # all, but where the number of steps ended it


def test_features_see_shape_and_colour_but_not_what_is_transparent() -> None:
    frames = _moving_square([4, 4])
    frames[1, 0, 0] = (255, 255, 255, 0)
    same = frame_features(frames)
    np.testing.assert_array_equal(same[0], same[1])
    frames[1, 8:14, 4:10, 0] = 0
    recoloured = frame_features(frames)
    assert np.abs(recoloured[0] - recoloured[1]).max() > 0.1


@pytest.mark.parametrize("size", [8, 16, 37, 64])
def test_features_average_areas_exactly(size: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, size, size, 4), np.uint8)
    alpha = frame_features(frames).reshape(2, 5, 16, 16)[:, 3]
    np.testing.assert_allclose(alpha.mean((1, 2)), coverage(frames), rtol=1e-5)


LABELS = np.array([0, 0, 1, 0, 2, 2, 1, 0, 0])


@pytest.mark.parametrize("how", EXTRACTIONS)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
def test_extracted_frames_are_different_and_in_time_order(how: Extraction, count: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, 4)).astype(np.float32)
    for k, labels in zip(CLUSTER_COUNTS, cluster_frames(features), strict=True):
        frames = extract_frames(how, k, labels, rng)
        assert len(frames) == min(k, count)
        assert frames[0] >= 0 and frames[-1] < count and (np.diff(frames) > 0).all()


def test_extraction_by_hand() -> None:
    def frames(how: Extraction, k: int = 3) -> list[int]:
        return extract_frames(how, k, LABELS, np.random.default_rng(0)).tolist()

    assert frames("cluster-first") == [0, 2, 4]
    assert frames("equal-interval") == [0, 3, 6]
    assert frames("equal-interval", 4) == [0, 2, 4, 6]


def test_only_random_picks_draw_and_they_reach_every_frame() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    for how in EXTRACTIONS[1:]:
        extract_frames(how, 3, LABELS, rng)
    assert rng.bit_generator.state == before
    picks = [extract_frames("cluster-random", 3, LABELS, rng) for _ in range(200)]
    assert all(sorted(LABELS[frames].tolist()) == [0, 1, 2] for frames in picks)
    assert {int(i) for frames in picks for i in frames} == set(range(9))


def test_other_extractions_are_refused(unchecked: None) -> None:
    with pytest.raises(ValueError, match="cluster-first"):
        extract_frames("medoid", 3, LABELS, np.random.default_rng(0))  # type: ignore[arg-type]


def test_loops() -> None:
    assert loops(frame_steps(_moving_square([0, 3, 6, 9, 6, 3])))
    assert not loops(frame_steps(_moving_square([0, 2, 4, 6, 8, 10, 12, 14])))
    assert not loops(frame_steps(_moving_square([4, 4, 4])))
    assert not loops(frame_steps(_moving_square([4])))
    assert seam(frame_steps(_moving_square([0, 1, 2, 3]))) == pytest.approx(3)
    assert seam(frame_steps(_moving_square([0, 1, 0]))) == 0
    assert seam(frame_steps(_moving_square([4, 4, 4]))) is None


def test_motion_and_coverage_by_hand() -> None:
    frames = np.zeros((3, 8, 8, 4), np.uint8)
    frames[1:, :4] = 255
    np.testing.assert_allclose(coverage(frames), [0, 0.5, 0.5])
    assert motion(frame_steps(frames)) == pytest.approx((0.5 + 0) / 2)
    assert motion(frame_steps(frames[:1])) == 0
    frames[0, 4:, :, :3] = 255  # colour under alpha 0
    assert motion(frame_steps(frames)) == pytest.approx(0.25)
