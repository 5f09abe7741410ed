"""Difficulty-adaptive curriculum: which task (and how many unknown frames) the next sample poses.

The paper splits the entropy of a sample into a static part, a schedule over training, and an adaptive part, a
PID-like controller on the loss; a task's sampling weight is their sum. Everything here is plain arithmetic on
numbers handed in; the state is a dictionary of lists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from rdtf.masks import GENERATION, PREDICTION, Task, unknown_counts

CURRICULA = ("none", "linear", "adaptive", "adaptive-normalised")

# Weights at the start, half and end of training (read from the authors' release, linear between).
_STATIC = {
    **dict.fromkeys(GENERATION, (0.1, 0.5, 0.9)),
    Task.INTERPOLATION: (0.9, 0.5, 0.1),
    **dict.fromkeys(PREDICTION, (0.7, 0.5, 0.3)),
}
# Adaptive weights, one column a row of the controller, easy to hard.
_ADAPTIVE = {
    **dict.fromkeys(GENERATION, (0.1, 0.3, 0.5, 0.7, 0.9)),
    Task.INTERPOLATION: (0.9, 0.7, 0.5, 0.3, 0.1),
    **dict.fromkeys(PREDICTION, (0.5,) * 5),
}
_ROWS = 5
_K_P, _K_I, _K_D = 5.0, 3.0, 1.3  # paper, Table 6
_WINDOW = 1000  # "recent", in steps
_WARM_UP = 10  # steps before a rank among recent values means anything
_TIMESTEP_BINS = 5
_MEAN_RATE, _LEVEL_RATE = 0.02, 0.05


@dataclass(frozen=True)
class SampleLoss:
    """What one sample of a step showed: its task, its number of unknown frames, its noise level, its mean loss."""

    task: Task
    unknown: int
    noise: float  # 0 (clean) to 1 (pure noise)
    loss: float


class Curriculum:
    """Draws tasks; learns from losses.

    Args:
        kind: ``none`` (all tasks alike), ``linear`` (the static schedule), ``adaptive`` (static + the paper's
            controller, with its rank read correctly), ``adaptive-normalised`` (ours: the controller reads each loss
            relative to the running mean for the same task, number of unknown frames and noise level, so that it does
            not react to its own dice, and it chooses the number of unknown frames too).
        task_weights: multiplies the weights of single tasks (1 where unnamed).

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
        self.level = 1.0

    @property
    def row(self) -> int:
        """The controller's row, 0 (easy) to 4 (hard).

        The newest signal's rank among the recent ones, in five equal parts: a high one (struggling) gives an easy
        row, a low one a hard row. It starts at the easy row.
        """
        if not self.kind.startswith("adaptive") or len(self.signals) < _WARM_UP:
            return 0
        below = sum(signal < self.signals[-1] for signal in self.signals)
        percentile = below / (len(self.signals) - 1)
        return _ROWS - 1 - min(int(percentile * _ROWS), _ROWS - 1)

    def weights(self, progress: float) -> dict[Task, float]:
        """Sampling weights (sum 1) at ``progress`` in 0..1 of the training."""
        raw = {}
        for task in Task:
            weight = 1.0
            if self.kind != "none":
                weight = float(np.interp(progress, (0.0, 0.5, 1.0), _STATIC[task]))
            if self.kind.startswith("adaptive"):
                weight += _ADAPTIVE[task][self.row]
            raw[task] = weight * self.task_weights[task]
        total = sum(raw.values())
        return {task: weight / total for task, weight in raw.items()}

    def draw(self, progress: float, num_frames: int, rng: np.random.Generator) -> tuple[Task, int | None]:
        """A task that can be posed on ``num_frames`` and, if this curriculum chooses it, the number of unknown ones."""
        weights = self.weights(progress)
        tasks = [task for task in Task if len(unknown_counts(task, num_frames))]
        shares = np.array([weights[task] for task in tasks])
        if not shares.sum():  # only tasks that the user switched off fit so short a clip
            shares = np.ones(len(tasks))
        task = tasks[rng.choice(len(tasks), p=shares / shares.sum())]
        counts = unknown_counts(task, num_frames)
        if self.kind != "adaptive-normalised" or len(counts) == 1:
            return task, None
        # The row's fifth of the range, softened so that every count keeps a chance.
        centre = (self.row + rng.uniform(-1, 2)) / _ROWS
        return task, counts[int(np.clip(centre, 0, 0.999) * len(counts))]

    def observe(self, samples: Sequence[SampleLoss]) -> None:
        """Feed one step's losses: P = K_p L_t + K_i mean(L) + K_d (L_t - L_{t-1}), K from the paper's Table 6."""
        if not samples:
            return
        if self.kind == "adaptive-normalised":
            ratio = fmean(self._normalised(sample) for sample in samples)
            loss = ratio * self.level
            self.level *= 1 + _LEVEL_RATE * (ratio - 1)
        else:
            loss = fmean(sample.loss for sample in samples)
        previous = self.losses[-1] if self.losses else loss
        self.losses.append(loss)
        self.signals.append(_K_P * loss + _K_I * fmean(self.losses) + _K_D * (loss - previous))

    def _normalised(self, sample: SampleLoss) -> float:
        """The loss relative to what is usual for its kind at the level reached so far.

        What all kinds have in common goes into the level. Relative to lagging means alone, a loss that has fallen
        and come to rest would seem to rise while the means catch up.
        """
        noise_bin = min(int(sample.noise * _TIMESTEP_BINS), _TIMESTEP_BINS - 1)
        key = f"{sample.task.value}/{sample.unknown}/{noise_bin}"
        mean = self.means.setdefault(key, sample.loss / self.level)
        ratio = sample.loss / max(mean * self.level, 1e-12)
        self.means[key] = mean * (1 + _MEAN_RATE * (ratio - 1))
        return ratio

    def state_dict(self) -> dict[str, Any]:
        """Everything learned, as JSON-able values."""
        return {
            "losses": list(self.losses),
            "signals": list(self.signals),
            "means": dict(self.means),
            "level": self.level,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.losses = deque(state["losses"], maxlen=_WINDOW)
        self.signals = deque(state["signals"], maxlen=_WINDOW)
        self.means = dict(state["means"])
        self.level = state["level"]
