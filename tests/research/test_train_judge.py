from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmarks.train_judge as training
from benchmarks.train_judge import (
    HELD_OUT_SEED,
    LEARNED_DAMAGES,
    JudgeReport,
    JudgeTrainSettings,
    attribute_names,
    draw_lesson,
    drawn_clips,
    train_judge,
)
from rdtf.evaluate.judge import JudgeConfig, load_judge
from rdtf.world import RESERVED_SEED, STILL, draw_sticker

QUICK = {"steps": 3, "batch": 4, "stickers": 12, "held_out": 8, "threads": 1}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stickers of 16 px and a network of a few thousand parameters."""
    monkeypatch.setattr(training, "SIZES", (16,))
    small = partial(JudgeConfig, size=16, widths=(4, 8, 8), hidden=16)
    monkeypatch.setattr(training, "JudgeConfig", small)


def test_training_learns_writes_and_reports(tmp_path: Path):
    first, again, other = (
        train_judge(tmp_path / f"{i}", JudgeTrainSettings(**{**QUICK, "steps": 1}, seed=seed))
        for i, seed in enumerate((0, 0, 1))
    )
    assert first.digest == again.digest != other.digest
    report = train_judge(tmp_path / "out", JudgeTrainSettings(**{**QUICK, "steps": 30}))
    assert report.final_loss < first.final_loss
    assert (report.steps, report.stopped_early) == (30, False)
    assert set(report.accuracy) == {*attribute_names(), "all"}
    assert set(report.damage_error) == set(LEARNED_DAMAGES)
    assert JudgeReport.model_validate_json((tmp_path / "out/report.json").read_text()) == report

    judge = load_judge(tmp_path / "out")
    assert judge.digest == report.digest != first.digest
    # Features are normalised over whole stickers: these are of another world, and 8 only.
    features = judge.features(drawn_clips(8, training.STATISTICS_SEED)[0])
    assert features.mean(0) == pytest.approx(np.zeros(32), abs=0.05)


def test_lessons_say_what_is_true():
    settings = JudgeTrainSettings(batch=4)
    config = JudgeConfig(names=attribute_names(), damages=LEARNED_DAMAGES)
    stickers = [draw_sticker(RESERVED_SEED, i, size=16) for i in range(30)]
    lessons = [draw_lesson(settings, config, stickers, step) for step in range(24)]
    assert torch.equal(lessons[3].frames, draw_lesson(settings, config, stickers, 3).frames)
    assert len({length for lesson in lessons for length in lesson.lengths}) > 4
    still = config.names["action"].index(STILL)
    for lesson in lessons:
        lengths = torch.tensor(lesson.lengths)
        assert lesson.frames.shape == (sum(lesson.lengths), 4, 32, 32)
        assert lesson.frames.min() >= 0 and lesson.frames.max() <= 1
        assert lesson.levels.min() >= 0 and lesson.levels.max() <= 1
        assert (lesson.frames[:, :3] <= lesson.frames[:, 3:] + 1e-6).all()  # premultiplied
        assert ((lesson.labels["action"] == still) == (lengths == 1)).all()
        assert (lesson.levels[lengths == 1, 2:] == 0).all()  # nothing to shuffle or to freeze
        unreadable = (lesson.levels[:, 2:] > training.READABLE).any(1)
        assert ((lesson.labels["action"] < 0) == unreadable).all()
    levels = torch.cat([lesson.levels for lesson in lessons])
    assert 0.1 < (levels.sum(1) == 0).float().mean() < 0.5
    assert (levels > 0).any(0).all()


def test_worlds_of_the_judge_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seeds = []
    draw = training.draw_sticker

    def noted(seed: int, index: int, **options: int) -> object:
        seeds.append(seed)
        return draw(seed, index, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "draw_sticker", noted)
    train_judge(tmp_path, JudgeTrainSettings(**{**QUICK, "steps": 1}, seed=2**62 - 1))
    assert set(seeds) == {HELD_OUT_SEED - 1, HELD_OUT_SEED, training.STATISTICS_SEED}
    assert HELD_OUT_SEED - 2**62 == RESERVED_SEED
