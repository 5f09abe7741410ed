"""Distances of two sets of feature vectors: Fréchet distance and maximum mean discrepancy (MMD).

Both compare a set of generated clips with a set of real clips in the features of a network. They say nothing about a
single clip. Values are comparable only for one network, one preprocessing and one number of samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rdtf.evaluate.estimates import DRAWS, Estimate, interval, resamples
from rdtf.rng import numpy_rng


def set_distances(name: str, real: np.ndarray, made: np.ndarray, least: int, seed: int = 0) -> dict[str, Any]:
    """The distances of generated from real clips that their number allows, by name. 0 is best.

    Args:
        name: name of the Fréchet distance. real, made: features ``(n, d)`` and ``(m, d)``, one row for each clip.
        least: clips in each set for a Fréchet distance. With fewer there is only the unbiased MMD.
    """
    scores: dict[str, Any] = {f"{name} (unbiased MMD)": unbiased_mmd(real, made, seed=seed)}
    width = real.shape[1]
    if min(len(real), len(made)) >= max(least, width + 1):
        scores[name] = frechet_distance(real, made)
        half = min(len(made), len(real) // 2)
        if half > width:
            scores[f"{name} floor, {half} against {half} real"] = frechet_floor(real, half, seed)
    return scores


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet (2-Wasserstein) distance of Gaussians fitted to features ``(n, d)`` and ``(m, d)``; 0 or more.

    ``|mean_a - mean_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2))`` in float64, with covariances divided by
    ``N - 1``. The trace of the root equals the sum of the singular values of ``C_a^(1/2) C_b^(1/2)``. The two factors
    come from symmetric eigendecompositions, so the result has no complex part.

    The estimate is biased upwards by about ``k / N``, where k grows with the dimension and depends on the model
    (arXiv 1911.07023). State N, and see :func:`frechet_floor` and :func:`unbiased_mmd`.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or at most ``d`` samples, for which the
            covariance is singular.
    """
    a, b = _checked(a, b, a.shape[-1] + 1)
    roots = []  # R with R.T @ R = covariance
    for x in (a, b):
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(x, rowvar=False)))
        roots.append(np.sqrt(values.clip(0))[:, None] * vectors.T)  # rounding may make eigenvalues negative
    shift = a.mean(0) - b.mean(0)
    spread = sum(float(np.square(root).sum()) for root in roots)
    shared = float(np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum())
    return max(0.0, float(shift @ shift) + spread - 2 * shared)


def frechet_floor(real: np.ndarray, n: int, seed: int) -> float:
    """Mean of :func:`frechet_distance` over four draws of two disjoint sets of ``n`` real samples each.

    This is the least distance that ``n`` generated samples can be expected to have to ``n`` real samples.

    Raises:
        ValueError: ``real`` ``(m, d)`` has fewer than ``2 n`` samples, or ``n`` is not above ``d``.
    """
    if len(real) < 2 * n:
        raise ValueError(f"a floor for {n} samples needs {2 * n} real ones, there are {len(real)}")
    rng = numpy_rng(seed, 0, "frechet floor")
    orders = [rng.permutation(len(real)) for _ in range(4)]
    return float(np.mean([frechet_distance(real[order[:n]], real[order[n : 2 * n]]) for order in orders]))


def unbiased_mmd(a: np.ndarray, b: np.ndarray, degree: int = 3, seed: int = 0) -> Estimate:
    """Squared MMD of features ``(n, d)`` and ``(m, d)`` with the kernel ``(x.y / d + 1)^degree``.

    Degree 3 is the kernel of KID (arXiv 1801.01401). Pairs of a sample with itself are left out, so the mean of the
    estimate is the true value for any number of samples. It is below 0 by chance if the sets are alike. Lower is
    better. The interval is a bootstrap over the samples of both sets, without pairs of copies of one sample. It is too
    wide if the sets are alike.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or fewer than 2 samples.
    """
    a, b = _checked(a, b, 2)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / a.shape[1] + 1) ** degree

    total, counts = np.zeros(1 + DRAWS), []
    for x, name in ((a, "a"), (b, "b")):
        weights = np.concatenate([np.ones((1, len(x))), resamples(len(x), seed, f"mmd {name}")])
        counts.append(weights)
        within = kernel(x, x)
        np.fill_diagonal(within, 0.0)
        pairs = np.square(weights.sum(1)) - np.square(weights).sum(1)
        with np.errstate(invalid="ignore"):  # a resample that repeats a single sample has no pairs
            total += np.einsum("kn,kn->k", weights @ within, weights) / pairs
    total -= 2 * np.einsum("kn,kn->k", counts[0] @ kernel(a, b), counts[1]) / (len(a) * len(b))
    low, high = interval(total[1:][np.isfinite(total[1:])])
    return Estimate(float(total[0]), low, high, min(len(a), len(b)))


def _checked(a: np.ndarray, b: np.ndarray, needed: int) -> tuple[np.ndarray, np.ndarray]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features must be (n, d) and (m, d), got {a.shape} and {b.shape}")
    if (n := min(len(a), len(b))) < needed:
        raise ValueError(f"{n} samples of {a.shape[1]} features are too few; at least {needed} in each set are needed")
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("features must be finite")
    return a, b
