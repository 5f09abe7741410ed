"""Processing of one sticker in a worker of any engine.

A result depends only on the file and the settings. Captions and splits come later and need no frames. A result is
bytes, for pipes and for the store.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rdtf.data.checks import describe
from rdtf.data.dataset import FRAMES, SCHEMA, open_batches, pack_frames, unpack_frames
from rdtf.data.fixes import FIXED, fix
from rdtf.data.items import Item
from rdtf.data.keyframes import CLUSTER_COUNTS, cluster_frames, frame_features
from rdtf.data.settings import PrepareSettings
from rdtf.files import shortage
from rdtf.io.limits import fault_of_the_file, limit_time, limited_memory
from rdtf.io.read import LEFT_OUT
from rdtf.pixels import fit
from rdtf.progress import printable
from rdtf.sticker import Sticker, StickerError

ROW_COLUMNS = frozenset(
    {
        *("id", "caption", "captions", "caption_checks", "flippable"),
        *("attributes", "source", "license", "asked_split"),
    }
)
"""Columns of a dataset that come from captions and settings. All other columns are facts about the frames."""
FACTS = pa.schema([field for field in SCHEMA if field.name not in ROW_COLUMNS])
MAX_REASON = 500
_ADDRESS = re.compile(" at 0x[0-9a-fA-F]+")
NO_CONTENT = bytes(32)

Decoder = Callable[..., Sticker]


class Kind(IntEnum):
    """The kind of a result."""

    USED = 0
    REFUSED = 1
    STOPPED = 2  # a limit or a crash; another machine or another limit may work
    SHORT = 3  # the machine lacked something; engines try the file again


@dataclass(frozen=True)
class FileResult:
    """The result of one sticker.

    Attributes:
        kind: kind of the result.
        content: SHA-256 of the frames of a used sticker.
        payload: a row of :data:`FACTS` of a used sticker (see :func:`facts`), otherwise the reason in UTF-8.
    """

    kind: Kind
    content: bytes
    payload: bytes

    @classmethod
    def refused(cls, reason: str, kind: Kind = Kind.REFUSED) -> FileResult:
        """The result of a sticker that cannot be used."""
        reason = printable(_ADDRESS.sub("", reason[:MAX_REASON]))
        return cls(kind, NO_CONTENT, reason.encode())

    def facts(self) -> dict[str, Any]:
        """The row of a used sticker."""
        batch = pa.ipc.read_record_batch(pa.py_buffer(self.payload), FACTS)
        return batch.to_pylist()[0]


@dataclass(frozen=True)
class Job:
    """A job for a worker.

    Attributes:
        item: the sticker, without its caption, which can be large.
        earlier: Arrow file and row of a dataset that has the frames. None: decode the sticker.
    """

    item: Item
    earlier: tuple[Path, int] | None = None


@dataclass(frozen=True)
class OneFile:
    """The function of one job. It pickles.

    Args:
        decoder: called as ``decoder(item, size=..., max_frames=...)``.
    """

    decoder: Decoder
    settings: PrepareSettings

    def __call__(self, job: Job) -> FileResult:
        """Decode a sticker (or read its stored frames) and compute its row of facts."""
        limit_time(self.settings.time_limit)
        limited = False
        try:
            if job.earlier is not None:
                frames, durations, fixes = _earlier_frames(*job.earlier)
            else:
                job.item.load()
                # Computing facts takes some copies of the frames, also as floats.
                copies = 16 * 4 * self.settings.max_frames * self.settings.size**2
                with limited_memory(self.settings.memory_limit + -(-copies // 2**20)):
                    limited = True
                    frames, durations, fixes = self._decode(job.item)
                limited = False
            row = _describe(frames, durations, fixes, self.settings)
            batch = pa.RecordBatch.from_pylist([row], schema=FACTS)
            return FileResult(Kind.USED, row["content"], batch.serialize().to_pybytes())
        except Exception as error:  # any error of a decoder is the reason why the file is rejected
            return self._failed(error, limited)

    def _failed(self, error: Exception, limited: bool) -> FileResult:
        """The result of an error. ``limited``: it happened under the memory limit."""
        lacked = shortage(error)
        if lacked is None:
            return FileResult.refused(
                error.reason if isinstance(error, StickerError) else f"{type(error).__name__}: {error}"
            )
        most = self.settings.memory_limit
        if limited and fault_of_the_file(lacked, most):
            return FileResult.refused(f"needs more than {most} MiB of memory", Kind.STOPPED)
        return FileResult.refused(lacked, Kind.SHORT)

    def _decode(self, item: Item) -> tuple[np.ndarray, np.ndarray, list[str]]:
        settings = self.settings
        crop, clear = settings.crop == "content", settings.background == "transparent"
        # Fixes need the file's own size: mixed edges are narrower there, and cropped frames are not enlarged.
        size = None if crop or clear else settings.size
        sticker = self.decoder(item, size=size, max_frames=settings.max_frames)
        frames, fixes = fix(sticker.frames, crop=crop, clear=clear)
        frames = fit(frames, settings.size)
        assert len(frames) <= settings.max_frames
        if sticker.attributes.get(LEFT_OUT):
            fixes.append(LEFT_OUT)
        # Colour under alpha 0 is cleared, so that it hides no duplicate and takes no space.
        frames = np.where(frames[..., 3:] > 0, frames, np.uint8(0))
        if not frames[..., 3].any():
            raise StickerError(item.path, "every frame is completely transparent")
        return frames, sticker.durations.astype(np.float32), fixes


def _describe(frames: np.ndarray, durations: np.ndarray, fixes: list[str], settings: PrepareSettings) -> dict[str, Any]:
    """The row of :data:`FACTS` of frames."""
    facts = describe(frames, durations)
    return {
        **facts,
        "checks": facts["checks"] + fixes,
        "content": hashlib.sha256(frames.tobytes()).digest(),
        "num_frames": len(frames),
        "size": settings.size,
        "durations": durations.tolist(),
        FRAMES: pack_frames(frames),
        "clusters": cluster_frames(_features(frames, settings), CLUSTER_COUNTS).tolist(),
    }


def _features(frames: np.ndarray, settings: PrepareSettings) -> np.ndarray:
    """Features for clustering frames."""
    if settings.weights is None:
        return frame_features(frames)
    from rdtf.data.vgg import vgg_features  # imports torch, which takes seconds

    return vgg_features(frames, settings.weights)


def _earlier_frames(file: Path, row: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    batch = rows_of(file)
    frames = batch.column(FRAMES)[row].as_buffer()
    count, size, durations = (batch.column(name)[row].as_py() for name in ("num_frames", "size", "durations"))
    fixes = [code for code in batch.column("checks")[row].as_py() if code in (*FIXED, LEFT_OUT)]
    return unpack_frames(frames, count, size), np.asarray(durations, np.float32), fixes


@functools.lru_cache(maxsize=4)
def rows_of(file: Path) -> pa.RecordBatch:
    """The rows of an Arrow file of a dataset, memory-mapped."""
    return open_batches(file)[0]


def stored_facts(file: Path, row: int) -> dict[str, Any]:
    """The row of :data:`FACTS` in an Arrow file of a dataset."""
    return rows_of(file).slice(row, 1).select(FACTS.names).to_pylist()[0]


def code_versions(features: str = "builtin") -> dict[str, dict[str, str]]:
    """Versions that results depend on beside settings: a hash of our own code, and versions of libraries.

    Args:
        features: the setting. The built-in features do not depend on torch.

    Returns:
        For ``frames`` and ``facts`` (see :data:`~rdtf.data.settings.PARTS`), names and versions.
    """
    from importlib.metadata import version

    def source(*modules: str) -> str:
        digest = hashlib.sha256()
        for module in modules:
            file = importlib.util.find_spec(module)
            assert file is not None and file.origin is not None
            digest.update(Path(file.origin).read_bytes())
        return digest.hexdigest()[:16]

    libraries = {name: version(name) for name in ("pillow", "av", "thorvg-python", "resvg_py", "pyarrow")}
    readers = ("read", "job", "pictures", "compositor", "png", "video", "lottie", "lottie_missing", "svg")
    reading = [f"rdtf.io.{name}" for name in (*readers, "multifile", "tables", "archives")]
    reading += ["rdtf.data.items", "rdtf.data.fixes"]
    describing = [f"rdtf.data.{name}" for name in ("process_file", "keyframes", "duplicates", "fixes", "checks")]
    computing = ["numpy", "scipy"]
    if features != "builtin":
        describing.append("rdtf.data.vgg")
        computing.append("torch")
    return {
        "frames": {"the reading code": source("rdtf.pixels", *reading), **libraries},
        "facts": {
            "the describing code": source(*describing),
            **{name: version(name) for name in computing},
        },
    }
