"""Training of the namer on the frames of a prepared dataset, and its test on drawings that it never saw.

python benchmarks/train_namer.py data/mine namers/mine --name-by emoji
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from rdtf.data.dataset import StickerDataset
from rdtf.device import best_device
from rdtf.evaluate.judge import to_frames
from rdtf.evaluate.namer import CAPTION, TOP, Namer, NamerConfig, sticker_name
from rdtf.files import atomic_file, write_text
from rdtf.progress import console
from rdtf.rng import numpy_rng, torch_rng
from rdtf.sheets import contact_sheet
from rdtf.train.small_loop import ShortReport, ShortSettings, ShortTraining

EMA_DECAY = 0.998
FEWEST_DRAWINGS = 3
"""Least number of drawings of a name, of which one may be left out for the test."""
SHOWN_COVERAGE = 0.02  # emptier frames are not used
SHEET_ROWS = 12


class NamerTrainSettings(ShortSettings):
    """Settings of ``train_namer``.

    Attributes:
        name_by: ``caption``, or the metadata field that names a sticker (``emoji``).
        batch: frames per step.
        size: size of the network's input in pixels.
        left_out: probability that one drawing of a name with 3 or more is left out for the test.
    """

    name_by: str = CAPTION
    steps: int = Field(6000, ge=1)
    batch: int = Field(64, ge=2)
    size: int = Field(64, ge=16, le=256, multiple_of=16)
    left_out: float = Field(0.15, ge=0, le=1)
    learning_rate: float = Field(3e-3, gt=0)


class NamerReport(ShortReport[NamerTrainSettings]):
    """Settings and quality of a training: ``report.json`` beside the weights.

    Attributes:
        drawings: stickers of the training. left_out: other stickers, whose names occur in the training.
        named, named_top_5: fractions of the left-out drawings, one frame of each.
    """

    data: str
    digest: str
    names: int
    drawings: int
    left_out: int
    named: float | None
    named_top_5: float | None


def split_drawings(names: list[str], left_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the drawings for training and for the test. Stickers without a name are in neither."""
    drawings = defaultdict(list)
    for position, name in enumerate(names):
        if name:
            drawings[name].append(position)
    kept = []
    for name, positions in sorted(drawings.items()):
        rng = numpy_rng(seed, 0, f"namer/{name}")
        if len(positions) >= FEWEST_DRAWINGS and rng.random() < left_out:
            kept.append(positions[int(rng.integers(len(positions)))])
    proof = np.array(sorted(kept), int)
    return np.setdiff1d([position for position, name in enumerate(names) if name], proof), proof


def draw_frame(dataset: StickerDataset, position: int, rng: np.random.Generator) -> np.ndarray:
    """A random frame ``(1, s, s, 4)`` of a sticker that is not almost empty."""
    frames = dataset.frames(position)
    shown = np.flatnonzero(frames[..., 3].mean((1, 2)) > 255 * SHOWN_COVERAGE)
    return frames[[int(rng.choice(shown)) if len(shown) else 0]]


