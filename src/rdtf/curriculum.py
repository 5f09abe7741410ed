"""Difficulty-adaptive curriculum: which task (and how many unknown frames) the next sample poses.

The paper splits the difficulty of a sample into a static part (a schedule over training) and an adaptive part (a
PID-like controller on the loss). The sampling weight of a task is their sum. This module only computes with the numbers
it is given; its state is a dictionary of lists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from rdtf.masks import GENERATION, PREDICTION, Task, unknown_counts

CURRICULA = ("none", "linear", "adaptive", "adaptive-normalised", "adaptive-reversed", "adaptive-constant")
_CHOOSE_COUNTS = ("adaptive-normalised", "adaptive-reversed", "adaptive-constant")

# Weights at the start, half and end of training (read from the authors' release, linear between).
_STATIC = {
    **dict.fromkeys(GENERATION, (0.1, 0.5, 0.9)),
    Task.INTERPOLATION: (0.9, 0.5, 0.1),
    **dict.fromkeys(PREDICTION, (0.7, 0.5, 0.3)),
}
# Adaptive weights, one for each difficulty, easy to hard.
_ADAPTIVE = {
    **dict.fromkeys(GENERATION, (0.1, 0.3, 0.5, 0.7, 0.9)),
    Task.INTERPOLATION: (0.9, 0.7, 0.5, 0.3, 0.1),
    **dict.fromkeys(PREDICTION, (0.5,) * 5),
}
_DIFFICULTIES = 5
_K_P, _K_I, _K_D = 5.0, 3.0, 1.3  # paper, Table 6
_WINDOW = 1000  # "recent", in steps
_MIN_SIGNALS = 10  # steps before a rank among recent values means anything
_PERIODIC_FRACTION = 0.5  # of the in-between masks are the paper's periodic ones, which people ask for most
_ANY_COUNT_FRACTION = 0.25  # of the drawn counts are uniform, so that no count is ever forgotten
_TIMESTEP_BINS = 5
_MEAN_RATE, _SCALE_RATE = 0.02, 0.05


@dataclass(frozen=True)
class SampleLoss:
    """The loss of one sample of a step.

    Attributes:
        unknown: number of unknown frames. noise: t, from 0 (clean) to 1 (pure noise). loss: its mean.
    """

    task: Task
    unknown: int
    noise: float
    loss: float


class Curriculum:
    """Draws tasks; learns from losses.

    Args:
        kind: ``none`` (equal weights), ``linear`` (the static schedule), ``adaptive`` (static + the paper's controller,
            with its rank read correctly), ``adaptive-normalised`` (ours). Ours divides each loss by the running mean
            for the same task, number of unknown frames and noise, so that the controller does not react to what it
            drew itself. It also chooses the number of unknown frames. Two kinds are for experiments with ours:
            ``adaptive-reversed`` reads the controller the other way round, ``adaptive-constant`` stays at the hard end.
        task_weights: factors on the weights of tasks (1 if not named).

    Attributes:
        difficulty: of the next draws, 0 (easy) to 4 (hard); :meth:`observe` computes it once a step.
        loss_scale: the loss that all kinds of samples have in common, relative to the start.

    Raises:
        ValueError: unknown kind or task name, or weights that are negative or all zero.
    """

    def __init__(self, kind: str, task_weights: Mapping[str, float] | None = None) -> None:
        if kind not in CURRICULA:
            raise ValueError(f"unknown curriculum {kind!r}; choose one of {', '.join(CURRICULA)}")
        self.kind = kind
        self.task_weights = dict.fromkeys(Task, 1.0)
        for name, weight in (task_weights or {}).items():
            if name not in {task.value for task in Task}:
                raise ValueError(f"unknown task {name!r}; choose from {', '.join(t.value for t in Task)}")
            self.task_weights[Task(name)] = float(weight)
        if min(self.task_weights.values()) < 0 or max(self.task_weights.values()) == 0:
            raise ValueError("task weights must be at least 0, and one of them above 0")
        self.losses: deque[float] = deque(maxlen=_WINDOW)
        self.signals: deque[float] = deque(maxlen=_WINDOW)
        self.means: dict[str, float] = {}
        self.loss_scale = 1.0
        self.difficulty = self._rank_difficulty()

    def _rank_difficulty(self) -> int:
        """0 (easy) to 4 (hard), from the rank of the newest signal among the recent ones, in five equal parts.

        A high signal (the network struggles) gives an easy difficulty, a low signal a hard one. The start is easy.
        """
        if self.kind == "adaptive-constant":
            return _DIFFICULTIES - 1
        if not self.kind.startswith("adaptive") or len(self.signals) < _MIN_SIGNALS:
            return 0
        below = sum(signal < self.signals[-1] for signal in self.signals)
        percentile = below / (len(self.signals) - 1)
        rank = min(int(percentile * _DIFFICULTIES), _DIFFICULTIES - 1)
        return rank if self.kind == "adaptive-reversed" else _DIFFICULTIES - 1 - rank

    def weights(self, progress: float) -> dict[Task, float]:
        """Sampling weights (sum 1) at ``progress`` in 0..1 of the training."""
        raw = {}
        for task in Task:
            weight = 1.0
            if self.kind != "none":
                weight = float(np.interp(progress, (0.0, 0.5, 1.0), _STATIC[task]))
            if self.kind.startswith("adaptive"):
                weight += _ADAPTIVE[task][self.difficulty]
            raw[task] = weight * self.task_weights[task]
        total = sum(raw.values())
        return {task: weight / total for task, weight in raw.items()}

    def draw(self, progress: float, num_frames: int, rng: np.random.Generator) -> tuple[Task, int | None]:
        """A task that ``num_frames`` allow and, if this kind chooses it, the number of unknown frames."""
        weights = self.weights(progress)
        tasks = [task for task in Task if len(unknown_counts(task, num_frames))]
        chances = np.array([weights[task] for task in tasks])
        if not chances.sum():  # the user switched off all tasks that a clip this short allows
            chances = np.ones(len(tasks))
        task = tasks[rng.choice(len(tasks), p=chances / chances.sum())]
        counts = unknown_counts(task, num_frames)
        if self.kind not in _CHOOSE_COUNTS:
            return task, None
        if task is Task.INTERPOLATION and rng.random() < _PERIODIC_FRACTION:
            return task, None
        if rng.random() < _ANY_COUNT_FRACTION:
            return task, counts[int(rng.integers(len(counts)))]
        # The fifth of the counts that the difficulty names, and its neighbours.
        place = (self.difficulty + rng.uniform(-1, 2)) / _DIFFICULTIES
        return task, counts[int(np.clip(place, 0, 0.999) * len(counts))]

    def observe(self, samples: Sequence[SampleLoss]) -> None:
        """Take in the losses of a step: P = K_p L_t + K_i mean(L) + K_d (L_t - L_{t-1}), K from Table 6 (paper)."""
        if not samples:
            return
        if self.kind in _CHOOSE_COUNTS:
            ratio = fmean(self._normalised(sample) for sample in samples)
            loss = ratio * self.loss_scale
            self.loss_scale *= 1 + _SCALE_RATE * (ratio - 1)
        else:
            loss = fmean(sample.loss for sample in samples)
        previous = self.losses[-1] if self.losses else loss
        self.losses.append(loss)
        self.signals.append(_K_P * loss + _K_I * fmean(self.losses) + _K_D * (loss - previous))
        self.difficulty = self._rank_difficulty()

    def _normalised(self, sample: SampleLoss) -> float:
        """The loss divided by the mean of its kind times ``loss_scale``.

        ``loss_scale`` follows what all kinds have in common. Without it, a loss that has fallen and come to rest would
        seem to rise while the slower means catch up.
        """
        noise_bin = min(int(sample.noise * _TIMESTEP_BINS), _TIMESTEP_BINS - 1)
        key = f"{sample.task.value}/{sample.unknown}/{noise_bin}"
        mean = self.means.setdefault(key, sample.loss / self.loss_scale)
        ratio = sample.loss / max(mean * self.loss_scale, 1e-12)
        self.means[key] = mean * (1 + _MEAN_RATE * (ratio - 1))
        return ratio

    def state_dict(self) -> dict[str, Any]:
        """Everything learned, as JSON-able values."""
        return {
            "losses": list(self.losses),
            "signals": list(self.signals),
            "means": dict(self.means),
            "loss_scale": self.loss_scale,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.losses = deque(state["losses"], maxlen=_WINDOW)
        self.signals = deque(state["signals"], maxlen=_WINDOW)
        self.means = dict(state["means"])
        self.loss_scale = state["loss_scale"]
        self.difficulty = self._rank_difficulty()
