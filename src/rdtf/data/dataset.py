"""The prepared dataset: its files, and reading through a memory map."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from rdtf.data.captions import SPLITS
from rdtf.data.duplicates import SIGNATURE_BYTES
from rdtf.sticker import Sticker

_FAMILY = "rdtf-stickers/"
FORMAT = f"{_FAMILY}3"
MANIFEST = "manifest.json"
CACHE = "cache"
"""Folder in a dataset's folder for files that can be made again."""
FRAMES = "frames"
LEFT_OUT = -1
"""Split number of rows that the index leaves out."""
_BEHIND = frozenset({FRAMES, "asked_split", "content", "signature", "extent"})  # not in a record

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("license", pa.string()),
        pa.field("asked_split", pa.string()),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("size", pa.int32(), nullable=False),
        pa.field("durations", pa.list_(pa.float32()), nullable=False),
        pa.field(FRAMES, pa.large_binary(), nullable=False),
        pa.field("coverage", pa.list_(pa.float32()), nullable=False),
        pa.field("motion", pa.float32(), nullable=False),
        pa.field("loops", pa.bool_(), nullable=False),
        pa.field("seam", pa.float32()),
        pa.field("flippable", pa.bool_(), nullable=False),
        pa.field("clusters", pa.list_(pa.list_(pa.int8())), nullable=False),
        pa.field("content", pa.binary(32), nullable=False),
        pa.field("signature", pa.binary(SIGNATURE_BYTES), nullable=False),
        pa.field("extent", pa.float32(), nullable=False),
        pa.field("checks", pa.list_(pa.string()), nullable=False),
        pa.field("caption_checks", pa.list_(pa.string()), nullable=False),
    ]
)
"""Columns of the Arrow files, one row a sticker. ``attributes`` is JSON, ``frames`` is from :func:`pack_frames`,
``content`` is the SHA-256 of the frames, ``signature`` and ``extent`` are from
:func:`~rdtf.data.duplicates.signature`, ``asked_split`` is what the metadata asks for."""

INDEX_SCHEMA = pa.schema([pa.field("split", pa.int8(), nullable=False), pa.field("group", pa.int32(), nullable=False)])
"""Columns of the index, one row for each row of the Arrow files: see :class:`rdtf.data.index.Index`."""


class Rejection(BaseModel):
    """A file (or a line of a metadata file) that is not in the dataset, and why."""

    model_config = ConfigDict(frozen=True)
    file: str
    reason: str


class Manifest(BaseModel):
    """The content of ``manifest.json``. It has no times and no absolute paths.

    Attributes:
        format: :data:`FORMAT`.
        settings: the settings that shape the content.
        files: the Arrow files, in order, with their numbers of rows.
        index: the file of the index, see :mod:`rdtf.data.index`.
        counts: stickers per split, without those left out by the index.
        sources: stickers per source folder, by its label.
        licenses: stickers per licence named in metadata.
        groups: groups of near-duplicates.
        checks: stickers for each code of :mod:`rdtf.data.checks`, of frames and captions.
        fingerprint: hash over all rows (with the hash of the frames) and the index, in order.
        rejected: files that were left out, with the reasons.
        passed_over: number of captions, read-mes and hidden files, which are no stickers.
    """

    format: str
    settings: dict[str, Any]
    files: dict[str, int]
    index: str
    counts: dict[str, int]
    sources: dict[str, int]
    licenses: dict[str, int]
    groups: int
    checks: dict[str, int]
    fingerprint: str
    rejected: list[Rejection]
    passed_over: int


