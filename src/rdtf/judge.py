"""The judge: a small network that looks at sticker clips, for metrics that need no download.

It gives a clip a feature of few numbers, in which sets of clips are compared (FD-sticker), and says what the clip
shows in terms of the built-in world: body, colour, action, expression, what is worn and held. It was trained on that
world (``rdtf train-judge``), on clips of 1 to 16 frames, whole and damaged. It is no model of everyday videos: figures
in its feature compare with each other only, and only with the same judge, which :attr:`Judge.digest` names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from rdtf.data.world import is_held_out
from rdtf.metrics.distance import Estimate, frechet_distance, frechet_extrapolated, frechet_floor, unbiased_mmd
from rdtf.pixels import fit, premultiply

FORMAT = "rdtf-judge/1"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_FEATURES = 64
"""The Frechet distance of more dimensions needs more clips than anybody generates."""
MAX_FRAMES = 16
KEEP = 0.95  # of the old scale of what is pooled, at each step of training
_CLIPS_AT_ONCE = 32


class JudgeConfig(BaseModel):
    """What a judge is made of.

    Attributes:
        size: clips are scaled to so many pixels.
        features: numbers in a feature.
        widths: channels of the three levels.
        hidden: width of the layers before and after the feature.
        names: for each attribute the names it is told by, in the order of the outputs.
        damages: kinds of damage whose level it was trained to tell.
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
    """What a judge says of ``n`` clips.

    Attributes:
        features: ``(n, d)`` float64; about zero mean and unit deviation over whole stickers of the built-in world.
        attributes: for each attribute the probabilities ``(n, names)`` float64.
        damages: for each kind of damage the level ``(n,)`` in [0, 1].
    """

    features: np.ndarray
    attributes: dict[str, np.ndarray]
    damages: dict[str, np.ndarray]


class _Residual(nn.Module):
    """Two 3x3 convolutions around a skip; the last starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``n c h w``, shape kept."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class _OverTime(nn.Module):
    """A residual convolution over three frames at each place; nothing comes from before the first or after the last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """``(b f) c h w``, shape kept."""
        height = x.shape[-2]
        rows = rearrange(F.silu(x), "(b f) c h w -> (b h w) c f", f=frames)
        out = self.conv(rows)
        return x + rearrange(out, "(b h w) c f -> (b f) c h w", h=height, w=x.shape[-1], f=frames)


