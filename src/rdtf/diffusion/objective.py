"""The training objective: noise path, prediction target and weight of the error.

Symbols: ``x0`` clean latents, ``eps`` unit normal noise, ``x_t`` noised latents, ``t`` in [0, 1] the noise level, ``v``
the velocity. :meth:`Objective.make_scheduler` makes the scheduler for sampling.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from rdtf.diffusion.flow_euler import FlowMatchEulerDiscreteScheduler

TRAIN_TIMESTEPS = 1000


class Objective(BaseModel):
    """A noise path with a prediction type.

    Attributes:
        path: ``flow``: x_t = (1 - t) x0 + t eps, t logit-normal. ``ddpm``: Stable Diffusion's "scaled linear" betas
            0.00085 to 0.012 over 1000 steps, t uniform (paper, Table 6).
        prediction: output of the network. ``sample`` = x0, ``epsilon`` = eps, ``v_prediction`` = the velocity of the
            path (eps - x0 on the flow path).
        logit_mean, logit_std: mean and deviation of logit(t) on the flow path. A mean above 0 favours high noise.
        uniform_fraction: fraction of t drawn uniformly, so that both ends of the range occur.
        min_t: on the flow path x0 errors are weighted by 1 / max(t, min_t)^2. Above min_t this is the error of the
            velocity. Short trainings of ``sample`` are better with 0.6: otherwise details that little noise hides
            dominate their gradient.
        min_snr: gamma of min-SNR weighting on the ddpm path (arXiv 2303.09556); None = off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Literal["flow", "ddpm"] = "flow"
    prediction: Literal["sample", "epsilon", "v_prediction"] = "v_prediction"
    logit_mean: float = 0.5
    logit_std: float = 1.0
    uniform_fraction: float = 0.1
    min_t: float = Field(0.05, gt=0, le=1)
    min_snr: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Objective:
        if self.path == "flow" and self.prediction == "epsilon":
            raise ValueError("the flow path predicts sample or v_prediction; epsilon belongs to path ddpm")
        if self.path == "flow" and self.min_snr is not None:
            raise ValueError("min_snr belongs to path ddpm; on the flow path the draw of t does its work")
        return self

    @property
    def clean_factor(self) -> float | None:
        """The factor of x0 in the output; None if it depends on t."""
        if self.prediction == "sample":
            return 1.0
        return -1.0 if self.path == "flow" else None

    def draw_t(self, count: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        """Noise levels for a batch, in (0, 1]."""
        if self.path == "ddpm":
            steps = torch.randint(0, TRAIN_TIMESTEPS, (count,), generator=generator)
            return (steps + 1) / TRAIN_TIMESTEPS
        normal = torch.randn(count, generator=generator) * self.logit_std + self.logit_mean
        t = torch.where(
            torch.rand(count, generator=generator) < self.uniform_fraction,
            torch.rand(count, generator=generator),
            normal.sigmoid(),
        )
        return t.clamp_min(1e-3)

    def timestep(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The network's input for the noise level, equal to the scheduler's timestep in sampling."""
        return t * TRAIN_TIMESTEPS if self.path == "flow" else t * TRAIN_TIMESTEPS - 1

    def add_noise(
        self, x0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c f h w"]:
        """x_t."""
        signal, noise = self._rates(t)
        return signal * x0 + noise * eps

    def error(self, output: Tensor, x0: Tensor, eps: Tensor, t: Float[Tensor, " b"]) -> Float[Tensor, "b c f h w"]:
        """Weighted squared error of the network's output for each element."""
        if self.path == "flow":
            weight = t.clamp_min(self.min_t).reciprocal()
            if self.prediction == "v_prediction":  # x0 = x_t - t v, so an error of v is an x0 error times 1 / t
                return ((output - (eps - x0)) * _column(t * weight)).square()
            return ((output - x0) * _column(weight)).square()
        signal, noise = self._rates(t)
        target = {"sample": x0, "epsilon": eps, "v_prediction": signal * eps - noise * x0}[self.prediction]
        error = (output - target).square()
        if self.min_snr is None:
            return error
        snr = (signal / noise).square()
        capped = snr.clamp_max(self.min_snr)
        weight = {"sample": capped, "epsilon": capped / snr, "v_prediction": capped / (snr + 1)}[self.prediction]
        return weight * error

    def make_scheduler(self) -> Any:
        """The scheduler that samples a network trained with this objective."""
        if self.path == "flow":
            return FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_TIMESTEPS)
        from diffusers import DDIMScheduler  # takes seconds

        return DDIMScheduler(
            num_train_timesteps=TRAIN_TIMESTEPS,
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            prediction_type=self.prediction,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise rate, shaped to multiply videos."""
        if self.path == "flow":
            return _column(1 - t), _column(t)
        index = (t * TRAIN_TIMESTEPS).round().long() - 1
        alpha_bar = alphas_cumprod().to(t.device)[index]
        return _column(alpha_bar.sqrt()), _column((1 - alpha_bar).sqrt())


def alphas_cumprod() -> Tensor:
    """``(1000,)``: the squared factor of x0 in x_t on the ddpm path."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod


def _column(per_clip: Tensor) -> Tensor:
    return per_clip[:, None, None, None, None]
