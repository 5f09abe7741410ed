"""Optimisers and schedules for short runs: Muon for matrices, AdamW for the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Move a matrix's singular values towards 1 by the quintic Newton-Schulz iteration (Jordan et al., Muon)."""
    a, b, c = _NS_COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised; convolution kernels count as ``(out, in * kh * kw)`` matrices.

    (torch's own Muon takes two-dimensional parameters only.)

    Args:
        lr: step size, relative to orthogonal updates; 0.02 is the usual start.
        momentum: Nesterov momentum.
        weight_decay: decoupled.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(parameter.grad)
                nesterov = parameter.grad.add(buffer, alpha=group["momentum"])
                update = orthogonalise(nesterov.flatten(1))
                scale = math.sqrt(max(1.0, update.shape[0] / update.shape[1]))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)


def make_optimizers(
    named: Iterable[tuple[str, nn.Parameter]], *, muon: bool, lr: float, muon_lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """AdamW, preceded by Muon for hidden matrices if wanted.

    Muon does not get input and output layers, embeddings and position tables (names below): their rows are not
    directions to be balanced against each other.
    """
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    edge = ("conv_in", "conv_out", "embed", "table", "position", "no_text", "start", "offsets")
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        is_hidden = muon and parameter.ndim >= 2 and not any(part in name for part in edge)
        (hidden if is_hidden else rest).append(parameter)
    optimizers: list[torch.optim.Optimizer] = []
    if hidden:
        optimizers.append(Muon(hidden, lr=muon_lr, weight_decay=weight_decay))
    betas = (0.9, 0.99) if muon else (0.9, 0.999)
    optimizers.append(torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def lr_factor(step: int, progress: float, *, warm_up: int, decay: bool) -> float:
    """Linear warm-up over steps; then 1, or with ``decay`` 1 until half of the training and a cosine to 2 %."""
    factor = min(1.0, (step + 1) / max(1, warm_up))
    if decay and progress > 0.5:
        factor *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.5) * 2)))
    return factor
