"""Training of the judge on stickers of the built-in world that are reserved for it, and damages that it must notice.

    python benchmarks/train_judge.py judges/mine --threads 1

Damages are functions of a clip, a level (0 is no damage, 1 is the worst) and a random stream. They take and return
straight RGBA ``(f, h, w, 4)`` uint8. They work on premultiplied values, so empty pixels spread no colour.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from rdtf.device import best_device
from rdtf.evaluate.judge import MAX_FRAMES, Judge, JudgeConfig, agreement, load_judge, to_frames
from rdtf.files import write_text
from rdtf.pixels import fit, premultiply, unpremultiply
from rdtf.progress import console
from rdtf.rng import numpy_rng
from rdtf.sticker import Sticker
from rdtf.train.small_loop import ShortReport, ShortSettings, ShortTraining
from rdtf.world import FULL, RESERVED_SEED, STILL, draw_sticker

BLUR = 0.06  # deviation in sides of the frame, at level 1
NOISE = 0.3  # deviation in ranges of a channel, at level 1
WARP = 0.08  # deviation of the displacement in sides of the frame, at level 1


def blur(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of every frame, up to a deviation of 6 % of its side."""
    sigma = level * BLUR * clip.shape[1]
    return _back(ndimage.gaussian_filter(_floats(clip), (0, sigma, sigma, 0), mode="constant"))


