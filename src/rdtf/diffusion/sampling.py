"""Sampling: from noise to clean latents along a scheduler's noise levels, around given frames."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rdtf.diffusion.objective import TRAIN_TIMESTEPS, Scheduler, noised_at, scheduler_output, set_steps


@dataclass(frozen=True)
class Start:
    """Sampling that begins with noised latents instead of pure noise (SDEdit, arXiv 2108.01073).

    Attributes:
        latents: ``(b, c, f, h, w)``, clean.
        level: noise level in (0, 1]; sampling begins at the first timestep of the scheduler that is not above it.
    """

    latents: Tensor
    level: float


@torch.no_grad()
def sample(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: Scheduler,
    noise: Float[Tensor, "b c f h w"],
    known_video: Float[Tensor, "b c f h w"],
    known: Bool[Tensor, "b f"],
    *,
    prediction: str,
    steps: int,
    start: Start | None = None,
    eta: float = 0.0,
    draw_noise: Callable[[], Tensor] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "b c f h w"]:
    """Clean latents. The scheduler is copied, so a call leaves no state behind and calls may overlap.

    Args:
        predict: the network with guidance, called with noisy latents and one timestep.
        noise: unit normal.
        known_video: latents of the given frames; other frames are not looked at.
        known: True for given frames. They return unchanged.
        prediction: what ``predict`` puts out, see :class:`~rdtf.diffusion.objective.Objective`.
        steps: number of noise levels of the scheduler.
        eta, draw_noise: of DDIM: fraction of the noise that is added back, and where that comes from.
        on_step: called with the number of steps done and of all steps.
    """
    scheduler = copy.deepcopy(scheduler)
    set_steps(scheduler, steps, noise.device)
    timesteps = scheduler.timesteps
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    if start is not None:
        timesteps = timesteps[timesteps <= max(start.level * TRAIN_TIMESTEPS, float(timesteps.min()))]
        latents = noised_at(scheduler, start.latents, noise, timesteps[0])
    given = known[:, None, :, None, None]
    for done, timestep in enumerate(timesteps):
        # In training, given frames are noised like the others; so they are here.
        latents = torch.where(given, noised_at(scheduler, known_video, noise, timestep), latents)
        output = predict(latents, timestep)
        step_output = scheduler_output(scheduler, prediction, output, latents, timestep)
        extra = {"eta": eta, "variance_noise": draw_noise()} if eta and draw_noise is not None else {}
        latents = scheduler.step(step_output, timestep, latents, **extra).prev_sample
        if on_step is not None:
            on_step(done + 1, len(timesteps))
    return torch.where(given, known_video, latents)
