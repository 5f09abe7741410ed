"""The processes of a run, one a device, and what they have to agree on.

Plain ``python`` makes one; ``torchrun`` and ``accelerate launch`` make several. Everything that decides something is a
pure function of the step or is agreed on here, so that the run's state is the same in each of them; the first process
alone writes files.
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

_PATIENCE = timedelta(minutes=30)  # for a process that hangs; one that ends is noticed at once
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out")  # in such messages


class LostProcessError(RuntimeError):
    """Another process of the run has ended or does not answer."""

    exit_code = 2


def is_first() -> bool:
    """Whether this is the process that writes and prints, as its launcher tells; before they have met."""
    return os.environ.get("RANK", "0") == "0"


class Devices:
    """This process among its like.

    Attributes:
        rank: its number, from 0. count: how many there are.
        device: where it computes.

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
                # No second copy of the gradients.
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
        """The others wait until the first process is through with what stands inside."""
        return self._accelerator.main_process_first()

    def wait(self) -> None:
        """Until all processes have come here."""
        self._accelerator.wait_for_everyone()

    def share(self, net: nn.Module, shard: bool) -> nn.Module:
        """The module to call instead of ``net``: the same parameters, whose gradients are summed over all processes.

        With ``shard`` (FSDP2) each process keeps a part of every parameter of ``net``, in place, and puts a level
        together while it computes with it.
        """
        if self.count == 1:
            return net
        if not shard:
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of dimensions of size 1
            return self._accelerator.prepare_model(net)
        for parameter in net.parameters():
            parameter.data = parameter.data.contiguous()  # FSDP takes no other memory order
        for level in [module for module in net.modules() if isinstance(module, Level)]:
            if level.spatial is not None:  # the text's keys and values are made outside of the level's pass
                fully_shard(level.spatial.cross_attention.kv)
            fully_shard(level)
        fully_shard(net)
        return net

    @contextmanager
    def gradients(self, net: nn.Module, last: bool) -> Iterator[None]:
        """A pass of a step, forward and backward; the gradients are summed over the processes in its last pass."""
        if isinstance(net, FSDPModule):
            net.set_requires_gradient_sync(last)
            yield
        else:
            with nullcontext() if last else self._accelerator.no_sync(net):
                yield

    def passes(self, own: int, net: nn.Module) -> int:
        """How many passes this process has to make for ``own`` batches: as many as any other where they are sharded,
        for parameters are put together by all processes at once.
        """
        if not isinstance(net, FSDPModule):
            return own
        most = torch.tensor(own, device=self.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over the processes, the same in all of them, on the CPU.

        Where each number is 0 in all processes but one, this is a gathering, exact to the bit.
        """
        if self.count == 1:
            return numbers
        numbers = numbers.to(self.device)
        dist.all_reduce(numbers)
        return numbers.cpu()

    def from_first(self, number: float) -> float:
        """The first process's number."""
        return float(self.sum(torch.tensor(number if self.first else 0.0, dtype=torch.float64)))

    def any(self, flag: bool) -> bool:
        """Whether it holds in any of the processes."""
        return bool(self.sum(torch.tensor(float(flag))))

    def gather(self, values: list[Any]) -> list[Any]:
        """Everybody's values, in the order of the processes."""
        if self.count == 1:
            return values
        parts: list[list[Any]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, values)
        return [value for part in parts for value in part]


@contextmanager
def watched() -> Iterator[None]:
    """Says it in words when another process of the run is gone.

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
