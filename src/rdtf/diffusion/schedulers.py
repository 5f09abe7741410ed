"""The schedulers of diffusers that fit our networks. Every other scheduler is refused by name.

A network is trained for one noise path and one prediction. A scheduler of another path, other betas or another
prediction runs without an error and returns noise. So every scheduler is checked before it runs.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from rdtf.diffusion.flow_euler import SCHEDULER_CONFIG, FlowMatchEulerDiscreteScheduler
from rdtf.diffusion.objective import TRAIN_TIMESTEPS, alphas_cumprod
from rdtf.hub import read_config

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin
else:
    SchedulerMixin = Any

NoisePath = Literal["flow", "ddpm"]
FLOW_EULER = "FlowMatchEulerDiscreteScheduler"
SCHEDULERS: dict[str, tuple[str, ...]] = {
    "flow": (FLOW_EULER, "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"),
    "ddpm": (
        "DDIMScheduler",
        "DDPMScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
    ),
}
"""Names of the schedulers by the noise path."""
_NOT_WITH: dict[str, tuple[Any, ...]] = {
    "clip_sample": (True,),  # latents are not bounded by 1
    "thresholding": (True,),
    "use_dynamic_shifting": (True,),  # it needs a number that nothing gives it
    "invert_sigmas": (True,),
    # The network puts out no variance, and a large one leaves noise in the picture.
    "variance_type": ("learned", "learned_range", "fixed_large", "fixed_large_log"),
    "solver_type": ("bh1",),  # divides by the noise of the last step, which is none
    "predict_x0": (False,),  # does too
    "timestep_type": ("continuous",),  # the network is told a step, not a logarithm
}
"""Options with the values that do not lead to a clean picture."""
_NOT_ON_FLOW = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
"""Options of multistep solvers that replace the flow path's noise levels by those of the ddpm path."""
_PLAIN_EULER = {
    "use_dynamic_shifting": False,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "invert_sigmas": False,
    "shift_terminal": None,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "time_shift_type": "exponential",
    "stochastic_sampling": False,
}
"""Options of Euler on the flow path, beside the shift, for which our own class is equal."""
_NO_SAMPLE = ("EulerAncestralDiscreteScheduler",)
"""Schedulers that cannot use a prediction of the clean clip."""


def load_scheduler(folder: Path, name: str) -> Any:
    """The scheduler of a saved pipeline.

    Args:
        folder: holds ``scheduler_config.json``.
        name: its class in diffusers.

    Raises:
        ValueError: the configuration is damaged.
        Exception: whatever diffusers raises for values that make no sense.
    """
    config = {key: value for key, value in read_config(folder / SCHEDULER_CONFIG).items() if key[0] != "_"}
    if name == FLOW_EULER:
        options = {key: value for key, value in config.items() if key not in ("num_train_timesteps", "shift")}
        if options.items() <= _PLAIN_EULER.items() and config.get("shift", 1.0) > 0:
            own = {"num_train_timesteps": TRAIN_TIMESTEPS, "shift": 1.0}
            return FlowMatchEulerDiscreteScheduler(**{key: config.get(key, value) for key, value in own.items()})
    import diffusers  # takes seconds

    return getattr(diffusers, name).from_pretrained(folder, local_files_only=True)


def path_of(scheduler: SchedulerMixin) -> NoisePath:
    """The noise path that a scheduler samples."""
    flow = type(scheduler).__name__.startswith("FlowMatch") or scheduler.config.get("use_flow_sigmas", False)
    return "flow" if flow else "ddpm"


