"""The judge: a small network that looks at sticker clips, for metrics that need no download.

It maps a clip to a small feature vector, and FD-sticker compares sets of clips in these features. It also predicts
attributes of the built-in world: body, colour, action, expression, what is worn and held. It was trained on that world
by ``benchmarks/train_judge.py``, on clips of 1 to 16 frames, undamaged and damaged. It does not know everyday videos.
Its values are comparable only under the same judge, which :attr:`Judge.digest` names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional as F

from rdtf.evaluate.estimates import Estimate
from rdtf.evaluate.measuring_network import CONFIG, MeasuringNetwork, convolution
from rdtf.pixels import fit, premultiply

FORMAT = "rdtf-judge/1"
MAX_FEATURES = 64  # the Fréchet distance of d features needs 10 d clips in each set
MAX_FRAMES = 16
DEPTH = 2  # residual layers at each of the two coarse levels
_SAMPLES_PER_FEATURE = 10  # in each set, for a usable estimate of the covariance
_CLIPS_AT_ONCE = 32


class JudgeConfig(BaseModel):
    """Sizes and names of a judge.

    Attributes:
        size: height and width in pixels that clips are scaled to. widths: channels of the three levels.
        features: numbers in a feature. hidden: width of the layers before and after it.
        names: for each attribute its values, in the order of the outputs.
        damages: kinds of damage whose severity it predicts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = Field(FORMAT, pattern=re.escape(FORMAT))
    size: int = Field(32, ge=16, multiple_of=8)
    features: int = Field(32, ge=2, le=MAX_FEATURES)
    widths: tuple[int, int, int] = (24, 48, 96)
    hidden: int = Field(128, ge=8)
    names: dict[str, tuple[str, ...]]
    damages: tuple[str, ...]


@dataclass(frozen=True)
class Verdicts:
    """Predictions for ``n`` clips.

    Attributes:
        features: ``(n, d)`` float64, of mean 0 and deviation 1 over undamaged stickers of the built-in world.
        attributes: for each attribute the probabilities ``(n, names)`` float64.
        damages: for each kind of damage its severity ``(n,)`` in [0, 1].
    """

    features: np.ndarray
    attributes: dict[str, np.ndarray]
    damages: dict[str, np.ndarray]


