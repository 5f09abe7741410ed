"""Every scheduler that is offered ends at the picture that an oracle knows; every other one is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from rdtf.diffusion.flow_euler import FlowMatchEulerDiscreteScheduler
from rdtf.diffusion.objective import Objective
from rdtf.diffusion.sampling import Start, sample
from rdtf.diffusion.schedulers import FLOW_EULER, SCHEDULERS, check_scheduler, load_scheduler

SHAPE = (2, 3, 4, 2, 2)
PREDICTIONS = {"flow": ("sample", "v_prediction"), "ddpm": ("sample", "epsilon", "v_prediction")}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "FlowMatchEulerDiscreteScheduler": [{}, {"shift": 3.0}, {"use_karras_sigmas": True}, {"stochastic_sampling": True}],
    "DDIMScheduler": [{}, {"timestep_spacing": "trailing"}, {"set_alpha_to_one": True}],
    "DDPMScheduler": [{}, {"variance_type": "fixed_small_log"}],
    "DPMSolverMultistepScheduler": [{}, {"solver_order": 3}, {"algorithm_type": "sde-dpmsolver++"}],
    "UniPCMultistepScheduler": [{}, {"solver_order": 3}, {"disable_corrector": [0, 1]}],
    "EulerDiscreteScheduler": [{}, {"use_karras_sigmas": True}, {"timestep_spacing": "trailing"}],
    "EulerAncestralDiscreteScheduler": [{}, {"timestep_spacing": "linspace"}],
}
EVERY = [
    pytest.param(path, name, prediction, options, id=f"{path}-{name}-{prediction}-{'-'.join(options) or 'plain'}")
    for path, names in SCHEDULERS.items()
    for name in names
    for prediction in PREDICTIONS[path]
    for options in VARIANTS[name]
    if (name, prediction) != ("EulerAncestralDiscreteScheduler", "sample")
] + [pytest.param("ddpm", "DPMSolverMultistepScheduler", "epsilon", {"use_karras_sigmas": True}, id="ddpm-karras")]


def made(path: str, name: str, prediction: str, **options: Any) -> Any:
    """A scheduler as the documents say to make it: from the configuration of the model's own."""
    own = Objective(path=path, prediction=prediction).make_scheduler()
    if path == "flow" and not name.startswith("FlowMatch"):
        options = {
            "use_flow_sigmas": True,
            "prediction_type": "flow_prediction" if prediction == "v_prediction" else prediction,
            **options,
        }
    return getattr(diffusers, name).from_config(own.config, **options)


def draw(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("path", "name", "prediction", "options"), EVERY)
def test_with_an_oracle_it_ends_at_the_picture(path: str, name: str, prediction: str, options: dict[str, Any]):
    target, given = draw(1), draw(2)
    known = torch.tensor([[True, False, False, False], [False, False, False, True]])
    mask = known[:, None, :, None, None].expand(SHAPE)
    wanted = torch.where(mask, given, target)
    objective = Objective(path=path, prediction=prediction)
    levels: list[float] = []

    def oracle(x_t: Tensor, timestep: Tensor) -> Tensor:
        """What a perfect network says of x_t, by the equations of the objective and nothing of the scheduler."""
        t = float(timestep) / 1000 if path == "flow" else (float(timestep) + 1) / 1000
        levels.append(t)
        signal, noise = (rate[0, 0, 0, 0, 0] for rate in objective._rates(torch.tensor([t])))
        if len(levels) > 1:  # what the network is shown lies on the path that it was trained on
            spread = (x_t - signal * wanted)[~mask].std() / noise
            assert 0.5 < spread < 1.5, f"the noise at level {t:.3f} is {spread:.2f} of what it should be"
        eps = (x_t - signal * wanted) / noise
        if prediction == "sample":
            return wanted
        if prediction == "epsilon":
            return eps
        return eps - wanted if path == "flow" else signal * eps - noise * wanted

    scheduler = made(path, name, prediction, **options)
    check_scheduler(scheduler, path, prediction)
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    arguments = (oracle, scheduler, draw(0), given, known)
    out = sample(*arguments, prediction=prediction, steps=12, generators=generators)
    assert torch.equal(out[mask], given[mask])
    assert len(levels) == 12 and levels == sorted(levels, reverse=True)
    # Some end at the first beta instead of at none: noise of a standard deviation of 0.03 is left.
    assert (out - target)[~mask].abs().max() < (0.03 if path == "flow" else 0.15)
    levels.clear()
    start = Start(target, 0.6)
    out = sample(*arguments, prediction=prediction, steps=12, start=start, generators=generators)
    assert levels[0] <= 0.6 + 1e-3 and len(levels) < 12
    assert (out - target)[~mask].abs().max() < (0.03 if path == "flow" else 0.15)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_our_euler_is_that_of_diffusers(shift: float, tmp_path: Path):
    ours = FlowMatchEulerDiscreteScheduler(shift=shift)
    ours.save_pretrained(tmp_path)
    assert type(loaded := load_scheduler(tmp_path, FLOW_EULER)) is type(ours) and loaded.config == ours.config
    theirs = diffusers.FlowMatchEulerDiscreteScheduler.from_config(ours.config)
    arguments = (draw(0), draw(1), torch.zeros(2, 4, dtype=torch.bool))
    one, two = (
        sample(lambda x, t: (x * 0.5).tanh(), scheduler, *arguments, prediction="sample", steps=7)
        for scheduler in (ours, theirs)
    )
    assert torch.equal(one, two)


