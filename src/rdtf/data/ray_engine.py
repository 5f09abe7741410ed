"""The Ray engine: the local engine's worker processes, held by the processes of a Ray cluster.

A task is one file. Its process holds a worker process of the local engine, so limits, crashes and their reasons are the
same in both engines. Ray Data would retry or give up a block with all its files, and hold all jobs in its store; here
jobs are made when they are needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from itertools import islice
from typing import Any

from rdtf.data.items import Item
from rdtf.data.process_file import FileResult, Kind, OneFile
from rdtf.data.workers import WorkerPool
from rdtf.ray_cluster import CALLS_AHEAD, ray_cluster

RETRIES = 1
"""A file that ends its Ray process is tried again this often."""


def run_ray(
    indices: Sequence[int], item_of: Callable[[int], Item], one_file: OneFile, workers: int | None
) -> Generator[tuple[int, FileResult]]:
    """Indices with the results of their items, in order of completion: :func:`~rdtf.data.workers.run_local` on a
    cluster.

    See :func:`~rdtf.ray_cluster.ray_cluster`. All machines need this package and the stickers under the same paths.

    Args:
        workers: tasks at a time, with a core each; None for all cores of the cluster.

    Raises:
        ValueError: Ray is not installed.
    """
    with ray_cluster(workers) as ray:
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_process)
        shared, upcoming = ray.put(one_file), iter(indices)
        most = workers or CALLS_AHEAD * int(ray.cluster_resources()["CPU"])
        waiting: dict[Any, int] = {}
        for _ in indices:
            for index in islice(upcoming, most - len(waiting)):
                waiting[task.remote(shared, item_of(index))] = index
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            index = waiting.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError:
                raise  # an exception of the local engine
            except ray.exceptions.RayError:
                result = FileResult.refused("took its worker along twice", Kind.STOPPED)
            yield index, result


_held: list[WorkerPool] = []
"""The pool of this process of Ray, with one worker."""


def _process(one_file: OneFile, item: Item) -> FileResult:
    if not _held or _held[0].one_file != one_file:
        for pool in _held:
            pool.close()
        # A worker process would import the main module of its parent, which is Ray's here.
        vars(sys.modules["__main__"]).pop("__file__", None)
        _held[:] = [WorkerPool(one_file, 1)]
    ((_, result),) = _held[0].run([0], lambda _: item)
    return result
