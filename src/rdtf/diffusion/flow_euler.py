"""Euler's method on the flow path, equal to diffusers' scheduler of the same name with a shift and no other options.

It is the default scheduler of models on the flow path. Diffusers' class imports scipy and torch's compiler, which takes
longer than making a sticker. Diffusers' class is still used for other options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from rdtf.saved_module import Config

SCHEDULER_CONFIG = "scheduler_config.json"


@dataclass(frozen=True)
class StepOutput:
    """The result of a step.

    Attributes:
        prev_sample: the latents at the next noise level.
    """

    prev_sample: Tensor


class FlowMatchEulerDiscreteScheduler:
    """x at the next noise level = x + (next level - level) * velocity.

    Args:
        num_train_timesteps: timestep of level 1; the timestep is the level times this.
        shift: s moves noise levels x to s x / (1 + (s - 1) x), so that more steps are spent on much noise.

    Attributes:
        config: the arguments.
        timesteps: ``(n,)`` float32, after :meth:`set_timesteps`.
        sigmas: ``(n + 1,)`` float32, the noise levels; the last is 0.
        step_index: index of the next step; None before the first.
    """

    def __init__(self, num_train_timesteps: int = 1000, shift: float = 1.0) -> None:
        self.config = Config(num_train_timesteps=num_train_timesteps, shift=shift)
        self.timesteps = self.sigmas = torch.zeros(0)
        self.step_index: int | None = None

    def set_timesteps(self, *, sigmas: Sequence[float], device: torch.device | str | None = None) -> None:
        """Set the noise levels, decreasing in (0, 1], and shift them."""
        levels = torch.tensor(sigmas, dtype=torch.float32, device=device)
        if (shift := self.config.shift) != 1:
            levels = shift * levels / (1 + (shift - 1) * levels)
        self.timesteps = levels * self.config.num_train_timesteps
        self.sigmas = torch.cat([levels, levels.new_zeros(1)])
        self.step_index = None

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """``sample`` with noise of the level of a timestep ``(1,)``."""
        sigma = self.sigmas[self._index_of(timestep)].to(sample)
        return sigma * noise + (1.0 - sigma) * sample

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> StepOutput:
        """Step from a timestep to the next lower one. ``model_output`` is the velocity."""
        index = self._index_of(timestep) if self.step_index is None else self.step_index
        self.step_index = index + 1
        change = self.sigmas[index + 1] - self.sigmas[index]
        return StepOutput((sample.to(torch.float32) + change * model_output).to(model_output.dtype))

    def _index_of(self, timestep: Tensor) -> int:
        return int((self.timesteps == timestep.to(self.timesteps.device)).nonzero()[0, 0])

    def save_pretrained(self, save_directory: str | PathLike[str]) -> None:
        """Write the configuration, as diffusers does."""
        self.config.save(Path(save_directory, SCHEDULER_CONFIG), type(self).__name__)
