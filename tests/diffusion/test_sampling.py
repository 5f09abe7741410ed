"""Sampling as a function: schedulers keep no state of a call, given frames return, a start replaces pure noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rdtf.diffusion.objective import TRAIN_TIMESTEPS, Objective
from rdtf.diffusion.sampling import Start, sample

OBJECTIVE = Objective(prediction="sample")
SHAPE = (2, 3, 4, 2, 2)


def pull_to(target: Tensor):
    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        return target.expand_as(latents)

    return predict


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def test_calls_that_overlap_do_not_disturb_each_other(noise: Tensor):
    scheduler = OBJECTIVE.make_scheduler()
    known = torch.zeros(2, 4, dtype=torch.bool)
    target = torch.full(SHAPE, 0.5)
    arguments = (scheduler, noise, torch.zeros(SHAPE), known)
    alone = sample(pull_to(target), *arguments, prediction="sample", steps=5)
    inner: list[Tensor] = []

    def nested(index: int, timestep: Tensor, latents: Tensor) -> Tensor:
        if index == 1:
            inner.append(sample(pull_to(-target), *arguments, prediction="sample", steps=3))
        return latents

    outer = sample(pull_to(target), *arguments, prediction="sample", steps=5, on_step=nested)
    assert torch.equal(outer, alone)
    assert torch.allclose(inner[0], -target, atol=1e-5)
    assert scheduler.step_index is None


def test_given_frames_return_and_are_noised_like_the_others(noise: Tensor):
    known = torch.tensor([[True, False, False, True], [False, False, True, False]])
    given = torch.arange(4.0)[None, None, :, None, None].expand(SHAPE)
    seen: list[tuple[float, Tensor]] = []

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        seen.append((float(timestep) / TRAIN_TIMESTEPS, latents))
        return torch.zeros_like(latents)

    made = sample(predict, OBJECTIVE.make_scheduler(), noise, given, known, prediction="sample", steps=4)
    mask = known[:, None, :, None, None].expand(SHAPE)
    assert torch.equal(made[mask], given[mask])
    assert made[~mask].abs().max() < 1e-5
    for level, latents in seen:
        wanted = (1 - level) * given + level * noise
        assert torch.allclose(latents[mask], wanted[mask], atol=1e-5)


def test_a_start_is_noised_to_its_level(noise: Tensor):
    clean = torch.full(SHAPE, 2.0)
    levels: list[float] = []

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        level = float(timestep) / TRAIN_TIMESTEPS
        if not levels:
            assert torch.allclose(latents, (1 - level) * clean + level * noise, atol=1e-5)
        levels.append(level)
        return clean

    known = torch.zeros(2, 4, dtype=torch.bool)
    made = sample(
        predict,
        OBJECTIVE.make_scheduler(),
        noise,
        clean,
        known,
        prediction="sample",
        steps=10,
        start=Start(clean, 0.75),
    )
    assert levels[0] == pytest.approx(0.7, abs=1e-4) and len(levels) == 7
    assert torch.allclose(made, clean, atol=1e-4)