@dataclass(frozen=True)
class StickerRecord:
    """The record of a sticker, without its frames.

    Attributes:
        id: 16 hex digits, hash of frames and caption.
        caption: the first of ``captions``.
        captions: at least one text; empty if nothing is known.
        attributes: further metadata.
        source: the file it came from, below and with the label of its source folder.
        license: as the metadata names it, or None.
        split: ``train``, ``val`` or ``test``.
        num_frames: 1 or more.
        size: height and width in pixels.
        durations: milliseconds of each frame.
        coverage: mean alpha of each frame, 0..1.
        motion: mean absolute premultiplied difference between neighbouring frames, 0..1.
        loops: whether the last frame leads on to the first.
        seam: the difference of last and first frame, in mean differences of neighbouring frames; None for a still.
        flippable: whether a mirror image still agrees with all captions.
        clusters: for each k of :data:`~rdtf.data.keyframes.CLUSTER_COUNTS` the label of each frame.
        group: equal for near-duplicates; -1 without any.
        checks, caption_checks: codes of :mod:`rdtf.data.checks` that apply.
    """

    id: str
    caption: str
    captions: tuple[str, ...]
    attributes: dict[str, Any]
    source: str
    license: str | None
    split: str
    num_frames: int
    size: int
    durations: tuple[float, ...]
    coverage: tuple[float, ...]
    motion: float
    loops: bool
    flippable: bool
    clusters: tuple[tuple[int, ...], ...]
    seam: float | None = None
    group: int = -1
    checks: tuple[str, ...] = ()
    caption_checks: tuple[str, ...] = ()


def pack_frames(frames: np.ndarray) -> bytes:
    """``(n, s, s, 4)`` uint8 to the bytes of the ``frames`` column: raw RGBA, zstd-compressed."""
    return pa.Codec("zstd", compression_level=3).compress(np.ascontiguousarray(frames), asbytes=True)


