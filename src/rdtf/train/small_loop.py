"""The loop of short trainings, as of codecs and judges: minutes long, without checkpoints, ended by Ctrl-C."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rdtf.progress import bars, console
from rdtf.train.optim import lr_factor

_WARM_UP = 50
_REPORT_SECONDS = 60.0  # seconds between status lines if there is no terminal for a progress bar


@dataclass(frozen=True)
class ShortTraining:
    """How a short training ended.

    Attributes:
        steps: optimiser steps done. loss: running mean at the end. stopped_early: whether Ctrl-C ended it.
    """

    steps: int
    loss: float
    stopped_early: bool


def train_shortly(
    name: str,
    model: nn.Module,
    average: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    loss_of: Callable[[int], Tensor],
    *,
    steps: int,
    minutes: float | None,
    ema_decay: float,
) -> ShortTraining:
    """Train ``model``, and keep the running mean of its weights and buffers in ``average``.

    Args:
        loss_of: the loss of a step, counted from 0.
        steps: optimiser steps.
        minutes: stop earlier, at this wall-clock time; the learning rates then follow the clock.

    Raises:
        ValueError: the loss is not finite.
    """
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group.setdefault("base_lr", group["lr"])
    step, smooth, begin = 0, math.nan, time.monotonic()
    limit = math.inf if minutes is None else 60 * minutes
    reported = begin
    with bars() as progress:
        bar = progress.add_task(name.capitalize(), total=1000, note="")
        try:
            while (part := max(step / steps, (time.monotonic() - begin) / limit)) < 1:
                for optimizer in optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = group["base_lr"] * lr_factor(step, part, warmup_steps=_WARM_UP, decay=True)
                loss = _step(name, model, optimizers, loss_of(step))
                step += 1
                _follow(average, model, min(ema_decay, step / (9 + step)))
                smooth = loss if step == 1 else smooth + max(0.02, 1 / step) * (loss - smooth)
                progress.update(bar, completed=int(1000 * part), note=f"step {step}, loss {smooth:.4f}")
                if not console.is_terminal and time.monotonic() - reported >= _REPORT_SECONDS:
                    reported = time.monotonic()
                    console.print(f"{name}: step {step}, {part:.0%}, loss {smooth:.4f}, {reported - begin:.0f} s")
            progress.update(bar, completed=1000)
        except KeyboardInterrupt:
            return ShortTraining(step, smooth, True)
    return ShortTraining(step, smooth, False)


def _step(name: str, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], loss: Tensor) -> float:
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    value = loss.item()
    if not math.isfinite(value):
        raise ValueError(f"the {name}'s loss became {value}; lower learning_rate")
    for optimizer in optimizers:
        optimizer.step()
    return value


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    for slow, quick in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if slow.is_floating_point():  # BatchNorm's counters are integers
            slow.lerp_(quick, 1 - keep)
