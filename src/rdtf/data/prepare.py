"""From folders of sticker files to a prepared dataset, with a reason for every file that is not in it.

Decoders are native code and files come from anywhere, so each file is decoded in a worker process, which may crash
or hang without taking the run along. What a worker returns depends on the file alone, and rows are written in the
order of the files, so that the same input gives the same bytes whatever the number of workers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rdtf.data.captions import SPLITS, is_flippable
from rdtf.data.dataset import FORMAT, MANIFEST, SCHEMA, Manifest, Rejection, pack_frames, read_manifest
from rdtf.data.keyframes import CLUSTER_COUNTS, cluster_frames, coverage, frame_features, loop_seam, motion
from rdtf.data.read import SUFFIXES
from rdtf.data.sources import Item, find_items, source_labels
from rdtf.progress import bars
from rdtf.sticker import Sticker, StickerError

ROWS_PER_FILE = 2048
BYTES_PER_FILE = 256 * 2**20
START_SECONDS = 600.0
"""How long a worker may take to start before the run is given up."""
WAITING_FACTOR = 10
"""How many times its limit of processor time a file may take by the clock: a busy machine is no file's fault."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Decoder = Callable[..., Sticker]


class PrepareSettings(BaseModel):
    """Settings of :func:`prepare`.

    Attributes:
        size: height and width of the frames in pixels.
        max_frames: longer stickers are thinned out to this many.
        splits: shares of train, val and test; they sum to 1.
        split_by: what the split is drawn from: the frames, or the first caption, so that equal captions (an
            emoji as a GIF and as a Lottie) are never on two sides.
        seed: of the splits and clusterings.
        time_limit: seconds of processor time that one file may take.
        workers: processes; None for one a core. Changes nothing in the dataset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int = Field(64, ge=8, le=1024)
    max_frames: int = Field(40, ge=1, le=1000)
    splits: tuple[float, float, float] = (0.9, 0.05, 0.05)
    split_by: Literal["content", "caption"] = "content"
    seed: int = Field(0, ge=0)
    time_limit: float = Field(30.0, gt=0)
    workers: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _shares(self) -> PrepareSettings:
        if min(self.splits) < 0 or abs(sum(self.splits) - 1) > 1e-6:
            raise ValueError(f"splits must be three shares that sum to 1, got {self.splits}")
        return self


@dataclass(frozen=True)
class PrepareReport:
    """What :func:`prepare` did.

    Attributes:
        folder: the dataset.
        manifest: as written into it.
        seconds: wall-clock time.
    """

    folder: Path
    manifest: Manifest
    seconds: float

    @property
    def rejected(self) -> list[Rejection]:
        """What is not in the dataset, and why."""
        return self.manifest.rejected

    def summary(self) -> str:
        """A few lines for people."""
        counts = ", ".join(f"{name} {count:,}" for name, count in self.manifest.counts.items())
        sources = ", ".join(f"{name} {count:,}" for name, count in self.manifest.sources.items())
        total = sum(self.manifest.counts.values())
        lines = [f"{self.folder}: {total:,} stickers in {self.seconds:.0f} s ({counts}; from {sources})"]
        if self.rejected:
            lines.append(f"{len(self.rejected):,} rejected (all in {self.folder / MANIFEST}), such as:")
            lines += [f"  {rejection.file}: {rejection.reason}" for rejection in self.rejected[:5]]
        return "\n".join(lines)


def prepare(
    sources: Sequence[Path],
    out: Path,
    settings: PrepareSettings | None = None,
    *,
    overwrite: bool = False,
    decoder: Decoder = Item.read,
) -> PrepareReport:
    """Read folders of sticker files (with their subfolders) into a dataset at ``out``.

    Rows are in the order of the sources, within each in the order of the paths. Of stickers whose frames are equal
    once scaled, the first one stays. The dataset appears whole or not at all.

    Args:
        sources: folders; nothing is followed out of them.
        out: a new folder, outside of the sources.
        settings: defaults if None.
        overwrite: replace an earlier dataset at ``out`` (nothing else is ever replaced).
        decoder: called as ``decoder(item, size=..., max_frames=...)`` in the workers; must pickle.

    Raises:
        ValueError: a source is missing or has no stickers, ``out`` is in the way, or no sticker could be used.
    """
    started = time.monotonic()
    settings = settings or PrepareSettings.model_validate({})
    sources, out = [Path(source) for source in sources], Path(out)
    _check_places(sources, out, overwrite)
    jobs: list[Item] = []
    rejected: list[Rejection] = []
    passed_over = 0
    for source, label in zip(sources, source_labels(sources), strict=True):
        found = find_items(source, label)
        if not found.items:
            reasons = "".join(f"; {problem.file}: {problem.reason}" for problem in found.problems[:3])
            raise ValueError(f"{source} holds no sticker (known endings: {', '.join(sorted(SUFFIXES))}){reasons}")
        jobs += found.items
        rejected += found.problems
        passed_over += found.passed_over

    # Beside the target, so that the last rename stays on one file system.
    building = out.absolute().with_name(f".{out.absolute().name}.building-{os.getpid()}")
    building.mkdir(parents=True)
    try:
        writer = _Writer(building)
        digest = hashlib.sha256()
        owners: dict[str, str] = {}
        counts, origins, licenses = Counter({name: 0 for name in SPLITS}), Counter[str](), Counter[str]()
        with bars() as progress:
            task = progress.add_task("preparing", total=len(jobs), note="")
            for job, result in zip(jobs, _decode(jobs, decoder, settings), strict=True):
                progress.update(task, advance=1, note=f"{len(rejected)} rejected")
                if isinstance(result, StickerError):
                    rejected.append(Rejection(file=job.name, reason=result.reason))
                    continue
                row, content = result
                owner = owners.setdefault(content, job.name)
                if owner != job.name:
                    rejected.append(Rejection(file=job.name, reason=f"duplicate of {owner}"))
                    continue
                writer.add(row)
                # All but the frames, for which the id stands: caches of anything in a row may rely on it.
                digest.update(json.dumps({**row, "frames": None}, sort_keys=True).encode())
                counts[row["split"]] += 1
                origins[job.name.partition("/")[0]] += 1
                if row["license"] is not None:
                    licenses[row["license"]] += 1
        writer.flush()
        if not writer.files:
            shown = "".join(f"\n  {rejection.file}: {rejection.reason}" for rejection in rejected[:5])
            raise ValueError(f"none of the {len(jobs)} stickers could be used:{shown}")
        manifest = Manifest(
            format=FORMAT,
            settings=settings.model_dump(mode="json", exclude={"workers", "time_limit"}),
            files=writer.files,
            counts=dict(counts),
            sources=dict(sorted(origins.items())),
            licenses=dict(sorted(licenses.items())),
            fingerprint=digest.hexdigest()[:16],
            rejected=sorted(rejected, key=lambda rejection: (rejection.file, rejection.reason)),
            passed_over=passed_over,
        )
        (building / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", "utf-8")
        _put_in_place(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return PrepareReport(out, manifest, time.monotonic() - started)


def _check_places(sources: Sequence[Path], out: Path, overwrite: bool) -> None:
    if not sources:
        raise ValueError("give at least one folder of stickers")
    for source in sources:
        if not source.is_dir():
            raise ValueError(f"{source}: no such folder; a source is a folder of sticker files")
        here, there = source.resolve(), out.resolve()
        if there.is_relative_to(here) or here.is_relative_to(there):
            raise ValueError(f"the dataset {out} and its source {source} lie within each other; choose another folder")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose another folder")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise ValueError(f"{out} is not empty; choose another folder, or replace an older dataset by --overwrite")
        read_manifest(out)  # raises unless it is a dataset


def _put_in_place(building: Path, out: Path) -> None:
    old = building.with_name(building.name + "-old")
    if out.is_dir():
        out.rename(old)
    try:
        building.rename(out)
    except OSError:
        if old.is_dir():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


class _Writer:
    """Rows into numbered Arrow files, of which only the last unwritten one is held in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._bytes += len(row["frames"])
        if len(self._rows) >= ROWS_PER_FILE or self._bytes >= BYTES_PER_FILE:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        name = f"stickers-{len(self.files):05d}.arrow"
        with pa.OSFile(str(self.folder / name), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as stream:
            stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
        self.files[name] = len(self._rows)
        self._rows, self._bytes = [], 0


_Result = tuple[dict[str, Any], str] | StickerError


def _make_row(job: Item, decoder: Decoder, settings: PrepareSettings) -> tuple[dict[str, Any], str]:
    """The row of one file and the hash of its frames: what a worker does."""
    sticker = decoder(job, size=settings.size, max_frames=settings.max_frames)
    frames, texts = sticker.frames, job.caption.texts
    assert frames.shape[1:] == (settings.size, settings.size, 4) and len(frames) <= settings.max_frames
    # What is under alpha 0 means nothing: it must neither hide a duplicate nor take room.
    frames = np.where(frames[..., 3:] > 0, frames, np.uint8(0))
    if not frames[..., 3].any():
        raise StickerError(job.path, "every frame is completely transparent")
    content = hashlib.sha256(frames.tobytes())
    key = texts[0] if settings.split_by == "caption" else content.hexdigest()
    features = frame_features(frames)
    row = {
        "id": hashlib.sha256(content.digest() + texts[0].encode()).hexdigest()[:16],
        "caption": texts[0],
        "captions": list(texts),
        "attributes": json.dumps(job.caption.attributes, sort_keys=True),
        "source": job.name,
        "license": job.caption.license,
        "split": job.caption.split or _split(key, settings),
        "num_frames": len(frames),
        "size": settings.size,
        "durations": sticker.durations.astype(np.float32).tolist(),
        "frames": pack_frames(frames),
        "coverage": coverage(frames).astype(np.float32).tolist(),
        "motion": motion(frames),
        "loops": loop_seam(frames),
        "flippable": all(is_flippable(text) for text in texts),
        "clusters": [cluster_frames(features, k, settings.seed).tolist() for k in CLUSTER_COUNTS],
    }
    return row, content.hexdigest()


def _split(key: str, settings: PrepareSettings) -> str:
    """A split drawn from the key alone: it stays when stickers are added."""
    digest = hashlib.sha256(f"{settings.seed}/{key}".encode()).digest()
    drawn = int.from_bytes(digest[:8], "big") / 2**64
    train, val, _ = settings.splits
    return SPLITS[0] if drawn < train else SPLITS[1] if drawn < train + val else SPLITS[2]


def _work(channel: connection.Connection, decoder: Decoder, settings: PrepareSettings) -> None:
    """The main function of a worker process: rows for jobs until the channel closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sees to the end
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel.send(None)  # up and running
    while True:
        try:
            job = channel.recv()
        except EOFError:
            return
        _limit_processor_time(settings.time_limit)
        result: _Result
        try:
            result = _make_row(job, decoder, settings)
        except StickerError as error:
            result = StickerError(job.path, error.reason)
        except Exception as error:  # whatever a decoder does on a bad file is that file's reason, and told
            result = StickerError(job.path, f"{type(error).__name__}: {error}"[:500])
        channel.send(result)


def _limit_processor_time(seconds: float) -> None:
    """Have the system end this process (SIGXCPU) when it has computed for this much longer, to the next second."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(usage.ru_utime + usage.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


class _Worker:
    """A worker process as the parent sees it: which job it is on, and until when it may be."""

    def __init__(self, decoder: Decoder, settings: PrepareSettings) -> None:
        methods = multiprocessing.get_all_start_methods()
        # Never a plain fork: torch and the decoders hold threads and locks, which a fork leaves in any state.
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload([__name__])  # so that another worker costs no second import
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, decoder, settings), daemon=True)
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))  # read when a process starts, never after
        try:
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()
        self.ready = False
        self.job: int | None = None
        self.deadline = time.monotonic() + START_SECONDS

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.channel.close()


