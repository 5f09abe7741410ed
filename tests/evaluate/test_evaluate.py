"""Scoring of fills and of made stickers: what wins when it must, what is refused, and what the JSON states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rdtf.evaluate import evaluate as module
from rdtf.evaluate.copying import clip_vectors
from rdtf.evaluate.estimates import Estimate
from rdtf.evaluate.evaluate import evaluate, held_out_clips, quick_clips
from rdtf.evaluate.filling import HAS_OPENCV, PATTERNS, pipeline_fill, score_frames, simple_fills
from rdtf.evaluate.generation import score_generation
from rdtf.evaluate.judge import Judge, JudgeConfig, agreement
from rdtf.evaluate.namer import Namer, NamerConfig, naming
from rdtf.evaluate.sets import set_distances
from rdtf.sticker import Sticker
from rdtf.world import is_held_out


def moving(count: int, seed: int = 0) -> list[np.ndarray]:
    """Clips of 8 frames of 16 px: a soft square of some colour that walks."""
    rng = np.random.default_rng(seed)
    clips = []
    for _ in range(count):
        clip = np.zeros((8, 16, 16, 4), np.uint8)
        row, colour = rng.integers(1, 9), rng.integers(0, 256, 3)
        for i, frame in enumerate(clip):
            frame[row : row + 6, i : i + 6] = (*colour, 128)
            frame[row + 1 : row + 5, i + 1 : i + 5, 3] = 255
        clips.append(clip)
    return clips


def truthful(
    clips: Sequence[np.ndarray], loops: Sequence[bool], known: np.ndarray, first: int
) -> list[list[np.ndarray]]:
    return [[clip, clip] for clip in clips]


def test_the_truth_wins_and_a_crossfade_is_even_with_itself() -> None:
    clips = moving(6)
    best = score_frames(truthful, clips, patterns={"wide": "10010010"})["wide"]
    model = best.methods["model"]
    assert model["psnr_white"].value == 99 and model["ssim_black"].value == pytest.approx(1)
    assert model["alpha_error"].value == model["cleanliness"].value == 0
    assert best.clips == 6 and best.over_crossfade.low > 0
    assert {"crossfade", "nearest"} <= set(best.methods)

    fade = score_frames(
        lambda part, loops, known, first: [[simple_fills(clip, known)["crossfade"]] for clip in part],
        clips,
        patterns={"forward": "11111000"},
    )["forward"]
    assert fade.over_crossfade == Estimate(0, 0, 0, 6)
    assert fade.methods["model"] == fade.methods["crossfade"] == fade.methods["mean of samples"]
    assert fade.methods["best of samples"] == fade.methods["model"]


def test_ratios_are_one_for_the_truth_and_tell_ghosts_and_stillness() -> None:
    clips = moving(6)
    task = score_frames(truthful, clips, patterns={"wide": "10010010"})["wide"]
    assert task.ratios["model"]["half_transparent"].value == pytest.approx(1)
    assert task.ratios["model"]["motion"].value == pytest.approx(1)
    assert task.ratios["crossfade"]["half_transparent"].value > 1.3
    assert task.methods["model"]["cleanliness"].value == 0
    still = score_frames(
        lambda part, loops, known, first: [[simple_fills(clip, known)["nearest"]] for clip in part],
        clips,
        patterns={"forward": "11111000"},
    )["forward"]
    assert still.ratios["model"]["motion"].value == pytest.approx(0)


def test_the_best_sample_is_chosen_by_psnr_and_the_mean_is_a_picture() -> None:
    clips = moving(6)

    def fill(part, loops, known, first):
        wrong = [clip.copy() for clip in part]
        for clip in wrong:
            clip[~known, 0, 0] = (0, 0, 0, 200)
        return [[one, clip] for one, clip in zip(wrong, part, strict=True)]

    task = score_frames(fill, clips, patterns={"wide": "10010010"})["wide"]
    assert task.methods["best of samples"]["psnr_white"].value == 99
    alone, mean = (10 * np.log10(255**2 * 256 / error**2) for error in (200, 100))  # one of 256 pixels is wrong
    assert task.methods["model"]["psnr_white"].value == pytest.approx((alone + 99) / 2)
    assert task.methods["mean of samples"]["psnr_white"].value == pytest.approx(mean)


def test_clips_are_numbered_through_all_parts() -> None:
    clips, seen = moving(18), []

    def fill(part: Sequence[np.ndarray], loops: Sequence[bool], known: np.ndarray, first: int):
        seen.extend(range(first, first + len(part)))
        return truthful(part, loops, known, first)

    score_frames(fill, clips, patterns={"last": "11111110"})
    assert seen == list(range(18))


def test_a_given_frame_that_came_back_changed_ends_it() -> None:
    def spoilt(
        part: Sequence[np.ndarray], loops: Sequence[bool], known: np.ndarray, first: int
    ) -> list[list[np.ndarray]]:
        return [[255 - clip] for clip in part]

    with pytest.raises(ValueError, match=r"in-between, clip 0: given frames \[0, 2, 4, 6\]"):
        score_frames(spoilt, moving(3), patterns={"in-between": "10101010"})


class Counting:
    """A pipeline that notes its seeds and loops, and gives back clips of nothing but the given frames."""

    config = SimpleNamespace(sample_size=16, steps=2)

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.loops: list[bool] = []

    def __call__(self, prompts, *, frames, num_frames, num_inference_steps, num_stickers_per_prompt=1, loop, seed, **_):
        stickers = []
        frames = [{}] * len(prompts) if frames is None else frames
        self.loops += [looping for looping in loop for _ in range(num_stickers_per_prompt)]
        for i, given in enumerate(given for given in frames for _ in range(num_stickers_per_prompt)):
            clip = np.zeros((num_frames, 16, 16, 4), np.uint8)
            for place, frame in given.items():
                clip[place] = frame
            self.seeds.append(seed + i)
            stickers.append(Sticker.at_fps(clip))
        return SimpleNamespace(stickers=stickers)


def test_every_sample_of_every_clip_has_a_seed_of_its_own(unchecked: None) -> None:
    pipe = Counting()
    clips = moving(9)
    filled = pipeline_fill(pipe, samples=4, seed=100)(clips, [False] * 9, np.eye(8, dtype=bool)[0], 3)
    assert pipe.seeds == list(range(100 + 12, 100 + 12 + 36))
    assert [len(samples) for samples in filled] == [4] * 9
    assert all(np.array_equal(samples[0][0], clip[0]) for samples, clip in zip(filled, clips, strict=True))


def test_real_clips_score_as_real_ones_and_copies_are_caught() -> None:
    real, training = moving(40), moving(60, seed=1)
    same = score_generation(real, real, training=clip_vectors(training))
    assert same["motion energy"] == same["real motion energy"] and same["motion energy, made / real"].value == 1
    assert same["frozen clips"].value == 0 and same["loop seam"] == same["real loop seam"]
    assert same["uncommonly close to training"].value <= 0.05 and same["training clips"] == 60
    copied = score_generation(training[:40], real, training=clip_vectors(training))
    assert copied["distance to training"].value < 1e-6 and copied["uncommonly close to training"].value > 0.9
    frozen = score_generation([clip[[0] * 8] for clip in real], real)
    assert frozen["frozen clips"].value == 1 and frozen["motion energy, made / real"].value == 0
    with pytest.raises(ValueError, match="40 real"):
        score_generation(real[:3], real)


def test_a_judge_adds_its_distance_and_what_it_sees() -> None:
    names = {"body": ("cat", "dog"), "colour": ("red", "blue"), "action": ("jump", "still")}
    judge = Judge(JudgeConfig(size=16, features=2, hidden=8, widths=(8, 8, 8), names=names, damages=("blur",))).eval()
    real, made = moving(40), moving(40, seed=1)
    novel = {"body": "cat", "colour": "red", "action": "jump"}
    other = {"body": "dog", "colour": "red", "action": "still"}
    assert is_held_out(novel) and not is_held_out(other)
    attributes = [novel] * 30 + [other] * 10
    scores = score_generation(made, real, judge=judge, attributes=attributes)
    expected = set_distances("FD-sticker", judge.features(real), judge.features(made), 20)
    assert len(expected) == 3 and {name: scores[name] for name in expected} == expected
    for prefix, clips in (("", made), ("real ", real)):
        seen = agreement(judge, clips[:30], attributes[:30]), agreement(judge, clips[30:], attributes[30:])
        for name in ("body", "all"):
            assert scores[f"{prefix}{name} as asked, held-out combinations"] == seen[0][name]
            assert scores[f"{prefix}{name} as asked, seen combinations"] == seen[1][name]
    alone = score_generation(made, real, judge=judge)
    assert "FD-sticker" in alone and not any("as asked" in name for name in alone)
    few = score_generation(made[:10], real[:10], judge=judge)
    assert {name for name in few if name.startswith("FD")} == {"FD-sticker (unbiased MMD)"}


def test_a_namer_adds_how_often_stickers_are_named() -> None:
    namer = Namer(NamerConfig(size=16, widths=(4, 8), embedding=8, names=("a", "b", "c", "d", "e", "f"))).eval()
    real, made = moving(12), moving(12, seed=1)
    names = [*"abcdef", "", *"abcde"]
    scores = score_generation(made, real, namer=namer, names=names)
    asked = [i for i, name in enumerate(names) if name]
    for prefix, clips in (("", made), ("real ", real)):
        assert scores[f"{prefix}named"] == naming(namer, [clips[i] for i in asked], [names[i] for i in asked])["named"]
    assert scores["named in top 5"].n == 11
    assert not any("named" in name for name in score_generation(made, real, namer=namer, names=[""] * 12))


def test_the_model_and_the_fills_are_told_which_clips_loop(
    split_data: Path, unchecked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Counting()
    monkeypatch.setattr(module, "load_pipeline", lambda model: pipe)
    splits = ("train", "val")
    clips = held_out_clips(split_data, splits)
    assert all(clip.loop for clip in clips)  # as all stickers of the drawn world do
    clips = [replace(clip, loop=i % 3 > 0) for i, clip in enumerate(clips[:6])]
    monkeypatch.setattr(module, "held_out_clips", lambda *asked: clips)
    loops = [clip.loop for clip in clips]
    result = evaluate(Path("model"), split_data, splits=splits, samples=1)
    assert pipe.loops == loops * (len(PATTERNS) + 2)  # every task, then from text and from text and image
    assert result.left_out["in-between, 0.1 s"].startswith("3 stickers")
    single = result.frames["from one image"]
    assert result.stickers == [clip.id for clip in clips] and len(set(result.stickers)) == len(single.by_clip) == 6
    assert np.mean(single.by_clip) == pytest.approx(single.methods["model"]["psnr_white"].value)

    quick = 2 * quick_clips(split_data, splits)
    monkeypatch.setattr(module, "quick_clips", lambda *asked: quick)
    pipe.loops.clear()
    assert ("flow" in single.methods) == HAS_OPENCV == ("flow" not in result.left_out)
    monkeypatch.setattr("rdtf.evaluate.filling.HAS_OPENCV", False)
    result = evaluate(Path("model"), split_data, splits=splits, samples=1)
    assert pipe.loops == loops * len(PATTERNS) + [False] * 6 + loops * 2  # parts of a sticker, which do not loop
    assert result.frames["in-between, 0.1 s"].clips == 6
    assert "flow" not in result.frames["from one image"].methods and "rdtf[metrics]" in result.left_out["flow"]

    # In a loop the crossfade of the last frames leads on to the first, which is the third of three unknown ones.
    frames = [clip.frames for clip in clips]
    expected = score_frames(truthful, frames, loops)["extend forward"]
    assert result.frames["extend forward"].methods["crossfade"] == expected.methods["crossfade"]
    assert expected.methods["crossfade"] != score_frames(truthful, frames)["extend forward"].methods["crossfade"]
    circle = [np.full((8, 16, 16, 4), 255, np.uint8) for _ in range(2)]
    for clip in circle:
        clip[..., :3] = np.array([0, 60, 120, 180, 240, 180, 120, 60])[:, None, None, None]
    even = score_frames(truthful, circle, [True, True], patterns={"x": "10001000", "y": "11111000"})
    assert all(even[name].methods["crossfade"]["psnr_white"].value == 99 for name in "xy")
