"""Processing of one sticker in a worker of any engine.

A result depends only on the file and the settings. Captions and splits come later and need no frames. A result is
bytes, for pipes and for the store.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rdtf.data.checks import describe
from rdtf.data.dataset import FRAMES, SCHEMA, pack_frames
from rdtf.data.fixes import clear_background, crop_to_content
from rdtf.data.items import Item
from rdtf.data.keyframes import cluster_frames, frame_features
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
        payload: a row of :data:`FACTS` of a used sticker (see :func:`facts_of`), otherwise the reason in UTF-8.
    """

    kind: Kind
    content: bytes
    payload: bytes

    @classmethod
    def refused(cls, reason: str, kind: Kind = Kind.REFUSED) -> FileResult:
        """The result of a sticker that cannot be used."""
        reason = printable(_ADDRESS.sub("", reason[:MAX_REASON]))
        return cls(kind, NO_CONTENT, reason.encode())


def facts_of(payload: bytes) -> dict[str, Any]:
    """The row of :data:`FACTS` in the payload of a used sticker."""
    return pa.ipc.read_record_batch(pa.py_buffer(payload), FACTS).to_pylist()[0]


@dataclass(frozen=True)
class OneFile:
    """The function of one file. It pickles.

    Args:
        decoder: called as ``decoder(item, size=..., max_frames=...)``.
    """

    decoder: Decoder
    settings: PrepareSettings

    def __call__(self, item: Item) -> FileResult:
        """Decode a sticker and compute its row of facts."""
        settings = self.settings
        limit_time(settings.time_limit)
        limited = False
        try:
            item.load()
            # Computing facts takes some copies of the frames, also as floats.
            copies = 16 * 4 * settings.max_frames * settings.size**2
            with limited_memory(settings.memory_limit + -(-copies // 2**20)):
                limited = True
                sticker = self._decode(item)
            limited = False
            row = _describe(sticker, settings)
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

    def _decode(self, item: Item) -> Sticker:
        settings = self.settings
        crop, clear = settings.crop == "content", settings.background == "transparent"
        # Fixes need the file's own size: mixed edges are narrower there, and cropped frames are not enlarged.
        size = None if crop or clear else settings.size
        sticker = self.decoder(item, size=size, max_frames=settings.max_frames)
        frames = clear_background(sticker.frames) if clear else sticker.frames
        frames = fit(crop_to_content(frames) if crop else frames, settings.size)
        assert len(frames) <= settings.max_frames
        # Colour under alpha 0 is cleared, so that it hides no duplicate and takes no space.
        frames = np.where(frames[..., 3:] > 0, frames, np.uint8(0))
        if not frames[..., 3].any():
            raise StickerError(item.path, "every frame is completely transparent")
        return Sticker(frames, sticker.durations, attributes=sticker.attributes)


def _describe(sticker: Sticker, settings: PrepareSettings) -> dict[str, Any]:
    """The row of :data:`FACTS` of a sticker."""
    frames, durations = sticker.frames, sticker.durations.astype(np.float32)
    facts = describe(frames, durations)
    if settings.weights is None:
        features = frame_features(frames)
    else:
        from rdtf.data.vgg import vgg_features  # imports torch, which takes seconds

        features = vgg_features(frames, settings.weights)
    return {
        **facts,
        "checks": facts["checks"] + [LEFT_OUT] * bool(sticker.attributes.get(LEFT_OUT)),
        "content": hashlib.sha256(frames.tobytes()).digest(),
        "num_frames": len(frames),
        "size": settings.size,
        "durations": durations.tolist(),
        FRAMES: pack_frames(frames),
        "clusters": cluster_frames(features).tolist(),
    }


def code_versions() -> dict[str, str]:
    """Names and versions that results depend on beside settings: a hash of our own code, and versions of libraries."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in [package / "pixels.py", *sorted(package.glob("io/*.py")), *sorted(package.glob("data/*.py"))]:
        digest.update(file.read_bytes())
    libraries = ("pillow", "av", "thorvg-python", "resvg_py", "pyarrow", "numpy", "scipy", "torch")
    return {"the code of rdtf": digest.hexdigest()[:16], **{name: version(name) for name in libraries}}