class _OverTime(nn.Module):
    """Residual layer with a temporal shift (TSM, arXiv 1811.08383).

    A quarter of the channels comes from the frame before, and a quarter from the frame after. Beyond the ends of a clip
    these channels are 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = convolution(width, width)

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        """``n c h w`` to the same shape. ``later`` ``(n 1 1 1)`` is 0 at first frames of clips and 1 elsewhere."""
        quarter = x.shape[1] // 4
        late = _before(x[:, :quarter]) * later
        early = torch.cat([(x[:, quarter : 2 * quarter] * later)[1:], torch.zeros_like(x[:1, :quarter])])
        return x + self.layer(torch.cat([late, early, x[:, 2 * quarter :]], dim=1))


def _before(x: Tensor) -> Tensor:
    """The map of the frame before each frame. It is 0 for the first of all."""
    return torch.cat([torch.zeros_like(x[:1]), x[:-1]])


class Judge(MeasuringNetwork):
    """The network. Its input is each frame together with its difference to the frame before."""

    config_class, kind = JudgeConfig, "judge"
    config: JudgeConfig
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        low, middle, high = config.widths
        self.low = convolution(32, low)
        self.to_middle = convolution(low, middle, stride=2)
        self.middle = nn.ModuleList(_OverTime(middle) for _ in range(DEPTH))
        self.to_high = convolution(middle, high, stride=2)
        self.high = nn.ModuleList(_OverTime(high) for _ in range(DEPTH))
        pooled = 6 * sum(config.widths) + high * (config.size // 8) ** 2
        self.pooled = nn.Sequential(nn.BatchNorm1d(pooled), nn.Linear(pooled, config.hidden), nn.ReLU())
        self.to_feature = nn.Linear(config.hidden, config.features)
        self.told = nn.Sequential(nn.BatchNorm1d(config.features), nn.Linear(config.features, config.hidden), nn.ReLU())
        self.heads = nn.ModuleDict({key: nn.Linear(config.hidden, len(names)) for key, names in config.names.items()})
        self.damage = nn.Linear(config.hidden, len(config.damages))
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("deviation", torch.ones(config.features))

    def pool(self, frames: Float[Tensor, "n 4 s s"], lengths: Sequence[int]) -> Float[Tensor, "b p"]:
        """Mean, deviation and mean change over time of pooled features, and the mean over time of unpooled features."""
        later = torch.ones(len(frames), 1, 1, 1, device=frames.device)
        later[np.cumsum([0, *lengths[:-1]])] = 0
        steps = (frames - _before(frames)) * later
        # Differences of frames are small, so they are scaled up. Empty space stays 0.
        x = F.pixel_unshuffle(torch.cat([frames, 3 * steps], dim=1), 2).contiguous(memory_format=torch.channels_last)
        levels = [self.low(x)]
        for down, layers in ((self.to_middle, self.middle), (self.to_high, self.high)):
            x = down(levels[-1])
            for layer in layers:
                x = layer(x, later)
            levels.append(x)
        each = torch.cat([part for x in levels for part in (x.mean((2, 3)), x.amax((2, 3)))], dim=1)
        changes = (each - _before(each)).abs() * later[..., 0, 0]
        where = levels[-1].flatten(1)
        return torch.stack(
            [
                torch.cat([c.mean(0), c.std(0, correction=0), change.sum(0) / max(1, len(c) - 1), place.mean(0)])
                for c, change, place in zip(*(x.split(list(lengths)) for x in (each, changes, where)), strict=True)
            ]
        )

    def forward(
        self, frames: Float[Tensor, "n 4 s s"], lengths: Sequence[int]
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Predict for clips. Their frames follow each other: premultiplied RGBA in [0, 1]. ``lengths`` sums to ``n``.

        Returns:
            Feature ``(b, d)``, not yet normalised, logits of each attribute, and logits of damage ``(b, kinds)``.
        """
        feature = self.to_feature(self.pooled(self.pool(frames, lengths)))
        hidden = self.told(feature)
        return feature, {key: head(hidden) for key, head in self.heads.items()}, self.damage(hidden)

    @torch.no_grad()
    def examine(self, clips: Sequence[np.ndarray]) -> Verdicts:
        """Predict for clips: straight RGBA ``(f, h, w, 4)`` uint8 of 1 to 16 frames, of any sizes.

        Raises:
            ValueError: no clips, or a clip of another form.
        """
        if not len(clips):
            raise ValueError("no clips to judge")
        for i, clip in enumerate(clips):
            if clip.ndim != 4 or clip.shape[-1] != 4 or clip.dtype != np.uint8 or not 1 <= len(clip) <= MAX_FRAMES:
                raise ValueError(
                    f"clip {i}: a judge takes 1 to {MAX_FRAMES} RGBA frames (f, h, w, 4) of uint8, "
                    f"got {clip.dtype} {clip.shape}"
                )
        features = np.zeros((len(clips), self.config.features))
        attributes = {key: np.zeros((len(clips), len(names))) for key, names in self.config.names.items()}
        damages = {kind: np.zeros(len(clips)) for kind in self.config.damages}
        for start in range(0, len(clips), _CLIPS_AT_ONCE):
            some = slice(start, start + _CLIPS_AT_ONCE)
            frames = to_frames(clips[some], self.config.size).to(self.mean.device)
            feature, logits, damage = self(frames, [len(clip) for clip in clips[some]])
            features[some] = ((feature - self.mean) / self.deviation).cpu()
            for key, values in logits.items():
                attributes[key][some] = values.double().softmax(-1).cpu()
            for kind, levels in zip(damages.values(), damage.sigmoid().cpu().T, strict=True):
                kind[some] = levels
        return Verdicts(features, attributes, damages)

    def features(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """The features ``(n, d)`` float64 of clips. See :meth:`examine`."""
        return self.examine(clips).features

    @property
    def fewest_clips(self) -> int:
        """Least number of clips in a set for FD-sticker."""
        return _SAMPLES_PER_FEATURE * self.config.features


def to_frames(clips: Sequence[np.ndarray], size: int) -> Float[Tensor, "n 4 s s"]:
    """All frames of clips as input of a network: scaled to ``size`` pixels, premultiplied, in [0, 1]."""
    frames = np.concatenate([premultiply(fit(clip, size)) for clip in clips])
    return torch.from_numpy(frames.astype(np.float32) / 255).movedim(-1, -3).contiguous()


def load_judge(spec: str | Path = "builtin") -> Judge:
    """The judge of that name or folder, frozen, in float32, on the GPU if there is one.

    Args:
        spec: ``"builtin"``, or a folder that ``benchmarks/train_judge.py`` wrote.

    Raises:
        ValueError: there is no such judge, or its files are damaged.
    """
    if str(spec) == "builtin":
        with resources.as_file(resources.files("rdtf") / "assets" / "judge") as folder:
            return Judge.load(folder)
    if not (Path(spec) / CONFIG).is_file():
        raise ValueError(f"no judge {str(spec)!r}; choose 'builtin' or a judge's folder")
    return Judge.load(Path(spec))


def proportion(right: np.ndarray) -> Estimate:
    """The fraction of ``(n,)`` marks that are true, with Wilson's 95 % interval. ``n`` is at least 1."""
    found = binomtest(int(right.sum()), len(right)).proportion_ci(0.95, "wilson")
    return Estimate(float(right.mean()), float(found.low), float(found.high), len(right))


def agreement(
    judge: Judge, clips: Sequence[np.ndarray], attributes: Sequence[Mapping[str, Any]]
) -> dict[str, Estimate]:
    """How often the judge sees in a clip what was asked for.

    Args:
        clips: see :meth:`Judge.examine`.
        attributes: what each clip should show, as in the metadata of the built-in world. Other facts than the judge's
            attributes are ignored.

    Returns:
        the fraction by attribute; ``all`` counts clips in which every attribute that was asked is right.

    Raises:
        ValueError: another number of attributes than clips, a name that the judge does not know, or nothing asked.
    """
    if len(attributes) != len(clips):
        raise ValueError(f"{len(clips)} clips, but attributes of {len(attributes)}")
    names = judge.config.names
    for asked in attributes:
        for key in names:
            if key in asked and asked[key] not in names[key]:
                raise ValueError(f"the judge knows no {key} {asked[key]!r}; it knows {', '.join(names[key])}")
    if not all(any(key in asked for key in names) for asked in attributes):
        raise ValueError(f"a clip without any of the attributes {', '.join(names)}; the judge cannot be asked about it")
    seen = {key: chances.argmax(1) for key, chances in judge.examine(clips).attributes.items()}
    right: dict[str, list[bool]] = {key: [] for key in (*names, "all")}
    for i, asked in enumerate(attributes):
        marks = {key: names[key][seen[key][i]] == asked[key] for key in names if key in asked}
        for key, mark in marks.items():
            right[key].append(mark)
        right["all"].append(all(marks.values()))
    return {key: proportion(np.array(marks)) for key, marks in right.items() if marks}
