"""Distances of feature sets against closed forms, other constructions of the same, and their small-sample behaviour."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from rdtf.evaluate.estimates import Estimate, mean_estimate
from rdtf.evaluate.sets import (
    frechet_distance,
    frechet_floor,
    set_distances,
    unbiased_mmd,
)


def whitened(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Samples whose mean is exactly 0 and whose covariance (N - 1) is exactly the identity."""
    x = rng.normal(size=(n, d))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


def gaussians(n: int, d: int, shift: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, d)) + shift


def test_closed_form_where_the_covariances_commute() -> None:
    rng = np.random.default_rng(0)
    spread_a, spread_b, shift = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.25, 0.5]), np.array([1.0, 0.0, -2.0])
    a, b = whitened(rng, 40, 3) * spread_a, whitened(rng, 60, 3) * spread_b + shift
    expected = np.square(shift).sum() + np.square(spread_a - spread_b).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_the_trace_of_the_root_is_scipys() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)) for _ in range(2))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_a_set_is_at_no_distance_from_itself_and_a_turn_of_both_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    a, b = gaussians(30, 5, 0.5)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_a_feature_that_never_varies_is_no_trouble() -> None:
    a, b = gaussians(30, 3)
    a[:, 1], b[:, 1] = 2.0, 5.0
    assert np.isfinite(frechet_distance(a, b)) and frechet_distance(a, b) > 9


@pytest.mark.parametrize(("d", "n", "known"), [(16, 128, 1.3), (16, 512, 0.33)])
def test_the_plain_distance_of_equal_distributions_is_far_from_0_and_the_mmd_is_not(
    d: int, n: int, known: float
) -> None:
    a, b = gaussians(n, d)
    assert frechet_distance(a, b) == pytest.approx(known, rel=0.15)
    mmd = unbiased_mmd(a, b)
    assert mmd.low <= 0 <= mmd.high and mmd.n == n


def test_the_floor_is_what_two_real_sets_of_this_size_show() -> None:
    real, _ = gaussians(512, 16)
    assert frechet_floor(real, 128, 0) == pytest.approx(1.3, rel=0.15)
    with pytest.raises(ValueError, match="600 real ones, there are 512"):
        frechet_floor(real, 300, 0)


def test_the_mmd_is_the_sum_over_pairs() -> None:
    a, b = gaussians(7, 3, 0.3)
    b = b[:5]

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 3 + 1) ** 3)

    expected = np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    expected += np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    expected -= 2 * np.mean([k(x, y) for x in a for y in b])
    found = unbiased_mmd(a, b)
    assert found.value == pytest.approx(expected) and found.n == 5 and found.low < found.value < found.high


def test_the_mmd_has_no_bias_however_few_the_samples() -> None:
    """In one dimension and degree 1 the true value is (difference of means)^2; four samples each, many times."""
    values = [unbiased_mmd(*gaussians(4, 1, 1.0, seed), degree=1).value for seed in range(200)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - 1.0) < 3 * error < 0.5
    assert min(values) < 0  # the biased estimate cannot be


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_mmds_interval_holds_the_truth(shift: float) -> None:
    """In degree 2 the means' products have a closed form: the true value is (1 + shift^2)^2 - 1."""
    truth = (1 + shift**2) ** 2 - 1
    estimates = [unbiased_mmd(*gaussians(40, 4, shift, seed), degree=2, seed=seed) for seed in range(30)]
    assert sum(e.low <= truth <= e.high for e in estimates) >= 26


def test_too_few_samples_are_told_with_the_number_needed() -> None:
    a, b = gaussians(10, 10)
    with pytest.raises(ValueError, match="at least 11 in each"):
        frechet_distance(a, b)
    with pytest.raises(ValueError, match="at least 2 in each"):
        unbiased_mmd(a[:1], b)


def test_a_number_of_clips_gets_the_distances_that_it_allows() -> None:
    real, made = gaussians(120, 4, shift=1.0)
    found = set_distances("FD", real, made[:60], least=40)
    assert list(found) == ["FD (unbiased MMD)", "FD", "FD floor, 60 against 60 real"]
    assert found["FD"] == frechet_distance(real, made[:60]) and found["FD (unbiased MMD)"] == unbiased_mmd(
        real, made[:60]
    )
    assert 0 < found["FD floor, 60 against 60 real"] < 0.3 * found["FD"]
    assert list(set_distances("FD", real, made[:39], least=40)) == ["FD (unbiased MMD)"]
    assert list(set_distances("FD", real[:8], made[:8], least=2)) == ["FD (unbiased MMD)", "FD"]


def test_features_that_fit_not_are_refused() -> None:
    a, b = gaussians(10, 3)
    with pytest.raises(ValueError, match=r"\(10, 3\) and \(10, 2\)"):
        unbiased_mmd(a, b[:, :2])
    b[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(a, b)


def test_mean_with_its_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 100)
    found = mean_estimate(values)
    error = values.std(ddof=1) / 10
    assert found.value == pytest.approx(values.mean()) and found.n == 100
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)
    assert f"{Estimate(1.0, 0.5, 1.5, 3):.1f}" == "1.0 [0.5, 1.5]"


@pytest.mark.parametrize("values", [[1.0], [], [1.0, float("inf")]])
def test_a_mean_needs_values(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"2 clips|finite"):
        mean_estimate(values)