def check_scheduler(scheduler: SchedulerMixin, path: str, prediction: str) -> None:
    """Check that a scheduler samples what a network predicts.

    Args:
        path, prediction: as of :class:`rdtf.diffusion.objective.Objective`.

    Raises:
        ValueError: it does not fit. The text names the scheduler and the mend.
    """
    name, config = type(scheduler).__name__, scheduler.config
    own = path_of(scheduler)
    if name not in SCHEDULERS[path] or own != path:
        more = ""
        if path == "flow" and name in SCHEDULERS[path]:
            more = f'; of {name} give use_flow_sigmas=True and prediction_type="{_type_of(path, prediction)}"'
        raise ValueError(
            f"{name} does not sample this model: it was trained on the {path} path; "
            f"use one of {', '.join(SCHEDULERS[path])}{more}"
        )
    if name in _NO_SAMPLE and prediction == "sample":
        others = ", ".join(other for other in SCHEDULERS[path] if other not in _NO_SAMPLE)
        raise ValueError(f"{name} does not take this model's prediction, the clean clip; use one of {others}")
    wanted = _type_of(path, prediction)
    if name != FLOW_EULER and config.prediction_type != wanted:
        raise ValueError(
            f"{name} has the prediction_type {config.prediction_type!r}, and this model's is {wanted!r}; "
            f'make it with {name}.from_config(pipeline.scheduler.config, prediction_type="{wanted}")'
        )
    multistep_flow = path == "flow" and name != FLOW_EULER
    for option, refused in {**_NOT_WITH, **dict.fromkeys(_NOT_ON_FLOW if multistep_flow else (), (True,))}.items():
        if (value := config.get(option)) in refused:
            raise ValueError(f"{name} with {option}={value!r} does not end at the picture; make it without that")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            usable = bool(with_steps(scheduler, 2, torch.device("cpu")).timesteps.isfinite().all())
    except Exception as error:  # of settings that make no sense
        raise ValueError(f"{name} cannot be used with its settings ({error}); make a new one") from error
    if not usable:
        raise ValueError(f"{name} has settings that give no noise levels; make a new one")
    unequal = config.num_train_timesteps != TRAIN_TIMESTEPS
    if path == "ddpm" and not unequal:
        unequal = not torch.allclose(scheduler.alphas_cumprod.cpu(), alphas_cumprod(), atol=1e-6)
    if unequal:
        raise ValueError(
            f"{name} has another noise schedule than this model was trained with; "
            f"make it with {name}.from_config(pipeline.scheduler.config)"
        )


def _type_of(path: str, prediction: str) -> str:
    return "flow_prediction" if path == "flow" and prediction == "v_prediction" else prediction


def with_steps(scheduler: Any, steps: int, device: torch.device) -> Any:
    """A copy of the scheduler with its noise levels set: 1, (n - 1)/n, ..., 1/n for Euler on the flow path.

    Diffusers' default for Euler ends at 0.001. This wastes a pass on an almost clean clip, at a level that training
    hardly draws.
    """
    scheduler = copy.deepcopy(scheduler)
    if type(scheduler).__name__ == FLOW_EULER:
        scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)], device=device)
    else:
        scheduler.set_timesteps(steps, device=device)
    return scheduler


def noised_at(scheduler: Any, x0: Tensor, eps: Tensor, timestep: Tensor) -> Tensor:
    """x0 at the noise level of one of the scheduler's timesteps, as the scheduler scales it."""
    if type(scheduler).__name__ == FLOW_EULER:
        return scheduler.scale_noise(x0, timestep[None], eps)
    return scheduler.add_noise(x0, eps, timestep[None])


def network_input(scheduler: Any, x_t: Tensor, timestep: Tensor) -> Tensor:
    """x_t at the scale of the network's input. Some schedulers keep it at another scale."""
    return scheduler.scale_model_input(x_t, timestep) if hasattr(scheduler, "scale_model_input") else x_t


def scheduler_output(scheduler: Any, prediction: str, output: Tensor, x_t: Tensor, timestep: Tensor) -> Tensor:
    """The network's output converted for ``scheduler.step``. Euler on the flow path expects the velocity."""
    if type(scheduler).__name__ == FLOW_EULER and prediction == "sample":
        return (x_t - output) / (timestep / TRAIN_TIMESTEPS)
    return output
