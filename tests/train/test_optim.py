from __future__ import annotations

import pytest
import torch
from torch import nn

from rdtf.codec import StickerAutoencoder
from rdtf.text import BuiltinTextEncoder
from rdtf.train.optim import Averages, Muon, lr_factor, make_optimizers, orthogonalise


@pytest.mark.parametrize("shape", [(16, 16), (48, 12), (12, 48), (8, 72)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]):
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.3, 3, min(shape))) @ vh
    (found,) = orthogonalise(matrix[None])
    values = torch.linalg.svdvals(found)
    assert 0.65 < values.min() <= values.max() < 1.25
    # The directions are the matrix's own: what is orthogonalised is nearly U V^T.
    core = u.T @ found @ vh.T
    assert (core - torch.diag(core.diagonal())).abs().max() < 0.02


def test_scale_does_not_matter_and_zero_stays_zero():
    matrix = torch.randn(1, 6, 9)
    assert torch.allclose(orthogonalise(matrix), orthogonalise(1e3 * matrix), atol=1e-4)
    assert not orthogonalise(torch.zeros(1, 4, 5)).any()


@pytest.mark.parametrize("shape", [(1, 24, 48), (3, 24, 400), (2, 72, 8), (1, 20, 20)])
@pytest.mark.parametrize("smallest", [1.0, 1e-4])
def test_orthogonalising_is_the_iteration_step_by_step(shape: tuple[int, ...], smallest: float):
    u, s, vh = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    matrices = u * torch.linspace(1, smallest, s.shape[-1], dtype=torch.float64) @ vh
    expected = matrices / matrices.norm(dim=(-2, -1), keepdim=True)
    for _ in range(5):
        gram = expected @ expected.mT
        expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
    for precision, error in ((torch.float64, 1e-6), (torch.float32, 1e-3), (torch.bfloat16, 0.2)):
        found = orthogonalise(matrices.to(precision))
        assert found.dtype == precision
        assert (found.double() - expected).abs().max() < error


def test_muon_in_bf16_takes_nearly_the_same_step():
    gradient, steps = torch.randn(24, 16), []
    for precision in (torch.float32, torch.bfloat16):
        parameter = nn.Parameter(torch.zeros(24, 16))
        parameter.grad = gradient.clone()
        Muon([parameter], lr=1.0, precision=precision).step()
        steps.append(parameter.detach())
    assert 0 < (steps[0] - steps[1]).norm() < 0.03 * steps[0].norm()


@pytest.mark.parametrize("iterations", [1, 3])
def test_muon_takes_as_many_iterations_as_it_is_told(iterations: int):
    linear, gradient = nn.Linear(24, 16), torch.randn(16, 24)
    before = linear.weight.detach().clone()
    linear.weight.grad = gradient.clone()
    optimizer = make_optimizers(
        linear.named_parameters(), muon=True, lr=1e-3, muon_lr=1.0, weight_decay=0.0, muon_iterations=iterations
    )[0]
    optimizer.step()
    assert torch.allclose(before - linear.weight, orthogonalise(gradient[None], iterations)[0], atol=1e-5)
    assert not torch.allclose(before - linear.weight, orthogonalise(gradient[None])[0], atol=0.05)


