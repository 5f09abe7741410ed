"""The processes of a run, one for each device, and their communication.

Plain ``python`` starts one process; ``torchrun`` and ``accelerate launch`` start several. Every decision is a pure
function of the step or is shared through this module, so all processes have the same state. Only the first process
writes files.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from rdtf.device import best_device
from rdtf.model.dfgn import Level
from rdtf.progress import console

_PATIENCE = timedelta(minutes=30)  # until a hanging process counts as lost; a process that ends is noticed at once
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out")  # words of such errors


class LostProcessError(RuntimeError):
    """Another process of the run has ended or does not answer."""

    exit_code = 2


def is_first() -> bool:
    """Whether this process writes and prints, by the launcher's environment. Works before the processes connect."""
    return os.environ.get("RANK", "0") == "0"


class Devices:
    """This process (number ``rank`` of ``count``), the device where it computes, and its connection to the others.

    Args:
        stages: training has stages in which some of the parameters get no gradient.
    """

    def __init__(self, stages: bool = False) -> None:
        cpu = best_device().type == "cpu"
        self._accelerator = Accelerator(
            cpu=cpu,
            mixed_precision="no",  # autocast is the training loop's own
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=_PATIENCE),
                # Saves the memory of a second copy of the gradients.
                DistributedDataParallelKwargs(gradient_as_bucket_view=True, find_unused_parameters=stages),
            ],
        )
        self.rank: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes
        self.device = torch.device("cpu") if cpu else self._accelerator.device
        if self.rank:
            console.quiet = True

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def asked_to_shard(self) -> bool:
        """Whether ``accelerate launch --use_fsdp`` started this process."""
        return self._accelerator.distributed_type == DistributedType.FSDP

    def first_goes_ahead(self) -> AbstractContextManager[None]:
        """A context that the first process runs first, while the other processes wait."""
        return self._accelerator.main_process_first()

    def wait(self) -> None:
        """Wait until all processes call this."""
        self._accelerator.wait_for_everyone()

    def wrap(self, net: nn.Module, shard: bool) -> nn.Module:
        """The module to call instead of ``net``: it has the same parameters and sums gradients over all processes.

        With ``shard`` (FSDP2) each process keeps a shard of every parameter of ``net``, in place, and gathers the
        parameters of a level while it computes with the level.
        """
        if self.count == 1:
            return net
        if not shard:
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of dimensions of size 1
            return self._accelerator.prepare_model(net)
        for parameter in net.parameters():
            parameter.data = parameter.data.contiguous()  # FSDP requires it
        for level in [module for module in net.modules() if isinstance(module, Level)]:
            if level.spatial is not None:  # keys and values of the text are computed outside of the level's forward
                fully_shard(level.spatial.cross_attention.kv)
            fully_shard(level)
        fully_shard(net)
        return net

    @contextmanager
    def gradients(self, net: nn.Module, last: bool) -> Iterator[None]:
        """A context for one forward and backward pass. Gradients are summed over the processes in the last pass."""
        if isinstance(net, FSDPModule):
            net.set_requires_gradient_sync(last)
            yield
        else:
            with nullcontext() if last else self._accelerator.no_sync(net):
                yield

    def passes(self, own: int, net: nn.Module) -> int:
        """The number of passes of this process for ``own`` batches.

        With shards every process makes the largest number, because all processes gather parameters together.
        """
        if not isinstance(net, FSDPModule):
            return own
        most = torch.tensor(own, device=self.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, on the CPU.

        If each number is 0 in all processes but one, the sum gathers them, exact to the bit.
        """
        if self.count == 1:
            return numbers
        numbers = numbers.to(self.device)
        dist.all_reduce(numbers)
        return numbers.cpu()

    def from_first(self, number: float) -> float:
        """The first process's value of a number."""
        return float(self.sum(torch.tensor(number if self.first else 0.0, dtype=torch.float64)))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.sum(torch.tensor(float(flag))))

    def gather(self, values: list[Any]) -> list[Any]:
        """The values of all processes, in their order."""
        if self.count == 1:
            return values
        parts: list[list[Any]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, values)
        return [value for part in parts for value in part]


@contextmanager
def watched() -> Iterator[None]:
    """Turn errors of the network library into a sentence about a lost process.

    Raises:
        LostProcessError: instead of the network library's error.
    """
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).splitlines() or [""])[0]
        lost = isinstance(error, dist.DistError) or any(word in reason.lower() for word in _LOST)
        if not (dist.is_initialized() and lost):
            raise
        raise LostProcessError(
            f"the other processes are lost: one of them has ended or does not answer; its own message says why. "
            f"Start again with --resume ({reason[:200]})"
        ) from error
