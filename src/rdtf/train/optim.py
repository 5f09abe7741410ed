"""Optimisers and schedules for short runs: Muon for matrices, AdamW for the rest."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

ITERATIONS = 5  # Newton-Schulz iterations in each step of Muon
_NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_LONG = 2  # a matrix is long if its length is at least this multiple of its width


def orthogonalise(
    matrices: Float[Tensor, "n rows columns"], iterations: int = ITERATIONS
) -> Float[Tensor, "n rows columns"]:
    """Move the singular values of matrices towards 1 by the quintic Newton-Schulz iteration (Jordan et al., Muon).

    Each iteration multiplies ``x`` by a polynomial of ``g = x @ x.mT``. For long matrices in fp32 the polynomials are
    computed from ``g`` alone and their product is applied to ``x`` once, at the end. For convolution kernels this takes
    a third of the operations. In bf16 the small eigenvalues of ``g`` would be lost.
    """
    a, b, c = _NS_COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if x.dtype == torch.bfloat16 or x.shape[-1] < _LONG * x.shape[-2]:
        for _ in range(iterations):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    else:
        gram, product = x @ x.mT, None
        for i in range(iterations):
            factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            factor.diagonal(dim1=-2, dim2=-1).add_(a)
            product = factor if product is None else factor @ product
            if i + 1 < iterations:
                gram = factor @ gram @ factor
        x = x if product is None else product @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates. Convolution kernels are treated as ``(out, in * kh * kw)`` matrices.

    torch's own Muon takes two-dimensional parameters only.

    Args:
        lr: step size, relative to orthogonal updates; 0.02 is the usual start. momentum: Nesterov momentum.
        iterations, precision: of :func:`orthogonalise`. bf16 is enough, because it need not converge.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        iterations: int = ITERATIONS,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.iterations, self.precision = iterations, precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            # One call for all tensors: a GPU would otherwise wait for a thousand small launches.
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not params:
                continue
            grads = [parameter.grad for parameter in params]
            for parameter in params:
                if not self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            before = [self.state[parameter]["momentum_buffer"] for parameter in params]
            buffers = torch._foreach_add(grads, before, alpha=group["momentum"])
            for parameter, buffer in zip(params, buffers, strict=True):
                self.state[parameter]["momentum_buffer"] = buffer
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            # Matrices of one shape go through the iteration together: small networks have many small ones.
            same_shape: dict[torch.Size, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
            nesterov = torch._foreach_add(grads, buffers, alpha=group["momentum"])
            for parameter, matrix in zip(params, (tensor.flatten(1) for tensor in nesterov), strict=True):
                members, matrices = same_shape[matrix.shape]
                members.append(parameter)
                matrices.append(matrix)
            for (rows, columns), (members, matrices) in same_shape.items():
                updates = orthogonalise(torch.stack(matrices).to(self.precision), self.iterations)
                step_size = group["lr"] * math.sqrt(max(1.0, rows / columns))
                moved = [update.reshape(parameter.shape) for parameter, update in zip(members, updates, strict=True)]
                torch._foreach_add_(members, moved, alpha=-step_size)


def make_optimizers(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    muon: bool,
    lr: float,
    muon_lr: float,
    weight_decay: float,
    muon_iterations: int = ITERATIONS,
    bf16: bool = False,
) -> list[torch.optim.Optimizer]:
    """The optimisers: with ``muon`` first Muon for hidden matrices, then AdamW for all other parameters.

    AdamW also gets input and output layers, embeddings and position tables (names below). ``bf16`` is the precision of
    Muon's matrix products.
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
        precision = torch.bfloat16 if bf16 else torch.float32
        optimizers.append(
            Muon(hidden, lr=muon_lr, weight_decay=weight_decay, iterations=muon_iterations, precision=precision)
        )
    betas = (0.9, 0.99) if muon else (0.9, 0.999)
    optimizers.append(torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay, fused=True))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


class Averages:
    """Exponential moving averages (``tensors``) of parameters, in their order, after ``steps`` steps.

    The decay after step n is ``min(decay, n / (9 + n))``, so that the first steps are soon forgotten (as in diffusers).
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.tensors = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def step(self, parameters: Iterable[Tensor]) -> None:
        """Move the averages towards the parameters. Frozen parameters are copied."""
        self.steps += 1
        decay = 0.0 if self.steps == 1 else min(self.decay, self.steps / (9 + self.steps))
        averages, live = [], []
        for average, parameter in zip(self.tensors, parameters, strict=True):
            if parameter.requires_grad:
                averages.append(average)
                live.append(parameter)
            else:
                average.copy_(parameter)
        if live:
            torch._foreach_sub_(averages, torch._foreach_sub(averages, live), alpha=1 - decay)


def lr_factor(step: int, progress: float, *, warmup_steps: int, decay: bool) -> float:
    """Linear warm-up, then 1. With ``decay`` it falls from the middle of the training along a cosine to 0.02."""
    factor = min(1.0, (step + 1) / max(1, warmup_steps))
    if decay and progress > 0.5:
        factor *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.5) * 2)))
    return factor