def unpack_frames(data: pa.Buffer | bytes, num_frames: int, size: int) -> np.ndarray:
    """Reverse of :func:`pack_frames`: a writable ``(num_frames, size, size, 4)`` uint8 array."""
    shape = (num_frames, size, size, 4)
    raw = pa.Codec("zstd").decompress(data, decompressed_size=int(np.prod(shape)))
    return np.frombuffer(raw, np.uint8).reshape(shape).copy()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a dataset.

    Raises:
        ValueError: there is no such folder, it holds no dataset, or one of another format.
    """
    path = Path(folder) / MANIFEST
    if not path.parent.is_dir():
        raise ValueError(f"{folder}: no such folder; make a dataset with: rdtf prepare FOLDER... {folder}")
    if not path.is_file():
        raise ValueError(f"{folder} holds no prepared dataset (no {MANIFEST}); make one with: rdtf prepare")
    try:
        values = json.loads(path.read_text("utf-8"))
        found = values.get("format") if isinstance(values, dict) else None
        if not isinstance(found, str) or not found.startswith(_FAMILY):
            raise ValueError(f"{path} is not the manifest of a prepared dataset")
        if found != FORMAT:
            raise ValueError(f"{folder} has the format {found}, this version reads {FORMAT}; prepare it anew")
        return Manifest.model_validate(values)
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}); prepare the dataset anew") from error


def open_batches(file: Path) -> list[pa.RecordBatch]:
    """The rows of an Arrow file, memory-mapped.

    Raises:
        OSError, pyarrow.ArrowException: it is missing or damaged.
    """
    reader = pa.ipc.open_file(pa.memory_map(str(file)))
    return [reader.get_batch(number) for number in range(reader.num_record_batches)]


def is_dataset(folder: Path) -> bool:
    """Whether a folder has a prepared dataset of any format. It may be damaged."""
    try:
        return str(json.loads((folder / MANIFEST).read_text("utf-8"))["format"]).startswith(_FAMILY)
    except (OSError, ValueError, KeyError, TypeError):
        return False


class StickerDataset:
    """A prepared dataset, or one split of it, read through a memory map. It can be pickled.

    Args:
        folder: output of ``rdtf prepare``.
        split: ``train``, ``val`` or ``test``; None for all splits. A split may be empty.

    Raises:
        ValueError: not a dataset, another format, a damaged file, or an unknown split.
    """

    def __init__(self, folder: Path | str, split: str | None = None) -> None:
        self.folder = Path(folder)
        self.split = split
        self.manifest = read_manifest(self.folder)
        if split is not None and split not in SPLITS:
            counts = ", ".join(f"{name} ({count})" for name, count in self.manifest.counts.items())
            raise ValueError(f"{folder} has no split {split!r}; it has {counts}")
        self._batches: list[pa.RecordBatch] = []
        for name, rows in self.manifest.files.items():
            self._batches += self._open(name, rows, SCHEMA)
        lengths = [batch.num_rows for batch in self._batches]
        [index] = self._open(self.manifest.index, sum(lengths), INDEX_SCHEMA)
        splits = index.column("split").to_numpy()
        chosen = splits != LEFT_OUT if split is None else splits == SPLITS.index(split)
        batch_of, ends = np.repeat(np.arange(len(lengths)), lengths), np.cumsum(lengths)
        row_of = np.arange(len(splits)) - (ends - lengths)[batch_of]
        self._places = np.stack([batch_of, row_of], axis=1)[chosen]
        self._splits, self._groups = splits[chosen], index.column("group").to_numpy()[chosen]

    def _open(self, name: str, rows: int, schema: pa.Schema) -> list[pa.RecordBatch]:
        path = self.folder / name
        try:
            batches = open_batches(path)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{path} is missing or damaged ({error}); prepare the dataset anew") from error
        fits = all(batch.schema.equals(schema) for batch in batches)
        if not fits or sum(batch.num_rows for batch in batches) != rows:
            raise ValueError(f"{path} is not what {MANIFEST} says; prepare the dataset anew")
        return batches

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.split)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Sticker]:
        return (self.sticker(i) for i in range(len(self)))

    @property
    def size(self) -> int:
        """Height and width of all frames in pixels."""
        return int(self.manifest.settings["size"])

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints mean equal rows in equal order (of the whole dataset, not of the split)."""
        return self.manifest.fingerprint

    def _row(self, index: int) -> tuple[pa.RecordBatch, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sticker {index} of {len(self)}")
        batch, row = self._places[index].tolist()
        return self._batches[batch], row

    def record(self, index: int) -> StickerRecord:
        """The record of a sticker."""
        batch, row = self._row(index)
        values = {name: batch.column(name)[row].as_py() for name in batch.schema.names if name not in _BEHIND}
        for name in ("captions", "durations", "coverage", "checks", "caption_checks"):
            values[name] = tuple(values[name])
        values["clusters"] = tuple(tuple(labels) for labels in values["clusters"])
        values["attributes"] = json.loads(values["attributes"])
        values["split"], values["group"] = SPLITS[self._splits[index]], int(self._groups[index])
        return StickerRecord(**values)

    def frames(self, index: int) -> np.ndarray:
        """A new array of the frames of a sticker: ``(n, size, size, 4)`` uint8, straight alpha.

        Raises:
            ValueError: the stored frames are damaged.
        """
        batch, row = self._row(index)
        data, count = batch.column(FRAMES)[row].as_buffer(), batch.column("num_frames")[row].as_py()
        with suppress(OSError, pa.ArrowException):
            frames = unpack_frames(data, count, self.size)
            if hashlib.sha256(frames.data).digest() == batch.column("content")[row].as_py():
                return frames
        name = batch.column("source")[row].as_py()
        raise ValueError(f"{self.folder}: the frames of {name} are damaged; prepare the dataset anew")

    def sticker(self, index: int) -> Sticker:
        """A sticker with its frames, timing, first caption and attributes."""
        record = self.record(index)
        durations = np.asarray(record.durations, np.float64)
        return Sticker(self.frames(index), durations, record.caption, record.attributes)

    def column(self, name: str) -> list[Any]:
        """One column for all stickers of the split, without reading the others.

        Raises:
            ValueError: there is no such column.
        """
        if name == "split":
            return [SPLITS[code] for code in self._splits]
        if name == "group":
            return self._groups.tolist()
        return list(self.table([name]).column(0).to_pylist())

    def table(self, names: Sequence[str]) -> pa.Table:
        """Columns of the Arrow files, without reading the others. Columns of the index are not possible.

        Raises:
            ValueError: there is no such column.
        """
        for name in names:
            if name not in SCHEMA.names:
                raise ValueError(f"no column {name!r}; there are {', '.join([*SCHEMA.names, *INDEX_SCHEMA.names])}")
        parts = []
        for number, batch in enumerate(self._batches):
            here = self._places[self._places[:, 0] == number, 1]
            if len(here):
                parts.append(batch.select(names).take(pa.array(here, pa.int64())))
        return pa.Table.from_batches(parts, pa.schema([SCHEMA.field(name) for name in names]))
