"""The local engine: worker processes that may crash or hang without ending the run.

Decoders are native code and files come from anywhere, so the main process decodes nothing. :mod:`rdtf.io.limits` has
the limits, and explains the difference to the process of :mod:`rdtf.io.wall`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing import connection
from typing import Any

from rdtf.data.process_file import FileResult, Job, Kind, OneFile
from rdtf.device import usable_cores
from rdtf.files import ShortageError
from rdtf.io.limits import (
    KILLED,
    WAITING_FACTOR,
    ending,
    no_core_file,
    was_killed,
    was_over_time,
)

START_SECONDS = 600.0
"""Seconds for the start of a worker, after which the run ends."""
JOBS_AHEAD = 2
"""Jobs in a worker's queue, with the current one, so that it never waits for this process."""

TRIES = 3
"""A file is tried this many times if the machine lacks something."""
PAUSE_SECONDS = 1.0
"""Seconds between these tries."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_local(
    indices: Sequence[int], job_of: Callable[[int], Job], one_file: OneFile, workers: int | None
) -> Generator[tuple[int, FileResult]]:
    """Indices with the results of their jobs, in order of completion.

    A job whose worker dies is tried once more in a new worker, because an earlier file may be the cause. If the machine
    lacked something (memory, threads, open files), a job is tried in new workers, up to :data:`TRIES` times.

    Args:
        workers: processes; None for one on each core that this process may use.

    Raises:
        RuntimeError: no worker can be started.
        ShortageError: the machine lacked something each time.
    """
    with contextlib.closing(WorkerPool(one_file, workers or usable_cores())) as pool:
        yield from pool.run(indices, job_of)


class WorkerPool:
    """Worker processes, which are kept between runs.

    Args:
        count: most processes.
    """

    def __init__(self, one_file: OneFile, count: int) -> None:
        self.one_file, self.count = one_file, count
        self.workers: list[_Worker] = []
        self.short = Counter[str]()

    def close(self) -> None:
        """End all workers at once."""
        for worker in self.workers:
            worker.stop()
        self.workers.clear()

    def run(self, indices: Sequence[int], job_of: Callable[[int], Job]) -> Generator[tuple[int, FileResult]]:
        """See :func:`run_local`."""
        upcoming, again, crashed = iter(indices), deque[int](), set[int]()
        left, pool = len(indices), self.workers
        while left:
            while len(pool) < min(self.count, left):
                pool.append(_Worker(self.one_file))
            for depth in range(1, JOBS_AHEAD + 1):
                for worker in pool:
                    if worker.ready and len(worker.jobs) < depth:
                        index = again.popleft() if again else next(upcoming, None)
                        if index is None:
                            continue
                        job = job_of(index)
                        if worker.jobs and job.item.parts:
                            again.appendleft(index)  # a large job could block: the worker may be filling its pipe too
                        else:
                            worker.give(index, job)
            busy = [worker for worker in pool if worker.jobs or not worker.ready]
            timeout = min(worker.deadline for worker in busy) - time.monotonic()
            heard = connection.wait([worker.channel for worker in busy], max(0.0, timeout))
            for worker in busy:
                if worker.channel in heard or worker.channel.poll():
                    done, died = worker.hear()
                    lacked = None
                    if done is not None:
                        if done[1].kind == Kind.SHORT:
                            worker.jobs.appendleft(done[0])
                            lacked = done[1].payload.decode()
                        else:
                            left -= 1
                            yield done
                    if lacked is None and not died:
                        continue
                    why = worker.ending() if died else None
                    if died and was_killed(worker.process.exitcode):  # not by us
                        lacked = KILLED
                    if lacked is not None:
                        self._short(job_of(worker.jobs[0]), lacked)
                        worker.stop()
                        pool.remove(worker)
                        again.extend(worker.jobs)
                        continue
                elif time.monotonic() > worker.deadline:
                    why = worker.overdue()
                else:
                    continue
                worker.stop()
                pool.remove(worker)
                first, *rest = worker.jobs
                again.extend(rest)
                if why is None and first not in crashed:
                    crashed.add(first)
                    again.appendleft(first)
                else:
                    left -= 1
                    yield (
                        first,
                        FileResult.refused(
                            why or f"crashed its decoder twice ({ending(worker.process.exitcode)})", Kind.STOPPED
                        ),
                    )

    def _short(self, job: Job, lacked: str) -> None:
        """Wait before trying a job again; raise after the last try."""
        self.short[job.item.name] += 1
        if self.short[job.item.name] == TRIES:
            raise ShortageError(
                f"{job.item.name}: {lacked}, {TRIES} times; nothing is wrong with the file. Free memory or take fewer "
                "--workers; the same command goes on from here"
            )
        time.sleep(PAUSE_SECONDS)


def _work(channel: connection.Connection, one_file: OneFile) -> None:
    """The main function of a worker process: it sends results of jobs until the channel closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    no_core_file()
    channel.send(None)  # ready
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            channel.send(one_file(channel.recv()))


class _Worker:
    """A worker process in its parent: its jobs, and the deadline of the first job."""

    def __init__(self, one_file: OneFile) -> None:
        self.time_limit = one_file.settings.time_limit
        self.jobs: deque[int] = deque()
        self.ready = False
        self.deadline = time.monotonic() + START_SECONDS
        methods = multiprocessing.get_all_start_methods()
        # No plain fork: torch and the decoders have threads and locks, whose state is undefined in a fork.
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload([__name__])  # further workers need no imports
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, one_file), daemon=True)
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))  # read only at the start of a process
        try:
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()

    def give(self, index: int, job: Job) -> None:
        if not self.jobs:
            self._on_the_next()
        self.jobs.append(index)
        with contextlib.suppress(OSError):  # it died while idle, which hear() will find
            self.channel.send(job)

    def hear(self) -> tuple[tuple[int, FileResult] | None, bool]:
        """The next result, or None, and whether the worker has died."""
        try:
            result = self.channel.recv()
        except (EOFError, OSError):
            return None, True
        if not self.ready:
            self.ready = True
            return None, False
        self._on_the_next()
        return (self.jobs.popleft(), result), False

    def _on_the_next(self) -> None:
        self.deadline = time.monotonic() + WAITING_FACTOR * self.time_limit

    def ending(self) -> str | None:
        """The reason of its death if the first job is certainly the cause, otherwise None."""
        self.process.join()
        if not self.ready:
            raise RuntimeError(
                f"a worker process could not start (exit code {self.process.exitcode}); a script that calls prepare() "
                "must be a file and do so below `if __name__ == '__main__':`"
            )
        return "took more than its limit of processor time" if was_over_time(self.process.exitcode) else None

    def overdue(self) -> str:
        """The reason for giving up the job after the deadline."""
        if not self.ready:
            raise RuntimeError(f"a worker process did not start within {START_SECONDS:.0f} s")
        return f"not done after {WAITING_FACTOR * self.time_limit:g} s"

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.channel.close()
