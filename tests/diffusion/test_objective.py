from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rdtf.diffusion.objective import Objective
from rdtf.diffusion.schedulers import noised_at, scheduler_output, with_steps

FLOW = [Objective(prediction=p) for p in ("sample", "v_prediction")]
DDPM = [
    Objective(path="ddpm", prediction=p, min_snr=g) for p in ("sample", "epsilon", "v_prediction") for g in (None, 5.0)
]
every_objective = pytest.mark.parametrize(
    "objective", [*FLOW, *DDPM], ids=lambda o: f"{o.path}-{o.prediction}{'-snr' if o.min_snr else ''}"
)
T = torch.tensor([0.001, 0.02, 0.3, 0.731, 1.0], dtype=torch.float64)


def pair() -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, len(T), 3, 2, 4, 4, dtype=torch.float64))


def perfect(objective: Objective, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """What a perfect network puts out, from the definitions in the literature."""
    column = t[:, None, None, None, None]
    if objective.prediction == "sample":
        return x0
    if objective.prediction == "epsilon":
        return eps
    if objective.path == "flow":
        return eps - x0
    alpha_bar = paper_alpha_bar()[(column * 1000).round().long() - 1]
    return alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x0


def paper_alpha_bar() -> Tensor:
    """Cumulative products for 1000 "scaled linear" betas from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    assert betas[0].item() == pytest.approx(0.00085)
    assert betas[-1].item() == pytest.approx(0.012)
    return (1 - betas).cumprod(0)


def test_the_flow_path_is_a_straight_line():
    x0, eps = pair()
    for t in (0.0, 0.25, 1.0):
        mixed = Objective().add_noise(x0, eps, torch.full((len(T),), t, dtype=torch.float64))
        assert torch.allclose(mixed, (1 - t) * x0 + t * eps)


def test_the_ddpm_path_has_the_papers_betas():
    x0, eps = pair()
    alpha_bar = paper_alpha_bar()
    objective = Objective(path="ddpm", prediction="epsilon")
    for step in (0, 1, 499, 998, 999):
        mixed = objective.add_noise(x0, eps, torch.full((len(T),), (step + 1) / 1000))
        expected = alpha_bar[step].sqrt() * x0 + (1 - alpha_bar[step]).sqrt() * eps
        assert torch.allclose(mixed, expected, atol=1e-5)
    near = objective.add_noise(x0, eps, torch.full((len(T),), 0.001))
    far = objective.add_noise(x0, eps, torch.full((len(T),), 1.0))
    assert (near - x0).std() < 0.05
    assert (far - eps).std() < 0.1  # the schedule leaves a little of the signal, as Stable Diffusion's does


@every_objective
def test_a_perfect_network_has_no_error(objective: Objective):
    x0, eps = pair()
    output = perfect(objective, x0, eps, T)
    assert objective.error(output, x0, eps, T).max() < 1e-10
    worse = objective.error(output + 0.1, x0, eps, T)
    assert worse.shape == x0.shape
    assert (worse.mean((1, 2, 3, 4)) > 0).all()


@every_objective
def test_noise_levels_cover_the_range(objective: Objective):
    t = objective.draw_t(20_000, torch.Generator().manual_seed(0))
    assert 0 < t.min() < 0.01
    assert 0.98 < t.max() <= 1
    if objective.path == "ddpm":
        assert t.mean().item() == pytest.approx(0.5, abs=0.01)
        assert torch.equal(objective.timestep(t).round(), (t * 1000).round() - 1)
        assert objective.timestep(t).min() > -1e-3
    else:
        assert t.median().item() == pytest.approx(0.61, abs=0.03)  # leans towards noise: sigmoid(0.5) = 0.62
        assert torch.equal(objective.timestep(t), t * 1000)
    assert torch.equal(t, objective.draw_t(20_000, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("min_t", [0.05, 0.5, 1.0])
def test_losses_of_the_flow_path_agree_whatever_is_predicted(min_t: float):
    sample, velocity = (Objective(prediction=p, min_t=min_t) for p in ("sample", "v_prediction"))
    x0, eps = pair()
    t = torch.tensor([0.01, 0.1, 0.3, 0.731, 1.0], dtype=torch.float64)
    x_t = sample.add_noise(x0, eps, t)
    guess = torch.randn_like(x0)
    as_velocity = (x_t - guess) / t[:, None, None, None, None]
    assert torch.allclose(sample.error(guess, x0, eps, t), velocity.error(as_velocity, x0, eps, t))
    plain = (as_velocity - (eps - x0)).square()
    above = t >= min_t
    assert torch.allclose(velocity.error(as_velocity, x0, eps, t)[above], plain[above])
    nearly_clean = torch.full((len(T),), 1e-3, dtype=torch.float64)
    assert sample.error(x0 + 1, x0, eps, nearly_clean).max() == pytest.approx(min_t**-2)  # weights stop growing


def test_min_snr_losses_agree_between_predictions():
    """One guess of the clean clip, expressed three ways, has one min-SNR loss (arXiv 2303.09556)."""
    x0, eps = pair()
    guess = x0 + 0.3 * torch.randn_like(x0)
    a = paper_alpha_bar()[(T * 1000).round().long() - 1][:, None, None, None, None]
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * eps
    as_eps = (x_t - a.sqrt() * guess) / (1 - a).sqrt()
    guesses = {"sample": guess, "epsilon": as_eps, "v_prediction": a.sqrt() * as_eps - (1 - a).sqrt() * guess}
    losses = [Objective(path="ddpm", prediction=p, min_snr=5.0).error(g, x0, eps, T) for p, g in guesses.items()]
    for other in losses[1:]:
        assert torch.allclose(losses[0], other, rtol=1e-3)
    snr = a / (1 - a)
    assert torch.allclose(losses[0], snr.clamp_max(5.0) * (guess - x0).square(), rtol=1e-3)


def ideal_clean(x_t: Tensor, data: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """The exact denoiser of a data set: the posterior mean of its points given the noised one."""
    distance = (x_t.flatten(1)[:, None] - signal * data.flatten(1)[None]).square().sum(2)
    weights = (-distance / (2 * noise**2)).softmax(1)
    return torch.einsum("nm,m...->n...", weights, data)


@every_objective
@pytest.mark.parametrize("steps", [10, 50])
def test_sampling_with_an_exact_denoiser_reaches_the_data(objective: Objective, steps: int):
    data = torch.randn(5, 2, 3, 2, 2)
    scheduler = with_steps(objective.make_scheduler(), steps, torch.device("cpu"))
    x = torch.randn(16, 2, 3, 2, 2)
    for timestep in scheduler.timesteps:
        if objective.path == "flow":
            t = timestep / 1000
            signal, noise = 1 - t, t
        else:
            t = (timestep + 1) / 1000
            a = paper_alpha_bar()[int(timestep)].float()
            signal, noise = a.sqrt(), (1 - a).sqrt()
        clean = ideal_clean(x, data, signal, noise)
        eps = (x - signal * clean) / noise
        output = perfect(objective, clean, eps, t.expand(16)).float()
        assert objective.timestep(t.expand(16))[0].item() == pytest.approx(float(timestep), abs=1e-2)
        x = scheduler.step(
            scheduler_output(scheduler, objective.prediction, output, x, timestep), timestep, x
        ).prev_sample
    nearest = (x.flatten(1)[:, None] - data.flatten(1)[None]).abs().amax(2).min(1)
    assert nearest.values.max() < (0.01 if objective.path == "flow" else 0.15)  # DDIM ends at the first beta
    assert len(nearest.indices.unique()) >= 3  # and not always the same


@every_objective
def test_the_sampler_noises_as_training_does(objective: Objective):
    x0, eps = (video.float() for video in pair())
    scheduler = with_steps(objective.make_scheduler(), 10, torch.device("cpu"))
    for timestep in scheduler.timesteps:
        t = timestep / 1000 if objective.path == "flow" else (timestep + 1) / 1000
        trained = objective.add_noise(x0, eps, t.expand(len(T)).float())
        assert torch.allclose(noised_at(scheduler, x0, eps, timestep), trained, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prediction": "epsilon"}, "ddpm"),
        ({"min_snr": 5.0}, "ddpm"),
        ({"path": "cosine"}, "path"),
        ({"prediction": "x0"}, "prediction"),
        ({"sigma": 1}, "sigma"),
    ],
)
def test_wrong_settings_are_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Objective(**arguments)
