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
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import connection
from typing import Any

from rdtf.data.items import Item
from rdtf.data.process_file import FileResult, Kind, OneFile
from rdtf.device import usable_cores
from rdtf.files import ShortageError
from rdtf.io.limits import KILLED, WAITING_FACTOR, ending, no_core_file

START_SECONDS = 600.0
"""Seconds for the start of a worker, after which the run ends."""

TRIES = 3
"""A file is tried this many times if the machine lacks something."""
PAUSE_SECONDS = 1.0
"""Seconds between these tries."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_local(
    indices: Sequence[int], item_of: Callable[[int], Item], one_file: OneFile, workers: int | None
) -> Generator[tuple[int, FileResult]]:
    """Indices with the results of their items, in order of completion.

    An item whose worker dies is tried once more in a new worker, because an earlier file may be the cause. If the
    machine lacked something (memory, threads, open files), it is tried in new workers, up to :data:`TRIES` times.

    Args:
        workers: processes; None for one on each core that this process may use.

    Raises:
        RuntimeError: no worker can be started.
        ShortageError: the machine lacked something each time.
    """
    with contextlib.closing(WorkerPool(one_file, workers or usable_cores())) as pool:
        yield from pool.run(indices, item_of)


class WorkerPool:
    """Worker processes, which are kept between runs.

    Args:
        count: most processes.
    """

    def __init__(self, one_file: OneFile, count: int) -> None:
        self.one_file, self.count = one_file, count
        self.workers: list[_Worker] = []

    def close(self) -> None:
        """End all workers at once."""
        for worker in self.workers:
            worker.stop()
        self.workers.clear()

    def run(self, indices: Sequence[int], item_of: Callable[[int], Item]) -> Generator[tuple[int, FileResult]]:
        """See :func:`run_local`."""
        upcoming, again, left = iter(indices), deque[int](), len(indices)
        crashed, short = set[int](), Counter[int]()

        def feed(worker: _Worker) -> None:
            worker.index = again.popleft() if again else next(upcoming, None)
            if worker.index is not None:
                worker.give(item_of(worker.index))

        while left:
            while len(self.workers) < min(self.count, left):
                self.workers.append(_Worker(self.one_file))
            for worker in self.workers:
                if worker.ready and worker.index is None:
                    feed(worker)
            for worker in self._heard():
                index, result = worker.index, worker.hear()
                if result is None:  # it has started
                    continue
                assert index is not None
                if worker.ended or result.kind == Kind.SHORT:
                    worker.stop()
                    self.workers.remove(worker)
                else:
                    feed(worker)
                if result.kind == Kind.SHORT:
                    short[index] += 1
                    if short[index] == TRIES:
                        raise ShortageError(
                            f"{item_of(index).name}: {result.payload.decode()}, {TRIES} times; nothing is wrong with "
                            "the file. Free memory or take fewer --workers; the same command goes on from here"
                        )
                    time.sleep(PAUSE_SECONDS)
                    again.append(index)
                elif worker.crashed and index not in crashed:
                    crashed.add(index)
                    again.appendleft(index)
                else:
                    left -= 1
                    yield index, result

    def _heard(self) -> list[_Worker]:
        """Wait for a worker that has a message, has ended or is overdue; returns all of these."""
        busy = [worker for worker in self.workers if worker.index is not None or not worker.ready]
        timeout = min(worker.deadline for worker in busy) - time.monotonic()
        heard = connection.wait([worker.channel for worker in busy], max(0.0, timeout))
        now = time.monotonic()
        return [worker for worker in busy if worker.channel in heard or now > worker.deadline]


def _work(channel: connection.Connection, one_file: OneFile) -> None:
    """The main function of a worker process: it sends results of items until the channel closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    no_core_file()
    channel.send(None)  # ready
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            channel.send(one_file(channel.recv()))


class _Worker:
    """A worker process in its parent.

    Attributes:
        index: of its item; None if it has none.
        ready: whether it has started. ended: whether it ended, or is to be ended. crashed: whether its decoder may be
            the cause.
        deadline: for its start or its item.
    """

    def __init__(self, one_file: OneFile) -> None:
        self.time_limit = one_file.settings.time_limit
        self.index: int | None = None
        self.ready = self.ended = self.crashed = False
        self.deadline = time.monotonic() + START_SECONDS
        methods = multiprocessing.get_all_start_methods()
        # No plain fork: torch and the decoders have threads and locks, whose state is undefined in a fork.
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload([__name__])  # further workers need no imports
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, one_file), daemon=True)
        with _one_thread():
            self.process.start()
        theirs.close()

    def give(self, item: Item) -> None:
        """Give it an item."""
        self.deadline = time.monotonic() + WAITING_FACTOR * self.time_limit
        with contextlib.suppress(OSError):  # it died while idle, which hear() will find
            self.channel.send(item)

    def hear(self) -> FileResult | None:
        """The result of its item, which may be the reason why it ended; None if it has just started.

        Raises:
            RuntimeError: it could not start.
        """
        if not self.channel.poll():
            if not self.ready:
                raise RuntimeError(f"a worker process did not start within {START_SECONDS:.0f} s")
            self.ended = True
            return FileResult.refused(f"not done after {WAITING_FACTOR * self.time_limit:g} s", Kind.STOPPED)
        try:
            result: FileResult | None = self.channel.recv()
        except (EOFError, OSError):
            return self._cause()
        self.ready = True
        return result

    def _cause(self) -> FileResult:
        """The result of an item whose worker died."""
        self.process.join()
        self.ended, how = True, ending(self.process.exitcode)
        if not self.ready:
            raise RuntimeError(
                f"a worker process could not start ({how}); a script that calls prepare() must be a file "
                "and do so below `if __name__ == '__main__':`"
            )
        if how == "SIGXCPU":
            return FileResult.refused("took more than its limit of processor time", Kind.STOPPED)
        if how == "SIGKILL":  # not by us
            return FileResult.refused(KILLED, Kind.SHORT)
        self.crashed = True
        return FileResult.refused(f"crashed its decoder twice ({how})", Kind.STOPPED)

    def stop(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join()
        self.channel.close()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let a process that starts here use one thread for its numbers. It reads these variables at its start only."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