class Judge(nn.Module):
    """The network. Every frame is seen beside its difference to the one before, so that motion is seen from the start.

    Args:
        config: see :class:`JudgeConfig`.
    """

    centre: Tensor
    scale: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        low, middle, high = config.widths
        self.conv_in = nn.Conv2d(32, low, 3, padding=1)
        self.to_middle = nn.Conv2d(low, middle, 2, stride=2)
        self.middle = _Residual(middle)
        self.middle_time = _OverTime(middle)
        self.to_high = nn.Conv2d(middle, high, 2, stride=2)
        self.high = _Residual(high)
        self.high_time = _OverTime(high)
        self.pooled = nn.Linear(6 * high, config.hidden)
        self.to_feature = nn.Linear(config.hidden, config.features)
        self.told = nn.Linear(config.features, config.hidden)
        self.heads = nn.ModuleDict({key: nn.Linear(config.hidden, len(names)) for key, names in config.names.items()})
        self.damage = nn.Linear(config.hidden, len(config.damages))
        self.register_buffer("centre", torch.zeros(6 * high))
        self.register_buffer("scale", torch.ones(6 * high))
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("deviation", torch.ones(config.features))

    def pool(self, video: Float[Tensor, "b f 4 s s"]) -> Float[Tensor, "b p"]:
        """Mean over time, deviation over time and mean change of what is seen in the frames."""
        frames = video.shape[1]
        steps = torch.cat([torch.zeros_like(video[:, :1]), video[:, 1:] - video[:, :-1]], dim=1)
        # Steps are small beside the frames; what is empty should be 0.
        seen = F.pixel_unshuffle(rearrange([video, 3 * steps], "k b f c h w -> (b f) (k c) h w"), 2)
        x = self.conv_in(seen.contiguous(memory_format=torch.channels_last))
        x = self.middle_time(self.middle(self.to_middle(F.silu(x))), frames)
        x = F.silu(self.high_time(self.high(self.to_high(x)), frames))
        x = rearrange(x, "(b f) c h w -> b f c (h w)", f=frames)
        each = torch.cat([x.mean(-1), x.amax(-1)], dim=-1)
        changes = (each[:, 1:] - each[:, :-1]).abs().sum(1) / max(1, frames - 1)
        return torch.cat([each.mean(1), each.std(1, correction=0), changes], dim=-1)

    def feature(self, video: Float[Tensor, "b f 4 s s"]) -> Float[Tensor, "b d"]:
        """The feature, not yet normalised, of premultiplied RGBA in [0, 1]."""
        pooled = self.pool(video)
        if self.training:
            self.calibrate(pooled, KEEP)
        # Motion is small beside what moves, and what differs is small beside what all clips have.
        out: Tensor = self.to_feature(F.silu(self.pooled((pooled - self.centre) / self.scale)))
        return out

    @torch.no_grad()
    def calibrate(self, pooled: Float[Tensor, "b p"], keep: float) -> None:
        """Move the centre and scale of what is pooled towards those of these clips, keeping a share of the old ones.

        Training sees the same moving values that are used later, not those of its batch: a batch has one length.
        """
        deviation, mean = torch.std_mean(pooled, dim=0)
        self.centre.lerp_(mean, 1 - keep)
        self.scale.lerp_(deviation + 1e-3, 1 - keep)

    def forward(self, video: Float[Tensor, "b f 4 s s"]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Feature ``(b, d)``, logits of each attribute, and logits of damage ``(b, kinds)``."""
        feature = self.feature(video)
        hidden = F.silu(self.told(feature))
        return feature, {key: head(hidden) for key, head in self.heads.items()}, self.damage(hidden)

    @torch.no_grad()
    def examine(self, clips: Sequence[np.ndarray]) -> Verdicts:
        """Look at clips: straight RGBA ``(f, h, w, 4)`` uint8 of 1 to 16 frames, sizes and lengths as they come.

        Clips of one length go through the network together; none is padded, so that company changes nothing.

        Raises:
            ValueError: no clips, or one that is no such clip.
        """
        if not len(clips):
            raise ValueError("no clips to judge")
        groups: dict[int, list[int]] = defaultdict(list)
        for i, clip in enumerate(clips):
            if clip.ndim != 4 or clip.shape[-1] != 4 or clip.dtype != np.uint8 or not 1 <= len(clip) <= MAX_FRAMES:
                raise ValueError(
                    f"clip {i}: a judge takes 1 to {MAX_FRAMES} RGBA frames (f, h, w, 4) of uint8, "
                    f"got {clip.dtype} {clip.shape}"
                )
            groups[len(clip)].append(i)
        features = np.zeros((len(clips), self.config.features))
        attributes = {key: np.zeros((len(clips), len(names))) for key, names in self.config.names.items()}
        damages = {kind: np.zeros(len(clips)) for kind in self.config.damages}
        for members in groups.values():
            for start in range(0, len(members), _CLIPS_AT_ONCE):
                places = members[start : start + _CLIPS_AT_ONCE]
                video = to_video([clips[i] for i in places], self.config.size).to(self.mean.device)
                feature, logits, damage = self(video)
                features[places] = ((feature - self.mean) / self.deviation).cpu()
                for key, values in logits.items():
                    attributes[key][places] = values.double().softmax(-1).cpu()
                for kind, levels in zip(damages.values(), damage.sigmoid().cpu().T, strict=True):
                    kind[places] = levels
        return Verdicts(features, attributes, damages)

    def features(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """The features ``(n, d)`` float64 of clips; see :meth:`examine`."""
        return self.examine(clips).features

    def attributes(self, clips: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The probabilities ``(n, names)`` of each attribute in the order of ``config.names``; see :meth:`examine`."""
        return self.examine(clips).attributes

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of SHA-256 over configuration and weights (read as float32)."""
        digest = hashlib.sha256(json.dumps(self.config.model_dump(mode="json"), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` (float16) into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        weights = {name: tensor.detach().half().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, folder / WEIGHTS)


def to_video(clips: Sequence[np.ndarray], size: int) -> Float[Tensor, "b f 4 s s"]:
    """Clips of one length as a judge sees them: scaled to ``size`` pixels, premultiplied, in [0, 1].

    Premultiplied colour is the sticker over black, and alpha stands beside it: what shows over any background is a
    sum of the two.
    """
    video = np.stack([premultiply(fit(clip, size)) for clip in clips])
    return torch.from_numpy(video.astype(np.float32) / 255).movedim(-1, -3).contiguous()


def load_judge(spec: str | Path = "builtin") -> Judge:
    """The judge of that name or folder, frozen, in float32.

    Args:
        spec: ``"builtin"``, or a folder that ``rdtf train-judge`` wrote.

    Raises:
        ValueError: there is no such judge, or its files are not what they should be.
    """
    if str(spec) == "builtin":
        with resources.as_file(resources.files("rdtf") / "assets" / "judge") as folder:
            if not (folder / CONFIG).is_file():
                raise ValueError("no judge is built in here; give a folder that rdtf train-judge wrote")
            return _load_folder(folder)
    if not (Path(spec) / CONFIG).is_file():
        raise ValueError(f"no judge {str(spec)!r}; choose 'builtin' or a folder that rdtf train-judge wrote")
    return _load_folder(Path(spec))


def _load_folder(folder: Path) -> Judge:
    try:
        judge = Judge(JudgeConfig.model_validate_json((folder / CONFIG).read_text(encoding="utf-8")))
        weights = load_file(folder / WEIGHTS)
        judge.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except (ValidationError, UnicodeDecodeError, OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder}: no judge that this version can read ({error}); train one anew") from error
    return judge.eval().requires_grad_(False)


# ------------------------------------------------------------------------------------------------------- distance

SAMPLES_PER_FEATURE = 10


@dataclass(frozen=True)
class StickerDistance:
    """FD-sticker and its conditions: how far made clips are from real ones in the feature of a judge; 0 is best.

    Attributes:
        judge: digest of the judge.
        features: dimensions ``d``.
        real, made: clips in each set.
        frechet: plain Frechet distance of these sets; biased upwards, the more the fewer clips.
        floor: the same between real clips and as many others, mean over draws.
        floor_clips: how many: of the smaller set, or half of the real ones.
        frechet_inf: extrapolated to infinitely many clips.
        mmd: unbiased squared maximum mean discrepancy, kernel of degree 3.
    """

    judge: str
    features: int
    real: int
    made: int
    frechet: float
    floor: float
    floor_clips: int
    frechet_inf: Estimate
    mmd: Estimate


def fd_sticker(judge: Judge, real: np.ndarray, made: np.ndarray, seed: int = 0) -> StickerDistance:
    """FD-sticker of made clips to real ones. It is no FVD and compares with nothing but itself under the same judge.

    Give both sets the same size and lengths of clips: the judge sees the length.

    Args:
        judge: whose features these are.
        real, made: ``(n, d)`` from :meth:`Judge.features`, one row a clip.
        seed: of the draws for floor, extrapolation and intervals.

    Raises:
        ValueError: fewer than ``10 d`` clips in a set, or features of another width than the judge's.
    """
    width = judge.config.features
    for name, features in (("real", real), ("made", made)):
        if features.ndim != 2 or features.shape[1] != width:
            raise ValueError(f"{name}: features must be (n, {width}) for this judge, got {features.shape}")
        if len(features) < SAMPLES_PER_FEATURE * width:
            raise ValueError(
                f"{len(features)} {name} clips are too few for FD-sticker: with {width} features it needs "
                f"{SAMPLES_PER_FEATURE * width}; give more"
            )
    count = min(len(made), len(real) // 2)
    return StickerDistance(
        judge=judge.digest,
        features=width,
        real=len(real),
        made=len(made),
        frechet=frechet_distance(real, made),
        floor=frechet_floor(real, count, seed),
        floor_clips=count,
        frechet_inf=frechet_extrapolated(real, made, seed),
        mmd=unbiased_mmd(real, made, seed=seed),
    )


# ---------------------------------------------------------------------------------------------------- agreement


def share(right: np.ndarray) -> Estimate:
    """The share of ``(n,)`` marks that are true, n at least 1, with Wilson's interval of 95 %."""
    n, z = len(right), 1.959964
    value = float(np.mean(right))
    middle, reach = value + z * z / (2 * n), z * np.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Estimate(value, float((middle - reach) / scale), float((middle + reach) / scale), n)


def agreement(
    judge: Judge, clips: Sequence[np.ndarray], attributes: Sequence[Mapping[str, Any]]
) -> dict[str, Estimate]:
    """How often the judge sees in a clip what was asked for, for each attribute and for all of what is asked at once.

    Args:
        judge: who looks.
        clips: see :meth:`Judge.examine`.
        attributes: what each clip should show, as in the metadata of the built-in world. What it says that the judge
            has no name for (``frames``, ``held_out``, ...) is passed over; what it does not say is not asked.

    Returns:
        By attribute, those never asked left out; ``all`` counts clips in which every attribute that was asked is
        right.

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
    seen = {key: chances.argmax(1) for key, chances in judge.attributes(clips).items()}
    right: dict[str, list[bool]] = {key: [] for key in (*names, "all")}
    for i, asked in enumerate(attributes):
        marks = {key: names[key][seen[key][i]] == asked[key] for key in names if key in asked}
        for key, mark in marks.items():
            right[key].append(mark)
        right["all"].append(all(marks.values()))
    return {key: share(np.array(marks)) for key, marks in right.items() if marks}


def text_agreement(
    judge: Judge, made: Sequence[np.ndarray], real: Sequence[np.ndarray], attributes: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Agreement of made clips with what was asked for, beside that of real ones, which is its ceiling.

    Args:
        judge: who looks.
        made: clips made for captions that say ``attributes``.
        real: the stickers that have them, as clips of the same lengths.
        attributes: of prepared stickers of the built-in world they stand in ``record.attributes``. Other stickers
            have none, and text agreement cannot be had of them.

    Returns:
        For ``seen`` and ``held_out`` (combinations that ``world.is_held_out`` keeps from training), those that occur,
        what :func:`agreement` says of ``made`` and of ``real``.

    Raises:
        ValueError: as :func:`agreement`, or other numbers of clips.
    """
    if not len(made) == len(real) == len(attributes):
        raise ValueError(f"{len(made)} made and {len(real)} real clips, but attributes of {len(attributes)}")
    for asked in attributes:
        if missing := [key for key in ("body", "colour", "action") if key not in asked]:
            raise ValueError(
                f"no {', '.join(missing)} among a sticker's attributes: text agreement can be had of stickers of the "
                "built-in world only"
            )
    novel = np.array([is_held_out(asked) for asked in attributes])
    found = {}
    for name, places in (("seen", np.flatnonzero(~novel)), ("held_out", np.flatnonzero(novel))):
        if len(places):
            told = [attributes[i] for i in places.tolist()]
            found[name] = {
                kind: agreement(judge, [clips[i] for i in places.tolist()], told)
                for kind, clips in (("made", made), ("real", real))
            }
    return found
