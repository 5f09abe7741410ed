"""Sampling: from noise to clean latents along a scheduler's noise levels, around given frames."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rdtf.diffusion.objective import TRAIN_TIMESTEPS
from rdtf.diffusion.schedulers import network_input, noised_at, scheduler_output, with_steps

OnStep = Callable[[int, Tensor, Tensor], Tensor]
"""Called after each step with its index, its timestep and the latents. Returns the latents for the next step."""


@dataclass(frozen=True)
class Start:
    """Sampling from noised latents instead of pure noise (SDEdit, arXiv 2108.01073).

    Attributes:
        latents: ``(b, c, f, h, w)``, clean.
        level: noise level in (0, 1]. Sampling starts at the scheduler's first timestep that is not above the level.
    """

    latents: Tensor
    level: float


@torch.no_grad()
def sample(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: Any,
    noise: Float[Tensor, "b c f h w"],
    known_video: Float[Tensor, "b c f h w"],
    known: Bool[Tensor, "b f"],
    *,
    prediction: str,
    steps: int,
    start: Start | None = None,
    eta: float = 0.0,
    generators: Sequence[torch.Generator] | None = None,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b c f h w"]:
    """Clean latents. The scheduler is copied, so a call leaves no state behind and calls may overlap.

    Args:
        predict: the network with guidance, called with noisy latents and one timestep.
        scheduler: a scheduler that passes :func:`rdtf.diffusion.schedulers.check_scheduler`.
        noise: unit normal.
        known_video: latents of the given frames; other frames are not used.
        known: True for given frames. They return unchanged.
        prediction: kind of output of ``predict``, see :class:`~rdtf.diffusion.objective.Objective`.
        steps: number of noise levels of the scheduler.
        eta: noise that DDIM adds in each step, as a fraction.
        generators: one for each clip, for schedulers that add noise in each step.
    """
    scheduler = with_steps(scheduler, steps, noise.device)
    accepted = inspect.signature(scheduler.step).parameters
    extra = {"eta": eta, "generator": list(generators) if generators else None}
    extra = {name: value for name, value in extra.items() if value and name in accepted}
    timesteps = scheduler.timesteps
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    if start is not None:
        timesteps = timesteps[timesteps <= max(start.level * TRAIN_TIMESTEPS, float(timesteps.min()))]
        latents = noised_at(scheduler, start.latents, noise, timesteps[0])
    given = known[:, None, :, None, None]
    for index, timestep in enumerate(timesteps):
        # Given frames are noised as in training.
        latents = torch.where(given, noised_at(scheduler, known_video, noise, timestep), latents)
        shown = network_input(scheduler, latents, timestep)
        step_output = scheduler_output(scheduler, prediction, predict(shown, timestep), shown, timestep)
        latents = scheduler.step(step_output, timestep, latents, **extra).prev_sample
        if on_step is not None:
            latents = on_step(index, timestep, latents)
    return torch.where(given, known_video, latents)
