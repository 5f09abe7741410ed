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

_WORDS = 8  # captions are padded to a multiple of this many text states
_MOST = 16  # recordings that are kept; captions of other lengths run without a recording

Recorder = Callable[[nn.Module, tuple[Tensor, ...]], nn.Module]


class RecordedPasses:
    """A network whose forward and backward passes are CUDA graphs, one for each shape of batch.

    A pass of a small network is about a thousand kernels. Launching them takes the processor several times as long as
    running them takes the GPU; a CUDA graph is one launch. A replay reads the current weights. All graphs share their
    memory. The text encoder stays outside, because its work differs from batch to batch.

    Args:
        net: the trained network. Its parameters must keep their memory from then on.
        record: makes a module that replays the passes of a given module, for tensors of the given shapes.
    """

    def __init__(self, net: Network, record: Recorder | None = None) -> None:
        self.net = net
        self._record = record or _record_on_gpu(torch.cuda.graph_pool_handle())
        self.count = 0
        self._recorded: dict[tuple[torch.Size, ...], nn.Module] = {}

    def __call__(self, batch: ClipBatch, noisy: Tensor, timestep: Tensor) -> Tensor:
        """As :class:`~rdtf.train.network.Network`. The next call overwrites the returned tensor."""
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
    """A pass of the network as a function of tensors. Each recording replaces the forward of one."""

    def __init__(self, dfgn: DFGN) -> None:
        super().__init__()
        self.dfgn = dfgn

    def forward(self, *tensors: Tensor) -> Tensor:
        """The network's output. The tensors are those of :meth:`RecordedPasses.__call__`, in its order."""
        *clips, states, mask = tensors
        return self.dfgn(*clips, self.dfgn.text_context(states, mask))


def _record_on_gpu(pool: tuple[int, int]) -> Recorder:
    # The recording stream hands gradients to the training stream. The streams wait for each other, so it is safe.
    warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")

    def record(module: nn.Module, like: tuple[Tensor, ...]) -> nn.Module:
        enabled, precision = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        # Autocast may hold converted weights from before. A graph would record these outdated copies.
        with torch.autocast("cuda", precision, enabled=enabled, cache_enabled=False):
            torch.cuda.make_graphed_callables(module, like, allow_unused_input=True, pool=pool)  # type: ignore[call-overload]
        return module

    return record
