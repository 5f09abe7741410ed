"""The held-out loss: the loss on stickers that training never sees, with the same clips in every evaluation.

Clips, tasks, masks, captions, noise levels and noise are a function of the run's seed. Their random streams differ from
those of training steps. So the losses of a run differ only by its weights, and evaluations do not change the training.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rdtf.curriculum import Curriculum
from rdtf.data.dataset import StickerDataset
from rdtf.train.latents import LatentCache, cache_folder
from rdtf.train.network import Network
from rdtf.train.source import ClipSource, RankSlice
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
        self._source = ClipSource(
            latents, learner.net.text, Curriculum("none"), fixed, whole_captioned=learner.source.whole_captioned
        )

    @torch.no_grad()
    def evaluate(self, net: Network) -> dict[str, Any]:
        """Losses of a network. Each is a mean over clips, weighted by their number of frames as in training.

        Returns:
            ``loss``, and the same ``by_task``, ``by_unknown`` (number of unknown frames), ``by_noise`` (fifths of the
            noise level, ``"0.2"`` standing for 0.2 to 0.4), and the number of ``clips``.
        """
        learner, settings = self.learner, self.learner.settings
        sums: dict[str, dict[Any, np.ndarray]] = {"loss": {}, "by_task": {}, "by_unknown": {}, "by_noise": {}}
        for number in range(self.rounds):
            step = -1 - number  # training steps are not negative, so the random streams differ
            for batch in self._source.batches(step, 0.0, RankSlice(parts=settings.gradient_accumulation_steps)):
                t, eps = learner.noise(batch, step)
                batch = batch.to(learner.device)
                losses = learner.losses(batch, t.to(learner.device), eps.to(learner.device), net)
                columns = (losses, batch.valid.sum(1), (batch.valid & ~batch.known).sum(1), t)
                rows = torch.stack([column.cpu().double() for column in columns], 1).tolist()
                for (loss, frames, unknown, level), task in zip(rows, batch.tasks, strict=True):
                    fifth = min(int(level * _NOISE_BINS), _NOISE_BINS - 1) / _NOISE_BINS
                    for group, name in zip(sums.values(), ("", task.value, int(unknown), fifth), strict=True):
                        group[name] = group.get(name, 0) + np.array([loss * frames, frames])
        means = {
            name: {str(key): round(float(total / frames), 6) for key, (total, frames) in sorted(group.items())}
            for name, group in sums.items()
        }
        return {**means, "loss": means["loss"][""], "clips": self.clips}
