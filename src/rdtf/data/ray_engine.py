"""The Ray engine: the local engine's worker processes, held by actors on the cores of a Ray cluster.

An actor holds a worker process of the local engine, so limits, crashes and their reasons are the same in both engines.
Ray Data would retry or give up a block with all its files: a file that always crashes would be tried for ever, or its
neighbours would be lost. Ray Data would also hold all jobs in its store; here jobs are made when they are needed.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from typing import Any

from rdtf.data.process_file import FileResult, Job, Kind, OneFile
from rdtf.data.workers import WorkerPool
from rdtf.ray_cluster import CALLS_AHEAD, ray_cluster

JOBS_AT_ONCE = 16
"""Most jobs of a call of an actor. A call costs about a millisecond."""
TRIES = 2
"""A file is given up after ending its actor this many times."""


def run_ray(
    indices: Sequence[int], job_of: Callable[[int], Job], one_file: OneFile, workers: int | None
) -> Generator[tuple[int, FileResult]]:
    """Indices with the results of their jobs, in order of completion: :func:`~rdtf.data.workers.run_local` on a
    cluster.

    See :func:`~rdtf.ray_cluster.ray_cluster`. All machines need this package and the stickers under the same paths.

    Args:
        workers: actors with a core each; None for one on each core of the cluster.

    Raises:
        ValueError: Ray is not installed.
        RuntimeError: no actor can be started.
    """
    with ray_cluster(workers) as ray:
        yield from _run(ray, indices, job_of, one_file, workers)


def _run(
    ray: Any, indices: Sequence[int], job_of: Callable[[int], Job], one_file: OneFile, workers: int | None
) -> Generator[tuple[int, FileResult]]:
    actor = ray.remote(num_cpus=1)(_PoolActor)  # Ray does not restart it, so that the file that ended it is known
    pool: dict[Any, deque[tuple[Any, list[int]]]] = {}
    queue, left = _Queue(indices), len(indices)
    try:
        count = workers or int(ray.cluster_resources()["CPU"])
        while left:
            while len(pool) < min(count, left):
                pool[actor.remote(one_file)] = deque()
            for depth in range(1, CALLS_AHEAD + 1):
                for holder, calls in pool.items():
                    if len(calls) < depth and (chunk := queue.take(count)):
                        calls.append((holder.process.remote([job_of(index) for index in chunk]), chunk))
            waiting = {calls[0][0]: holder for holder, calls in pool.items() if calls}
            (first,), _ = ray.wait(list(waiting), num_returns=1)
            holder = waiting[first]
            _, chunk = pool[holder].popleft()
            try:
                results = ray.get(first)
            except ray.exceptions.RayTaskError:
                raise  # an exception in our own code; the actor is alive
            except ray.exceptions.RayError as error:
                if getattr(error, "actor_init_failed", False):
                    raise RuntimeError(f"a Ray worker could not start: {error}") from error
                for _, innocent in pool.pop(holder):
                    queue.again(innocent)
                ray.kill(holder)
                given_up = queue.blame(chunk)
                results = [FileResult.refused("took its worker along twice", Kind.STOPPED) for _ in given_up]
                chunk = given_up
            for index, result in zip(chunk, results, strict=True):
                left -= 1
                yield index, result
    finally:
        for holder in pool:
            ray.kill(holder)


class _PoolActor:
    """An actor with a worker process."""

    def __init__(self, one_file: OneFile) -> None:
        # A worker process would import the main module of its parent, which is Ray's here.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self.pool = WorkerPool(one_file, 1)

    def process(self, jobs: list[Job]) -> list[FileResult]:
        results = dict(self.pool.run(range(len(jobs)), jobs.__getitem__))
        return [results[position] for position in range(len(jobs))]


class _Queue:
    """Jobs that no actor has. Jobs that may have ended an actor are given out one at a time."""

    def __init__(self, indices: Sequence[int]) -> None:
        self.upcoming: Iterator[int] = iter(indices)
        self.left = len(indices)
        self.returned, self.alone = deque[int](), deque[int]()
        self.tries = Counter[int]()

    def take(self, workers: int) -> list[int]:
        """The next jobs, fewer towards the end, so that all actors end at about the same time."""
        if self.alone:
            self.left -= 1
            return [self.alone.popleft()]
        most = max(1, min(JOBS_AT_ONCE, self.left // (2 * workers)))
        chunk = [self.returned.popleft() for _ in range(min(most, len(self.returned)))]
        chunk += islice(self.upcoming, most - len(chunk))
        self.left -= len(chunk)
        return chunk

    def again(self, chunk: list[int]) -> None:
        """Take back jobs that were not processed."""
        self.left += len(chunk)
        self.returned.extend(chunk)

    def blame(self, chunk: list[int]) -> list[int]:
        """Take back the jobs of an actor that died; returns jobs to give up."""
        if len(chunk) == 1:
            self.tries[chunk[0]] += 1
            if self.tries[chunk[0]] == TRIES:
                return chunk
        self.left += len(chunk)
        self.alone.extend(chunk)
        return []
