"""Short trainings, as of codecs and judges: minutes long, without checkpoints, ended by Ctrl-C."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from rdtf.files import check_new_folder
from rdtf.progress import bars, console
from rdtf.train.hardware import choose_precision, keep_freed_memory, set_threads
from rdtf.train.optim import lr_factor

_WARM_UP = 50
_REPORT_SECONDS = 60.0  # seconds between status lines if there is no terminal for a progress bar

Model = TypeVar("Model", bound=nn.Module)


class ShortSettings(BaseModel):
    """Settings of all short trainings.

    Attributes:
        steps: optimiser steps.
        minutes: stop earlier, at this wall-clock time. The learning rate then follows the clock, so two runs differ.
        learning_rate: peak rate of AdamW.
        seed: seed of weights and draws.
        threads: CPU threads; None stands for torch's default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(1000, ge=1)
    minutes: float | None = Field(None, gt=0)
    learning_rate: float = Field(2e-3, gt=0)
    seed: int = 0
    threads: int | None = Field(None, ge=1)


Settings = TypeVar("Settings", bound=ShortSettings)


class ShortReport(BaseModel, Generic[Settings]):
    """What a short training was and how it ended.

    Attributes:
        seconds: wall-clock time from the call to the end of the training. stopped_early: whether Ctrl-C ended it.
        final_loss: running mean of the loss.
    """

    command: str
    settings: Settings
    parameters: int
    steps: int
    seconds: float
    stopped_early: bool
    final_loss: float


class ShortTraining:
    """A short training, whose result goes into a new folder. The constructor prepares torch.

    Attributes:
        settings: the given settings, with the number of threads.

    Raises:
        ValueError: ``out`` is not empty.
    """

    def __init__(self, name: str, out: Path, settings: ShortSettings) -> None:
        check_new_folder(out)
        keep_freed_memory()
        torch.manual_seed(settings.seed)
        self.name, self._began = name, time.monotonic()
        self.settings: Any = settings.model_copy(update={"threads": set_threads(settings.threads)})

    def choose_precision(self, device: torch.device, width: int) -> bool:
        """Decide the setting ``precision`` if it is ``auto``. Returns whether it is bf16.

        Args:
            width: channels of the model's widest layer.
        """
        if self.settings.precision == "auto":
            self.settings = self.settings.model_copy(update={"precision": choose_precision(device, width)[0]})
        return self.settings.precision == "bf16"

    def train(
        self,
        model: Model,
        optimizers: Sequence[torch.optim.Optimizer],
        loss_of: Callable[[int], Tensor],
        ema_decay: float,
    ) -> tuple[Model, dict[str, Any]]:
        """Train a model.

        Args:
            loss_of: the loss of a step, counted from 0.

        Returns:
            a model with the running mean of weights and buffers, and the values of a :class:`ShortReport`.

        Raises:
            ValueError: the loss is not finite.
        """
        settings, average = self.settings, deepcopy(model)
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group in groups:
            group.setdefault("base_lr", group["lr"])
        step, smooth, stopped = 0, math.nan, False
        reported = begin = time.monotonic()
        limit = 60 * (settings.minutes or math.inf)
        with bars() as progress:
            bar = progress.add_task(self.name.capitalize(), total=1000, note="")
            try:
                while (part := max(step / settings.steps, (time.monotonic() - begin) / limit)) < 1:
                    for group in groups:
                        group["lr"] = group["base_lr"] * lr_factor(step, part, warmup_steps=_WARM_UP, decay=True)
                    loss = self._step(model, optimizers, loss_of(step))
                    step += 1
                    _follow(average, model, min(ema_decay, step / (9 + step)))
                    smooth = loss if step == 1 else smooth + max(0.02, 1 / step) * (loss - smooth)
                    progress.update(bar, completed=int(1000 * part), note=f"step {step}, loss {smooth:.4f}")
                    if not console.is_terminal and time.monotonic() - reported >= _REPORT_SECONDS:
                        reported = time.monotonic()
                        spent = f"{reported - begin:.0f} s"
                        console.print(f"{self.name}: step {step}, {part:.0%}, loss {smooth:.4f}, {spent}")
            except KeyboardInterrupt:
                stopped = True
        return average, {
            "command": shlex.join(["rdtf", *sys.argv[1:]]),
            "settings": settings,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "steps": step,
            "seconds": round(time.monotonic() - self._began, 1),
            "stopped_early": stopped,
            "final_loss": smooth,
        }

    def _step(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], loss: Tensor) -> float:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        value = loss.item()
        if not math.isfinite(value):
            raise ValueError(f"the {self.name}'s loss became {value}; lower learning_rate")
        for optimizer in optimizers:
            optimizer.step()
        return value


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    for slow, quick in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if slow.is_floating_point():  # BatchNorm's counters are integers
            slow.lerp_(quick, 1 - keep)
