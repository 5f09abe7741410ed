"""Passes of the network on a GPU, recorded as CUDA graphs and replayed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdtf.batch import ClipBatch
from rdtf.model import DFGN
from rdtf.train.network import Network

_WORDS = 8  # captions are padded to multiples of so many states
_MOST = 16  # recordings that are kept; captions of further lengths are passed without one

Recorder = Callable[[nn.Module, tuple[Tensor, ...]], nn.Module]


class RecordedPasses:
    """A network whose passes, forward and backward, are recorded once for each shape and replayed from then on.

    A pass of a small network is some thousand kernels, and to ask for them takes a processor several times as long as
    they take the GPU. A recording is asked for at once. It computes with the weights as they are then, in memory that
    all recordings share. The text encoder, whose work is different for every batch, stays outside.

    Args:
        net: what is trained. None of its parameters may be put elsewhere afterwards.
        record: makes a module whose call replays the one that is given, on tensors like those that are given.

    Attributes:
        count: recordings made.
    """

    def __init__(self, net: Network, record: Recorder | None = None) -> None:
        self.net = net
        self._record = record or _record_on_gpu(torch.cuda.graph_pool_handle())
        self.count = 0
        self._recorded: dict[tuple[torch.Size, ...], nn.Module] = {}

    def __call__(self, batch: ClipBatch, noisy: Tensor, timestep: Tensor) -> Tensor:
        """As of :class:`~rdtf.train.network.Network`; what is returned stands until the next call."""
        states, mask = self.net.text(batch.text)
        more = -states.shape[1] % _WORDS
        states, mask = F.pad(states, (0, 0, 0, more)), F.pad(mask, (0, more))
        tensors = (noisy, timestep, batch.video, batch.known, batch.valid, batch.loop, states, mask)
        shape = tuple(tensor.shape for tensor in tensors)
        found = self._recorded.get(shape)
        if found is None:
            found = _Pass(self.net.plain)
            if self.count < _MOST:
                self.count += 1
                like = tuple(tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors)
                self._recorded[shape] = found = self._record(found, like)
        return found(*tensors)


class _Pass(nn.Module):
    """A pass of the network as a function of tensors; one for each recording, which takes the place of its forward."""

    def __init__(self, dfgn: DFGN) -> None:
        super().__init__()
        self.dfgn = dfgn

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        video: Tensor,
        known: Tensor,
        valid: Tensor,
        loop: Tensor,
        states: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """The network's output."""
        return self.dfgn(noisy, timestep, video, known, valid, loop, self.dfgn.text_context(states, mask))


def _record_on_gpu(pool: tuple[int, int]) -> Recorder:
    # Gradients are handed over from the stream that recorded to the one that trains, which wait for each other.
    warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")

    def record(module: nn.Module, like: tuple[Tensor, ...]) -> nn.Module:
        enabled, precision = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        # Weights in the other precision that are kept from before would be recorded as they were.
        with torch.autocast("cuda", precision, enabled=enabled, cache_enabled=False):
            torch.cuda.make_graphed_callables(module, like, allow_unused_input=True, pool=pool)  # type: ignore[call-overload]
        return module

    return record
