"""The held-out loss: the loss on stickers that training never sees, with the same clips in every evaluation.

Clips, tasks, masks, captions, noise levels and noise are a function of the run's seed. Their random streams differ from
those of training steps. So the losses of a run differ only by its weights, and evaluations do not change the training.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from rdtf.curriculum import Curriculum
from rdtf.data.dataset import StickerDataset
from rdtf.train.latents import LatentCache, cache_folder
from rdtf.train.network import Network
from rdtf.train.source import ClipSource, Share
from rdtf.train.step import Learner

HELD_OUT_LOG = "eval.jsonl"
"""File in a run's folder with one line for each evaluation."""
_SPLIT = "val"
_NOISE_BINS = 5


class HeldOut:
    """A fixed sample of the ``val`` split.

    All tasks have the same probability. Captions are complete. Mirroring is the only augmentation. ``still_fraction``
    and ``frames`` are the training's.

    Args:
        learner: gives codec, text encoder, settings and noise.
        data, run: the prepared dataset and the run's folder, for the cache of latents.

    Attributes:
        clips: number of clips; 0 if the split is empty.
        rounds: number of batches. Batches have the training's size.
    """

    def __init__(self, learner: Learner, data: Path, run: Path) -> None:
        self.learner, settings = learner, learner.settings
        dataset = StickerDataset(data, _SPLIT)
        self.rounds = math.ceil(settings.eval_clips / settings.batch_size) if len(dataset) else 0
        self.clips = self.rounds * settings.batch_size
        if not self.clips:
            return
        latents = LatentCache(dataset, learner.codec, cache_folder(data, run))
        whole = {"caption_dropout": 0.0, "fill_caption_dropout": 0.0, "word_dropout": 0.0, "num_augmented": 0}
        fixed = settings.model_copy(update=whole)
        self._source = ClipSource(latents, learner.net.text, Curriculum("none"), fixed)

    @torch.no_grad()
    def evaluate(self, net: Network, rounds: int | None = None) -> dict[str, Any]:
        """Losses of a network. Each is a mean over clips, weighted by their number of frames as in training.

        Returns:
            ``loss``, and the same ``by_task``, ``by_unknown`` (number of unknown frames), ``by_noise`` (fifths of the
            noise level, ``"0.2"`` standing for 0.2 to 0.4), and the number of ``clips``.
        """
        learner, settings = self.learner, self.learner.settings
        table: list[tuple[float, float, str, int, float]] = []
        for number in range(self.rounds if rounds is None else rounds):
            step = -1 - number  # training steps are not negative, so the random streams differ
            for batch in self._source.batches(step, 0.0, Share(parts=settings.gradient_accumulation_steps)):
                t, eps = learner.noise(batch, step)
                batch = batch.to(learner.device)
                losses = learner.losses(batch, t.to(learner.device), eps.to(learner.device), net)
                unknown = (batch.valid & ~batch.known).sum(1)
                columns = [column.cpu().double().tolist() for column in (losses, batch.valid.sum(1), t)]
                table += zip(
                    *columns[:2], [task.value for task in batch.tasks], unknown.tolist(), columns[2], strict=True
                )
        sums_by: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for loss, frames, task, missing, level in table:
            fifth = min(int(level * _NOISE_BINS), _NOISE_BINS - 1) / _NOISE_BINS
            for key in (("", ""), ("by_task", task), ("by_unknown", f"{missing:02d}"), ("by_noise", str(fifth))):
                sums_by[key][0] += loss * frames
                sums_by[key][1] += frames
        means = {key: round(total / frames, 6) for key, (total, frames) in sorted(sums_by.items())}
        groups = {
            group: {
                name.lstrip("0") if group == "by_unknown" else name: m for (g, name), m in means.items() if g == group
            }
            for group in ("by_task", "by_unknown", "by_noise")
        }
        return {"loss": means[("", "")], **groups, "clips": len(table)}


def cut_evaluations(path: Path, step: int) -> int:
    """Remove evaluations after ``step`` and incomplete lines.

    Returns:
        the step of the last evaluation left; -1 if none is left.
    """
    last, size = -1, 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                try:
                    at = int(json.loads(line)["step"]) if line.endswith(b"\n") else step + 1
                except (ValueError, TypeError, KeyError):
                    break
                if not last < at <= step:
                    break
                last, size = at, size + len(line)
        with path.open("r+b") as file:
            file.truncate(size)
    return last
