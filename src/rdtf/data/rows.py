"""Rows of a dataset: the columns of captions, and writing of Arrow files."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from rdtf import faults
from rdtf.data.checks import check_captions
from rdtf.data.dataset import FRAMES, SCHEMA, open_batches
from rdtf.data.items import Item
from rdtf.data.mirroring import is_flippable
from rdtf.data.process_file import FACTS
from rdtf.data.settings import PrepareSettings
from rdtf.data.style import FIELD, style_of, with_style
from rdtf.files import atomic_file

ROWS_PER_FILE = 2048
BYTES_PER_FILE = 256 * 2**20


def words_of(item: Item, content: bytes, settings: PrepareSettings) -> tuple[dict[str, Any], str]:
    """The columns of a row that need no frames, and an error in the field ``style`` (empty if there is none)."""
    caption, complaint = item.caption, ""
    texts, checks = check_captions(caption.texts)
    attributes = caption.attributes
    if settings.caption_style:
        try:
            style = style_of(attributes, settings.of_source(settings.styles, item.name))
        except ValueError as error:
            style, complaint = "", str(error)
        if style:
            texts, attributes = tuple(with_style(text, style) for text in texts), {**attributes, FIELD: style}
    return {
        "id": hashlib.sha256(content + texts[0].encode()).hexdigest()[:16],
        "caption": texts[0],
        "captions": list(texts),
        "attributes": json.dumps(attributes, sort_keys=True),
        "source": item.name,
        "license": caption.license or settings.of_source(settings.licenses, item.name),
        "caption_checks": list(checks),
        "asked_split": caption.split,
        "flippable": all(map(is_flippable, texts)),
    }, complaint


class RowWriter:
    """Writes rows into numbered Arrow files. Only the rows of one file are in memory.

    Each file has a hash of its rows in its name. An existing file is not written again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._there = readable_files(folder)
        self.files: dict[str, int] = {}
        self._begin()

    def _begin(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._bytes, self._digest = 0, hashlib.sha256()

    def add(self, row: dict[str, Any], text: bytes) -> None:
        """Add a row. ``text`` represents it in the hash."""
        self._rows.append(row)
        self._digest.update(text)
        self._bytes += len(row[FRAMES])
        if len(self._rows) >= ROWS_PER_FILE or self._bytes >= BYTES_PER_FILE:
            self.flush()

    def flush(self) -> None:
        """Write the rows in memory."""
        if not self._rows:
            return
        name = f"stickers-{len(self.files):05d}-{self._digest.hexdigest()[:12]}.arrow"
        if self._there.get(name) != len(self._rows):
            with atomic_file(self.folder / name) as sink, pa.ipc.new_file(sink, SCHEMA) as stream:
                faults.reach("prepare.mid_file")
                stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
        self.files[name] = len(self._rows)
        self._begin()


@functools.lru_cache(maxsize=4)
def _rows_of(file: Path) -> pa.RecordBatch:
    return open_batches(file)[0]


def stored_facts(file: Path, row: int) -> dict[str, Any]:
    """The row of :data:`~rdtf.data.process_file.FACTS` in an Arrow file of a dataset."""
    return _rows_of(file).slice(row, 1).select(FACTS.names).to_pylist()[0]


def readable_files(folder: Path) -> dict[str, int]:
    """The undamaged Arrow files of a folder, with their numbers of rows."""
    files = {}
    for file in folder.glob("stickers-*.arrow"):
        with contextlib.suppress(OSError, pa.ArrowException):
            batch = open_batches(file)[0]
            if batch.schema.equals(SCHEMA):
                files[file.name] = batch.num_rows
    return files