@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (8, 4, 3, 3), (40, 2, 3, 3)])
def test_muon_solves_a_quadratic(shape: tuple[int, ...]):
    target, parameter = torch.randn(shape), nn.Parameter(torch.zeros(shape))
    if len(shape) == 4:
        parameter.data = parameter.data.to(memory_format=torch.channels_last)
    optimizer = Muon([parameter], lr=0.1, weight_decay=0.0)
    losses = []
    for step in range(120):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 120)
        optimizer.zero_grad()
        loss = (parameter - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_a_muon_step_by_hand():
    start = torch.randn(6, 3)
    parameter = nn.Parameter(start.clone())
    optimizer = Muon([parameter], lr=0.1, momentum=0.9, weight_decay=0.5)
    gradients = torch.randn(2, 6, 3)
    expected, momentum = start, torch.zeros(6, 3)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        momentum = 0.9 * momentum + gradient
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 2**0.5 * orthogonalise((gradient + 0.9 * momentum)[None])[0]
    assert torch.allclose(parameter, expected, atol=1e-5)


def test_a_convolution_counts_as_a_matrix():
    kernel = torch.randn(8, 2, 3, 3)
    as_kernel, as_matrix = nn.Parameter(kernel.clone()), nn.Parameter(kernel.flatten(1).clone())
    for parameter in (as_kernel, as_matrix):
        parameter.grad = torch.linspace(-1, 2, 144).sin().view_as(parameter)
        Muon([parameter], lr=0.1).step()
    assert torch.allclose(as_kernel.flatten(1), as_matrix)


def test_parameters_without_gradient_are_left_alone():
    parameter = nn.Parameter(torch.ones(3, 3))
    Muon([parameter], lr=0.1).step()
    assert torch.equal(parameter, torch.ones(3, 3))


def split(modules: dict[str, nn.Module], muon: bool) -> tuple[set[str], set[str]]:
    """Names that Muon and that AdamW got."""
    named = [(f"{part}.{name}", p) for part, module in modules.items() for name, p in module.named_parameters()]
    names = {id(p): name for name, p in named}
    parts: dict[type, set[str]] = {Muon: set(), torch.optim.AdamW: set()}
    for optimizer in make_optimizers(named, muon=muon, lr=1e-3, muon_lr=0.02, weight_decay=0.01):
        for group in optimizer.param_groups:
            assert group["base_lr"] == (0.02 if isinstance(optimizer, Muon) else 1e-3)
            parts[type(optimizer)] |= {names[id(p)] for p in group["params"]}
    assert sorted(parts[Muon] | parts[torch.optim.AdamW]) == sorted(name for name, p in named if p.requires_grad)
    assert not parts[Muon] & parts[torch.optim.AdamW]
    return parts[Muon], parts[torch.optim.AdamW]


def test_muon_gets_the_hidden_matrices_alone(make_network):
    text = BuiltinTextEncoder(width=16, buckets=64, table_width=8)
    muon, adamw = split({"dfgn": make_network(), "text": text}, muon=True)
    assert {"dfgn.middle.residual.conv1.weight", "dfgn.middle.sti.semantic.qkv.weight"} <= muon
    assert {
        "dfgn.conv_in.weight",
        "dfgn.conv_out.weight",
        "dfgn.no_text",
        "dfgn.embed_time.0.weight",
        "dfgn.middle.sti.relative.table",
        "dfgn.middle.sti.position.project.weight",
        "text.table.weight",
        "text.position",
        "text.start",
    } <= adamw
    assert not any(name.endswith("bias") or ".norm" in name for name in muon)
    assert split({"codec": StickerAutoencoder.for_downscale(4)}, muon=True)[0]


def test_without_muon_adamw_gets_everything_that_is_trained(make_network):
    network = make_network()
    network.conv_in.requires_grad_(False)
    muon, adamw = split({"dfgn": network}, muon=False)
    assert not muon
    assert "dfgn.conv_in.weight" not in adamw


def test_step_sizes_over_a_run():
    def factor(step: int, progress: float, decay: bool = True) -> float:
        return lr_factor(step, progress, warmup_steps=10, decay=decay)

    assert [factor(step, 0.0) for step in (0, 4, 9, 50)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert [factor(99, p) for p in (0.5, 0.75, 1.0, 1.2)] == pytest.approx([1.0, 0.51, 0.02, 0.02])
    assert factor(99, 1.0, decay=False) == 1.0
    assert lr_factor(0, 0.0, warmup_steps=0, decay=True) == 1.0


def test_averages_follow_diffusers():
    from diffusers.training_utils import EMAModel

    image = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    parameters = [torch.nn.Parameter(tensor) for tensor in (torch.randn(7), image, torch.randn(2, 3))]
    parameters[2].requires_grad_(False)
    theirs, ours = EMAModel(parameters, decay=0.3, foreach=True), Averages(parameters, 0.3)
    for _ in range(8):
        with torch.no_grad():
            for parameter in parameters:
                parameter += torch.randn_like(parameter)
        for averages in (theirs, ours):
            averages.step(parameters)
    assert all(torch.equal(*pair) for pair in zip(theirs.shadow_params, ours.tensors, strict=True))
