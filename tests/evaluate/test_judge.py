from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rdtf.evaluate.judge import (
    Judge,
    JudgeConfig,
    Verdicts,
    agreement,
    load_judge,
    proportion,
)
from rdtf.evaluate.measuring_network import CONFIG, WEIGHTS
from rdtf.world import draw_sticker
from tests.conftest import awaken

CONFIG_SMALL = JudgeConfig(
    size=16,
    features=4,
    widths=(4, 8, 8),
    hidden=8,
    names={"body": ("cat", "dog"), "action": ("jump", "still")},
    damages=("blur",),
)


@pytest.fixture
def small() -> Judge:
    """A judge of a few thousand random weights."""
    return awaken(Judge(CONFIG_SMALL)).eval()  # type: ignore[return-value]


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [draw_sticker(5, i, size=16, min_frames=8).frames[: 1 + i % 8] for i in range(16)]


def test_shapes(small: Judge, clips: list[np.ndarray]):
    verdicts = small.examine(clips)
    assert verdicts.features.shape == (16, 4)
    assert {key: chances.shape for key, chances in verdicts.attributes.items()} == {"body": (16, 2), "action": (16, 2)}
    assert all(chances.sum(1) == pytest.approx(np.ones(16)) for chances in verdicts.attributes.values())
    assert verdicts.damages["blur"].shape == (16,)
    assert np.array_equal(small.features(clips), verdicts.features)


def test_a_clip_is_judged_alone_as_in_company(small: Judge, clips: list[np.ndarray]):
    together = small.features(clips)
    alone = np.concatenate([small.features([clip]) for clip in clips])
    assert together == pytest.approx(alone, abs=1e-4)
    assert small.features(clips[::-1])[::-1] == pytest.approx(together, abs=1e-4)


def test_order_repetition_and_number_of_frames_matter(small: Judge):
    clip = draw_sticker(5, 3, size=16, min_frames=8).frames[:8]
    variants = [clip, clip[[0, 4, 1, 5, 2, 6, 3, 7]], clip[[0] * 8], clip[:4]]
    features = small.features(variants)
    for i in range(len(variants)):
        for j in range(i):
            assert np.abs(features[i] - features[j]).max() > 1e-3


def test_what_is_transparent_is_not_white_or_black(small: Judge):
    clip = draw_sticker(5, 3, size=16, min_frames=4).frames[:4]
    empty = clip[..., 3] == 0
    filled = []
    for level in (0, 255):
        filled.append(clip.copy())
        filled[-1][empty] = (level, level, level, 255)
    hidden = clip.copy()
    hidden[empty] = (255, 0, 0, 0)  # colour that nobody sees
    features = small.features([clip, *filled, hidden])
    assert np.abs(features[0] - features[1]).max() > 1e-3
    assert np.abs(features[0] - features[2]).max() > 1e-3
    assert np.array_equal(features[0], features[3])


def test_any_size_is_scaled(small: Judge):
    sizes = [draw_sticker(5, 3, size=size, min_frames=4).frames[:4] for size in (128, 64, 16)]
    features = small.features([*sizes, draw_sticker(5, 9, size=64, min_frames=4).frames[:4]])
    assert np.abs(features[0] - features[1]).max() < 0.3 * np.abs(features[3] - features[1]).max()


@pytest.mark.parametrize(
    "wrong", [np.zeros((17, 8, 8, 4), np.uint8), np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 4), np.float32)]
)
def test_what_is_no_clip_is_named(small: Judge, wrong: np.ndarray):
    with pytest.raises(ValueError, match="clip 1: a judge takes 1 to 16 RGBA frames"):
        small.examine([np.zeros((1, 8, 8, 4), np.uint8), wrong])
    with pytest.raises(ValueError, match="no clips"):
        small.examine([])


def test_saving_keeps_the_judge_and_any_weight_changes_its_digest(small: Judge, tmp_path: Path, clips: list):
    small.save(tmp_path / "a")
    again = load_judge(tmp_path / "a")
    assert again.features(clips) == pytest.approx(small.features(clips), abs=0.02)  # float16 on disk
    assert again.digest == load_judge(tmp_path / "a").digest
    with torch.no_grad():
        again.damage.bias[0] += 0.25
    again.save(tmp_path / "b")
    assert load_judge(tmp_path / "b").digest != load_judge(tmp_path / "a").digest
    assert not any(parameter.requires_grad for parameter in load_judge(tmp_path / "a").parameters())


def test_files_that_are_no_judge(small: Judge, tmp_path: Path):
    with pytest.raises(ValueError, match="no judge 'nowhere'; choose 'builtin'"):
        load_judge("nowhere")
    small.save(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    for wrong in ({**config, "format": "rdtf-judge/9"}, {**config, "features": 5}, {**config, "features": 65}):
        (tmp_path / CONFIG).write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="no judge that this version can read"):
            load_judge(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps(config))
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no judge that this version can read"):
        load_judge(tmp_path)


# ------------------------------------------------------------------------------------------------- agreement


class Known(Judge):
    """Says "cat" and "jump" of every clip whose first value is 0, else "dog" and "still"."""

    def examine(self, clips):
        odd = np.array([clip.flat[0] > 0 for clip in clips], int)
        chances = np.eye(2)[odd]
        return Verdicts(np.zeros((len(clips), 4)), {"body": chances, "action": chances}, {})


def test_agreement_counts_what_was_asked():
    judge = Known(CONFIG_SMALL)
    clips = [np.full((1, 1, 1, 4), value, np.uint8) for value in (0, 0, 1, 1)]
    asked = [
        {"body": "cat", "action": "jump", "held_out": True},  # right
        {"body": "dog", "action": "jump"},  # half right
        {"body": "dog"},  # right, action not asked
        {"body": "cat", "action": "jump"},  # wrong
    ]
    found = agreement(judge, clips, asked)
    assert {key: (a.n, a.value) for key, a in found.items()} == {
        "body": (4, 0.5),
        "action": (3, 2 / 3),
        "all": (4, 0.5),
    }
    assert set(agreement(judge, clips[2:3], asked[2:3])) == {"body", "all"}


def test_agreement_refuses_what_it_cannot_ask():
    judge = Known(CONFIG_SMALL)
    clip = np.zeros((1, 1, 1, 4), np.uint8)
    with pytest.raises(ValueError, match="1 clips, but attributes of 2"):
        agreement(judge, [clip], [{"body": "cat"}] * 2)
    with pytest.raises(ValueError, match="knows no body 'cow'; it knows cat, dog"):
        agreement(judge, [clip], [{"body": "cow"}])
    with pytest.raises(ValueError, match="without any of the attributes body, action"):
        agreement(judge, [clip], [{"colour": "red"}])


def test_wilson_interval_of_known_counts():
    found = proportion(np.array([True] * 8 + [False] * 2))
    assert (found.n, found.value) == (10, 0.8)
    assert (found.low, found.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))  # Newcombe's
    assert proportion(np.ones(10, bool)).high == pytest.approx(1.0)
    assert proportion(np.ones(10, bool)).low == pytest.approx(0.7225, abs=1e-4)
