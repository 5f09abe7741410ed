"""Clustering of frames, picks from the clusters, loops, motion, coverage."""

from __future__ import annotations

import numpy as np
import pytest

from rdtf.data.keyframes import (
    CLUSTER_COUNTS,
    cluster_frames,
    coverage,
    frame_features,
    frame_steps,
    loops,
    motion,
    pick_frames,
    seam,
)


def _moving_square(positions: list[int], size: int = 24) -> np.ndarray:
    frames = np.zeros((len(positions), size, size, 4), np.uint8)
    for frame, x in zip(frames, positions, strict=True):
        frame[8:14, x : x + 6] = (200, 40, 90, 255)
    return frames


def _first_appearances(labels: np.ndarray) -> list[int]:
    return list(dict.fromkeys(labels.tolist()))


@pytest.mark.parametrize("k", CLUSTER_COUNTS)
@pytest.mark.parametrize("count", [1, 2, 7, 20, 40])
def test_labels_are_whole_and_in_order_of_appearance(k: int, count: int) -> None:
    features = np.random.default_rng(count).normal(size=(count, 30)).astype(np.float32)
    labels = cluster_frames(features, k)
    assert labels.shape == (count,) and labels.dtype == np.int8
    assert _first_appearances(labels) == list(range(min(k, count)))
    np.testing.assert_array_equal(labels, cluster_frames(features, k))


def test_clusters_are_the_poses() -> None:
    positions = [0, 0, 1, 1, 9, 10, 9, 17, 18, 18, 0, 1]
    labels = cluster_frames(frame_features(_moving_square(positions)), 3)
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0]


def test_equal_frames_share_a_cluster() -> None:
    features = frame_features(_moving_square([0, 0, 0, 9, 9, 9, 0, 9, 0]))
    assert cluster_frames(features, 5).tolist() == [0, 0, 0, 1, 1, 1, 0, 1, 0]
    assert not cluster_frames(np.zeros((10, 4), np.float32), 3).any()


def test_no_cluster_stays_empty_where_k_means_leaves_one() -> None:
    # Many equal frames beside few different ones: k-means alone often ends with an empty cluster here.
    for seed in range(20):
        features = np.zeros((30, 2), np.float32)
        features[25:] = np.random.default_rng(seed).normal(size=(5, 2)) * 1e-3
        for k in CLUSTER_COUNTS:
            assert len(set(cluster_frames(features, k, seed).tolist())) == min(k, 6)


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


@pytest.mark.parametrize("how", ["first", "random"])
def test_picks_are_one_a_cluster_in_time_order(how: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 1, 0, 2, 2, 1, 3, 0])
    for _ in range(50):
        picks = pick_frames(labels, rng, how)  # type: ignore[arg-type]
        assert (np.diff(picks) > 0).all()
        assert sorted(labels[picks].tolist()) == [0, 1, 2, 3]


def test_first_is_first_and_random_reaches_every_frame() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 1, 0, 2, 2])
    assert pick_frames(labels, rng).tolist() == [0, 2, 4]
    reached = {int(i) for _ in range(200) for i in pick_frames(labels, rng, "random")}
    assert reached == set(range(6))


def test_other_picks_are_refused(unchecked: None) -> None:
    rng, labels = np.random.default_rng(0), np.array([0, 1])
    with pytest.raises(ValueError, match="medoid"):
        pick_frames(labels, rng, "medoid")  # type: ignore[arg-type]


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