def _decode(jobs: Sequence[Item], decoder: Decoder, settings: PrepareSettings) -> Iterator[_Result]:
    """Results for the jobs, in their order.

    A job whose worker dies is tried once more in another: an earlier file, or a lack of memory, may be to blame.
    """
    count = min(settings.workers or os.cpu_count() or 1, len(jobs))
    ahead = 64 * count  # how far workers may run ahead of the slowest file, so that memory stays flat
    waiting = deque(range(len(jobs)))
    crashed: set[int] = set()
    results: dict[int, _Result] = {}
    workers: list[_Worker] = []
    try:
        for next_up in range(len(jobs)):
            while next_up not in results:
                while len(workers) < min(count, len(waiting) + sum(worker.job is not None for worker in workers)):
                    workers.append(_Worker(decoder, settings))
                for worker in workers:
                    if worker.ready and worker.job is None and waiting and waiting[0] < next_up + ahead:
                        worker.job = waiting.popleft()
                        worker.deadline = time.monotonic() + WAITING_FACTOR * settings.time_limit
                        with contextlib.suppress(OSError):  # it died while idle: noticed below
                            worker.channel.send(jobs[worker.job])
                busy = [worker for worker in workers if worker.job is not None or not worker.ready]
                timeout = min(worker.deadline for worker in busy) - time.monotonic()
                heard = connection.wait([worker.channel for worker in busy], max(0.0, timeout))
                for worker in busy:
                    if worker.channel in heard:
                        done = _hear(worker, jobs, results, waiting, crashed)
                    elif done := time.monotonic() > worker.deadline:
                        if worker.job is None:
                            raise RuntimeError(f"a worker process did not start within {START_SECONDS:.0f} s")
                        reason = f"not done after {WAITING_FACTOR * settings.time_limit:g} s"
                        results[worker.job] = StickerError(jobs[worker.job].path, reason)
                    if done:
                        worker.stop()
                        workers.remove(worker)
            yield results.pop(next_up)
    finally:
        for worker in workers:
            worker.stop()


def _hear(
    worker: _Worker, jobs: Sequence[Item], results: dict[int, _Result], waiting: deque[int], crashed: set[int]
) -> bool:
    """Take what a worker sent; True if it has died instead."""
    try:
        message = worker.channel.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        if not worker.ready:
            raise RuntimeError(
                f"a worker process could not start (exit code {code}); a script that calls prepare() "
                "must be a file and do so below `if __name__ == '__main__':`"
            ) from None
        assert worker.job is not None
        if code == -signal.SIGXCPU:
            results[worker.job] = StickerError(jobs[worker.job].path, "took more than its limit of processor time")
        elif worker.job in crashed:
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            results[worker.job] = StickerError(jobs[worker.job].path, f"crashed its decoder twice ({how})")
        else:
            crashed.add(worker.job)
            waiting.appendleft(worker.job)
        return True
    if not worker.ready:
        worker.ready = True
    else:
        assert worker.job is not None
        results[worker.job] = message
        worker.job = None
    return False