@pytest.mark.parametrize("name", sorted({name for names in SCHEDULERS.values() for name in names}))
def test_a_clip_does_not_depend_on_its_company(name: str):
    path = "flow" if name.startswith("FlowMatch") else "ddpm"
    scheduler = made(path, name, prediction := "v_prediction")
    known = torch.zeros(2, 4, dtype=torch.bool)

    def run(clips: slice) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)][clips]
        return sample(
            lambda x, t: (x * 0.5).tanh(),
            scheduler,
            draw(0)[clips],
            torch.zeros(SHAPE)[clips],
            known[clips],
            prediction=prediction,
            steps=4,
            eta=0.5,
            generators=generators,
        )

    state = torch.get_rng_state()
    assert torch.allclose(run(slice(2))[1:], run(slice(1, 2)), atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)


REFUSED = {
    "another class": ("ddpm", "epsilon", "HeunDiscreteScheduler", {}, "HeunDiscreteScheduler does not sample"),
    "another path": ("flow", "v_prediction", "DDIMScheduler", {}, "trained on the flow path; use one of FlowMatch"),
    "no flow sigmas": (
        "flow",
        "v_prediction",
        "UniPCMultistepScheduler",
        {"use_flow_sigmas": False},
        'of UniPCMultistepScheduler give use_flow_sigmas=True and prediction_type="flow_prediction"',
    ),
    "flow sigmas": ("ddpm", "epsilon", "DPMSolverMultistepScheduler", {"use_flow_sigmas": True}, "the ddpm path"),
    "another prediction": (
        "ddpm",
        "epsilon",
        "EulerDiscreteScheduler",
        {"prediction_type": "v_prediction"},
        "prediction_type 'v_prediction', and this model's is 'epsilon'",
    ),
    "another prediction on the flow path": (
        "flow",
        "sample",
        "DPMSolverMultistepScheduler",
        {"prediction_type": "flow_prediction"},
        "this model's is 'sample'",
    ),
    "clipping": ("ddpm", "sample", "DDIMScheduler", {"clip_sample": True}, "clip_sample=True"),
    "thresholding": ("ddpm", "sample", "UniPCMultistepScheduler", {"thresholding": True}, "thresholding=True"),
    "no clean clip": (
        "ddpm",
        "sample",
        "EulerAncestralDiscreteScheduler",
        {},
        "does not take this model's prediction, the clean clip; use one of DDIMScheduler",
    ),
    "levels of another path": (
        "flow",
        "sample",
        "DPMSolverMultistepScheduler",
        {"use_karras_sigmas": True},
        "use_karras_sigmas=True",
    ),
    "a solver that divides by nothing": (
        "flow",
        "sample",
        "UniPCMultistepScheduler",
        {"solver_type": "bh1"},
        "solver_type='bh1'",
    ),
    "noise in place of the clean clip": (
        "ddpm",
        "epsilon",
        "UniPCMultistepScheduler",
        {"predict_x0": False},
        "predict_x0=False",
    ),
    "a large variance": ("ddpm", "epsilon", "DDPMScheduler", {"variance_type": "fixed_large"}, "fixed_large"),
    "learned variance": ("ddpm", "sample", "DDPMScheduler", {"variance_type": "learned"}, "variance_type='learned'"),
    "no levels": ("flow", "sample", "FlowMatchEulerDiscreteScheduler", {"shift": 0}, "give no noise levels"),
    "inverted": (
        "flow",
        "sample",
        "FlowMatchEulerDiscreteScheduler",
        {"invert_sigmas": True},
        "invert_sigmas=True",
    ),
    "other betas": ("ddpm", "sample", "DDIMScheduler", {"beta_end": 0.02}, "another noise schedule"),
    "zero SNR": ("ddpm", "sample", "EulerDiscreteScheduler", {"rescale_betas_zero_snr": True}, "another noise"),
    "fewer steps": ("flow", "sample", "FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 500}, "another noise"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_every_other_is_refused_by_name(case: str):
    path, prediction, name, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        check_scheduler(made(path, name, prediction, **options), path, prediction)
