"""The judge that is shipped: what it must see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.train_judge import HELD_OUT_SEED, attribute_names, damaged, drawn_clips
from rdtf.evaluate.judge import agreement, load_judge
from rdtf.evaluate.sets import frechet_distance, unbiased_mmd

SHIPPED = Path(__file__).parents[2] / "src" / "rdtf" / "assets" / "judge"


def test_the_shipped_judge_is_small_and_the_one_of_its_report():
    report = json.loads((SHIPPED / "report.json").read_text(encoding="utf-8"))
    judge = load_judge()
    assert judge.digest == report["digest"]
    assert judge.config.names == attribute_names()
    assert judge.config.features <= 64
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 1.5e6


@pytest.fixture(scope="module")
def halves() -> tuple[list[np.ndarray], list[np.ndarray], list[dict]]:
    """Drawn clips that no judge was trained on: a reference, and others with their attributes."""
    clips, attributes = drawn_clips(240, HELD_OUT_SEED + 9, size=32)
    return clips[:120], clips[120:], attributes[120:]


@pytest.mark.parametrize("kind", ["blur", "noise", "shuffle", "freeze"])
def test_fd_sticker_rises_with_damage(kind: str, halves: tuple):
    judge = load_judge()
    reference, probe, _ = halves
    real = judge.features(reference)
    sets = [judge.features(damaged(probe, kind, level)) for level in (0.0, 0.5, 1.0)]
    for values in ([frechet_distance(real, made) for made in sets], [unbiased_mmd(real, made).value for made in sets]):
        assert values[0] < values[1] < values[2]


def test_dropped_bodies_and_wrong_captions_are_seen(halves: tuple):
    judge = load_judge()
    reference, probe, attributes = halves
    real, made = judge.features(reference), judge.features(probe)
    bodies = attribute_names()["body"]
    values = []
    for kept in (16, 8, 4):
        places = [i for i, a in enumerate(attributes) if a["body"] in bodies[:kept]]
        values.append(unbiased_mmd(real, made[places]).value)
    assert values[0] < values[1] < values[2]
    right = agreement(judge, probe, attributes)["body"].value
    wrong = agreement(judge, probe, [*attributes[60:], *attributes[:60]])["body"].value
    assert right > 2 * wrong