def noise(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """White noise on colour and alpha, independent in each frame, up to a deviation of 0.3 of the range."""
    floats = _floats(clip)
    return _back(floats + 255 * NOISE * level * rng.standard_normal(floats.shape, np.float32))


def shuffle(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Permute a random fraction of the frames without fixed points. One frame alone does not move."""
    moved = rng.permutation(len(clip))[: round(level * len(clip))]
    out = clip.copy()
    out[moved] = clip[np.roll(moved, 1)]
    return out


def freeze(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Replace a random fraction of the frames by the frame before. At level 1 nothing moves."""
    held = np.zeros(len(clip), bool)
    held[1 + rng.permutation(len(clip) - 1)[: round(level * (len(clip) - 1))]] = True
    return clip[np.maximum.accumulate(np.where(held, 0, np.arange(len(clip))))]


def warp(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Wobbling shapes: each frame is bent by its own smooth field, up to a deviation of 8 % of the side."""
    if level == 0:
        return clip.copy()
    _, height, width, _ = clip.shape
    out = _floats(clip)
    grid = np.mgrid[:height, :width].astype(np.float32)
    for frame in out:
        coarse = rng.standard_normal((2, 5, 5)).astype(np.float32)
        shift = ndimage.zoom(coarse, (1, height / 5, width / 5), order=3, mode="nearest", grid_mode=True)
        places = grid + level * WARP * height * shift / 0.7  # interpolation lowers the deviation to 0.7
        for channel in range(4):
            frame[..., channel] = ndimage.map_coordinates(frame[..., channel], places, order=1, mode="constant")
    return _back(out)


def mosaic(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Square blocks of one colour, up to an eighth of the side."""
    side = round(1 + level * (clip.shape[1] / 8 - 1))
    rows, columns = (np.minimum(np.arange(n) // side * side + side // 2, n - 1) for n in clip.shape[1:3])
    return clip[:, rows][:, :, columns]


def veil(clip: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Alpha errors: empty pixels become a grey veil, and solid pixels become transparent, both by up to a quarter."""
    floats = _floats(clip)
    grey = np.array([128, 128, 128, 255], np.float32)
    return _back(floats + 0.5 * level * (0.5 * grey - floats))


DAMAGES: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "blur": blur,
    "noise": noise,
    "shuffle": shuffle,
    "freeze": freeze,
    "warp": warp,
    "mosaic": mosaic,
    "veil": veil,
}
"""All damages by name."""


def _floats(clip: np.ndarray) -> np.ndarray:
    return premultiply(clip).astype(np.float32)


def _back(floats: np.ndarray) -> np.ndarray:
    floats = np.clip(np.rint(floats), 0, 255)
    floats[..., :3] = np.minimum(floats[..., :3], floats[..., 3:])
    return unpremultiply(floats.astype(np.uint8))


LEARNED_DAMAGES = ("blur", "noise", "shuffle", "freeze")
"""Damages whose level the judge learns to predict. The other damages of ``DAMAGES`` test it."""
HELD_OUT_SEED = RESERVED_SEED + 2**62
"""Seed of the world for reports. Trainings use the seeds from ``RESERVED_SEED`` up to this one."""
STATISTICS_SEED = HELD_OUT_SEED + 1
"""Seed of the world for normalising features."""
WEIGHTS = {"body": 1.0, "colour": 1.0, "action": 1.0, "expression": 0.5, "accessory": 0.5, "prop": 0.5}
DAMAGE_WEIGHT = 10.0
SIZES = (48, 32)  # sizes of drawn stickers
USUAL_FRAMES = 8  # length of half of the clips
READABLE = 0.5  # above this level of shuffle and freeze, the action cannot be recognised
EMA_DECAY = 0.99


class JudgeTrainSettings(ShortSettings):
    """Settings of ``train_judge``.

    Attributes:
        batch: clips per step.
        stickers: number of stickers drawn before the training. Each is shown often, with random changes.
        features: size of the feature vector.
        seed: seed of weights, damages and the drawn world (world seeds start at ``world.RESERVED_SEED``).
        held_out: number of stickers for the report, from a world that no training sees.
    """

    steps: int = Field(1200, ge=1)
    batch: int = Field(32, ge=2)
    stickers: int = Field(4000, ge=1)
    features: int = Field(32, ge=2, le=64)
    learning_rate: float = Field(3e-3, gt=0)
    seed: int = Field(0, ge=0, lt=2**62)
    held_out: int = Field(500, ge=2)


class JudgeReport(ShortReport[JudgeTrainSettings]):
    """Settings and quality of a training: ``report.json`` beside the weights.

    Attributes:
        digest: digest of the saved judge, see ``Judge.digest``.
        accuracy: fraction of held-out stickers with a right attribute, from 8 frames each.
        damage_error: mean absolute error of the level, for uniform levels in [0, 1].
    """

    digest: str
    accuracy: dict[str, float]
    damage_error: dict[str, float]


@dataclass(frozen=True)
class Lesson:
    """A batch with its labels.

    Attributes:
        frames: the frames of all clips, one clip after the other, from ``judge.to_frames``. lengths: frames of each
            clip.
        labels: for each attribute ``(b,)`` indices of names, -1 if it cannot be recognised.
        levels: ``(b, kinds)`` levels of damage in [0, 1].
    """

    frames: Tensor
    lengths: list[int]
    labels: dict[str, Tensor]
    levels: Tensor

    def to(self, device: torch.device) -> Lesson:
        """Tensors on ``device``."""
        labels = {key: values.to(device) for key, values in self.labels.items()}
        return Lesson(self.frames.to(device), self.lengths, labels, self.levels.to(device))


def attribute_names() -> dict[str, tuple[str, ...]]:
    """The attributes of the built-in world with all their names; ``still`` is an action."""
    return {
        "body": FULL["body"],
        "colour": FULL["colour"],
        "action": (*FULL["action"], STILL),
        "expression": FULL["expression"],
        "accessory": FULL["accessory"],
        "prop": FULL["prop"],
    }


def draw_lesson(settings: JudgeTrainSettings, config: JudgeConfig, stickers: Sequence[Sticker], step: int) -> Lesson:
    """The batch of a step: clips of stickers, slightly moved and scaled, most with one or two kinds of damage."""
    rng = numpy_rng(settings.seed, step, "judge/data")
    clips, labels, levels = [], [], []
    for index in rng.integers(len(stickers), size=settings.batch):
        sticker = stickers[index]
        count = USUAL_FRAMES if rng.random() < 0.5 else int(rng.integers(1, MAX_FRAMES + 1))
        clip = sticker.frames[_pick_frames(len(sticker), min(count, len(sticker)), rng)]
        clip, damage = _damage(clip, config.damages, rng)
        level = dict(zip(config.damages, damage, strict=True))
        label = {key: config.names[key].index(str(sticker.attributes[key])) for key in config.names}
        if len(clip) == 1:
            label["action"] = config.names["action"].index(STILL)
        elif max(level.get("shuffle", 0), level.get("freeze", 0)) > READABLE:
            label["action"] = -1
        clips.append(_place(clip, config.size, rng))
        labels.append(label)
        levels.append(damage)
    return Lesson(
        to_frames(clips, config.size),
        [len(clip) for clip in clips],
        {key: torch.tensor([label[key] for label in labels]) for key in config.names},
        torch.from_numpy(np.array(levels, np.float32)),
    )


def _pick_frames(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` evenly spaced frames of the whole sticker or of a part, in order."""
    if count == 1:
        return rng.integers(total, size=1)
    span = total if rng.random() < 0.5 else int(rng.integers(count, total + 1))
    return rng.integers(total - span + 1) + np.arange(count) * span // count


def _place(clip: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """The clip in a square of ``size`` pixels. Half of the time it is shrunk to 70 % or more, at a random position."""
    room = int(rng.integers(round(0.3 * size) + 1)) if rng.random() < 0.5 else 0
    top, left = rng.integers(room + 1, size=2)
    return np.pad(fit(clip, size - room), ((0, 0), (top, room - top), (left, room - left), (0, 0)))


def _damage(clip: np.ndarray, kinds: tuple[str, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Damage clips: a quarter not at all, half with one kind of damage, a quarter with two."""
    levels = np.zeros(len(kinds))
    for which in rng.permutation(len(kinds))[: rng.choice(3, p=(0.25, 0.5, 0.25))]:
        kind = kinds[which]
        if len(clip) == 1 and kind in ("shuffle", "freeze"):
            continue
        level = float(rng.random())
        clip = DAMAGES[kind](clip, level, rng)
        if kind == "shuffle":  # the level is the fraction of moved frames, and one frame alone does not move
            moved = round(level * len(clip))
            level = moved / len(clip) if moved > 1 else 0.0
        elif kind == "freeze":
            level = round(level * (len(clip) - 1)) / (len(clip) - 1)
        levels[which] = level
    return clip, levels


def lesson_loss(judge: Judge, lesson: Lesson) -> Tensor:
    """Weighted cross-entropies of the attributes and of the levels. Each clip counts the same."""
    _, logits, damage = judge(lesson.frames, lesson.lengths)
    loss = DAMAGE_WEIGHT * F.binary_cross_entropy_with_logits(damage.float(), lesson.levels)
    for key, values in logits.items():
        known = lesson.labels[key] >= 0
        each = F.cross_entropy(values.float(), lesson.labels[key].clamp(min=0), reduction="none", label_smoothing=0.02)
        loss = loss + WEIGHTS[key] * (each * known).sum() / max(1, int(known.sum()))
    return loss


def train_judge(out: Path, settings: JudgeTrainSettings) -> JudgeReport:
    """Train a judge on the built-in world and measure it on stickers of another world.

    Writes into ``out``: ``config.json``, ``model.safetensors`` (float16) and ``report.json``. Ctrl-C ends the training
    early; the judge is then measured and saved as it is.

    Raises:
        ValueError: ``out`` is not empty, or a loss is not finite.
    """
    training = ShortTraining("judge", out, settings)
    settings = training.settings
    config = JudgeConfig(features=settings.features, names=attribute_names(), damages=LEARNED_DAMAGES)
    device = best_device()
    judge = Judge(config).to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=settings.learning_rate, weight_decay=0.02)
    stickers = [
        draw_sticker(RESERVED_SEED + settings.seed, i, size=SIZES[i % len(SIZES)]) for i in range(settings.stickers)
    ]

    def loss_of(step: int) -> Tensor:
        return lesson_loss(judge, draw_lesson(settings, config, stickers, step).to(device))

    average, facts = training.train(judge, [optimizer], loss_of, EMA_DECAY)
    average.eval()
    features = average.features(drawn_clips(settings.held_out, STATISTICS_SEED)[0])
    average.mean.copy_(torch.from_numpy(features.mean(0)))
    average.deviation.copy_(torch.from_numpy(features.std(0) + 1e-3))
    average.save(out)
    saved = load_judge(out)

    clips, attributes = drawn_clips(settings.held_out, HELD_OUT_SEED)
    accuracy = agreement(saved, clips, attributes)
    report = JudgeReport(
        **facts,
        digest=saved.digest,
        accuracy={key: round(found.value, 4) for key, found in accuracy.items()},
        damage_error=_damage_errors(saved, clips),
    )
    write_text(out / "report.json", report.model_dump_json(indent=2) + "\n")
    return report


def drawn_clips(
    count: int, seed: int, *, size: int = 64, frames: int = USUAL_FRAMES
) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """Stickers 0 to ``count - 1`` of a world as clips of ``frames`` evenly spaced frames, and their attributes."""
    clips, attributes = [], []
    for index in range(count):
        sticker = draw_sticker(seed, index, size=size, min_frames=frames)
        clips.append(sticker.frames[np.arange(frames) * len(sticker) // frames])
        attributes.append(sticker.attributes)
    return clips, attributes


def damaged(clips: Sequence[np.ndarray], kind: str, level: float, seed: int = 0) -> list[np.ndarray]:
    """Clips with damage of one level. Each clip has its own random stream, which is the same at every level."""
    return [DAMAGES[kind](clip, level, numpy_rng(seed, i, f"judge/{kind}")) for i, clip in enumerate(clips)]


def _damage_errors(judge: Judge, clips: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean absolute error of the level of each kind, over clips with only this damage."""
    errors = {}
    for kind in judge.config.damages:
        levels = [(i + 0.5) / len(clips) for i in range(len(clips))]
        hurt = [
            DAMAGES[kind](clip, level, numpy_rng(0, i, f"judge/{kind}"))
            for i, (clip, level) in enumerate(zip(clips, levels, strict=True))
        ]
        errors[kind] = round(float(np.abs(judge.examine(hurt).damages[kind] - levels).mean()), 4)
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the new judge's folder")
    for name, field in JudgeTrainSettings.model_fields.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=f"default: {field.default}")
    given = vars(parser.parse_args())
    console.print(train_judge(given.pop("out"), JudgeTrainSettings.model_validate(given)))


if __name__ == "__main__":
    main()