def augmented(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Frames ``(n, 4, s, s)``, premultiplied in [0, 1], turned, scaled, moved, recoloured a little, some blurred."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(frames), *shape, generator=generator)

    angle, scale = uniform(-0.25, 0.25), torch.exp(uniform(math.log(0.9), math.log(1.6)))
    cos, sin, shift = angle.cos() * scale, angle.sin() * scale, uniform(-0.15, 0.15, 2)
    matrix = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(matrix, list(frames.shape), align_corners=False)
    moved = F.grid_sample(frames, grid, align_corners=False)
    mixed = torch.eye(3) + 0.12 * torch.randn(len(frames), 3, 3, generator=generator)
    colour = torch.einsum("nij,njhw->nihw", mixed, moved[:, :3])
    alpha = moved[:, 3:]
    out = torch.cat([torch.minimum(colour.clamp(min=0), alpha), alpha], 1)
    side = frames.shape[-1]
    small = F.interpolate(F.avg_pool2d(out, 4), (side, side), mode="bilinear", align_corners=False)
    blur = uniform(-1.0, 1.0, 1, 1, 1).clamp(min=0)
    return out + blur * (small - out)


def train_namer(data: Path, out: Path, settings: NamerTrainSettings) -> NamerReport:
    """Train a namer on all splits of a dataset except the left-out drawings, and measure it on the left-out drawings.

    All splits are used because the namer must know every name. Generators learn from the train split alone. Writes into
    ``out``: ``config.json``, ``model.safetensors``, ``report.json`` and ``wrong.png`` with left-out drawings that it
    does not name. Ctrl-C ends the training early; the namer is then measured and saved as it is.

    Raises:
        ValueError: ``out`` is not empty, there are fewer than two names, or a loss is not finite.
    """
    training = ShortTraining("namer", out, settings)
    settings = training.settings
    dataset = StickerDataset(data)
    records = [dataset.record(i) for i in range(len(dataset))]
    drawn = [sticker_name(record.caption, record.attributes, settings.name_by) for record in records]
    shown, proof = split_drawings(drawn, settings.left_out, settings.seed)
    names = tuple(sorted({drawn[i] for i in shown}))
    if len(names) < 2:
        raise ValueError(
            f"{data}: its stickers have {len(names)} names by {settings.name_by!r}; a namer needs 2 or more"
        )
    number = {name: i for i, name in enumerate(names)}
    label = np.array([number.get(name, -1) for name in drawn])
    device = best_device()
    namer = Namer(NamerConfig(size=settings.size, name_by=settings.name_by, names=names)).to(device)
    optimizer = torch.optim.AdamW(namer.parameters(), lr=settings.learning_rate, weight_decay=0.05)
    order: dict[int, np.ndarray] = {}

    def drawing(place: int) -> int:
        epoch, at = divmod(place, len(shown))
        if epoch not in order:
            order.clear()
            order[epoch] = numpy_rng(settings.seed, epoch, "namer/order").permutation(shown)
        return int(order[epoch][at])

    def loss_of(step: int) -> Tensor:
        rng = numpy_rng(settings.seed, step, "namer/frames")
        chosen = [drawing(step * settings.batch + i) for i in range(settings.batch)]
        frames = to_frames([draw_frame(dataset, position, rng) for position in chosen], settings.size)
        frames = augmented(frames, torch_rng(settings.seed, step, "namer/augment")).to(device)
        target = torch.from_numpy(label[chosen]).to(device)
        return F.cross_entropy(namer(frames), target, label_smoothing=0.1)

    average, facts = training.train(namer, [optimizer], loss_of, EMA_DECAY)
    average.save(out)
    saved = Namer.load(out)
    frames = [draw_frame(dataset, int(i), numpy_rng(settings.seed, int(i), "namer/proof")) for i in proof]
    right = label[proof]
    ranks = _ranks(saved, frames, right)
    report = NamerReport(
        **facts,
        data=dataset.fingerprint,
        digest=saved.digest,
        names=len(names),
        drawings=len(shown),
        left_out=len(proof),
        named=round(float((ranks == 0).mean()), 4) if len(proof) else None,
        named_top_5=round(float((ranks < TOP).mean()), 4) if len(proof) else None,
    )
    write_text(out / "report.json", report.model_dump_json(indent=2) + "\n")
    if missed := [i for i in range(len(proof)) if ranks[i] >= TOP][: 4 * SHEET_ROWS]:
        with atomic_file(out / "wrong.png") as file:
            _sheet(saved, [frames[i] for i in missed], [drawn[proof[i]] for i in missed]).save(file, "PNG")
    return report


def _ranks(namer: Namer, frames: list[np.ndarray], right: np.ndarray) -> np.ndarray:
    """The number of names that are likelier than the right one, for each single-frame clip."""
    if not frames:
        return np.zeros(0, int)
    chances = np.concatenate([namer.chances(frame) for frame in frames])
    return np.asarray((chances > chances[np.arange(len(right)), right][:, None]).sum(1))


def _sheet(namer: Namer, frames: list[np.ndarray], right: list[str]) -> Image.Image:
    seen = [namer.config.names[int(namer.chances(frame)[0].argmax())] for frame in frames]
    labels = [f"{name}, seen as {other}" for name, other in zip(right, seen, strict=True)]
    return contact_sheet(frames[:SHEET_ROWS], labels=labels[:SHEET_ROWS], frames=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared dataset; all its splits are used")
    parser.add_argument("out", type=Path, help="the new namer's folder")
    for name, field in NamerTrainSettings.model_fields.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=f"default: {field.default}")
    given = vars(parser.parse_args())
    console.print(train_namer(given.pop("data"), given.pop("out"), NamerTrainSettings.model_validate(given)))


if __name__ == "__main__":
    main()
