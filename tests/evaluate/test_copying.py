"""Nearest training neighbours: brute force, copies, and held-out clips as the measure of near."""

from __future__ import annotations

import numpy as np
import pytest

from rdtf.evaluate import copying as memory
from rdtf.evaluate.copying import clip_vectors, memorisation, nearest_distances


def vectors(n: int, seed: int, d: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_neighbours_are_those_of_brute_force_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, references = vectors(9, 0), vectors(50, 1)
    away = np.sqrt(np.square(queries[:, None] - references).mean(-1))
    for chunk in (7, 512):
        monkeypatch.setattr(memory, "CHUNK", chunk)
        assert nearest_distances(queries, references) == pytest.approx(away.min(1), rel=1e-5)


def test_copies_are_found_and_fresh_clips_are_as_near_as_held_out_ones() -> None:
    training, held_out, fresh = vectors(200, 0), vectors(100, 1), vectors(200, 2)
    made, usual, close = memorisation(training[30:60] + 1e-3, held_out, training)
    assert close.value == 1 and made.high < usual.low
    made, usual, close = memorisation(fresh, held_out, training)
    assert close.value < 0.15
    assert made.value == pytest.approx(usual.value, rel=0.1)


def test_vectors_are_of_colour_as_it_shows_and_of_any_size_and_length() -> None:
    clip = np.zeros((8, 32, 32, 4), np.uint8)
    clip[:, 8:24, 8:24] = (200, 10, 30, 255)
    double = clip.repeat(2, 1).repeat(2, 2)[::2]
    hidden = clip.copy()
    hidden[clip[..., 3] == 0, :3] = 99
    found = clip_vectors([clip, double, hidden])
    assert found.shape == (3, 4096)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    assert found[0].max() == 1.0 and found[0].mean() == pytest.approx(0.25 * (200 + 10 + 30 + 255) / 4 / 255)


def test_too_few_held_out_clips() -> None:
    with pytest.raises(ValueError, match="20 are needed"):
        memorisation(vectors(5, 0), vectors(19, 1), vectors(5, 2))
