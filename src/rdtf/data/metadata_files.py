"""Metadata files: their entries, read from JSON lines, JSON, CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import functools
import io
import json
import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rdtf.files import raise_shortage
from rdtf.io.archives import Tree
from rdtf.io.tables import plain
from rdtf.sticker import StickerError

METADATA = "metadata.jsonl"
MAX_LINE_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 64 << 20
_FILE_FIELDS = ("file_name", "filename", "file", "path", "image")


def is_metadata(name: str) -> bool:
    """Whether a file of this name is a metadata file, see :func:`~rdtf.data.captions.find_captions`."""
    return posixpath.basename(name).lower() in _METADATA_NAMES


def file_field(entry: Mapping[str, Any]) -> str | None:
    """The name of the field that names an entry's file."""
    return next((key for key in _FILE_FIELDS if isinstance(entry.get(key), str)), None)


def file_of(entry: Mapping[str, Any]) -> str:
    """The file that an entry names; empty if it names none."""
    key = file_field(entry)
    return "" if key is None else entry[key]


def read_entries(tree: Tree, name: str, problems: list[StickerError]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a metadata file, each with its position ("line 3"). Entries that cannot be read are problems."""
    reader = _METADATA_NAMES[posixpath.basename(name).lower()]
    try:
        with tree.open(name) as stream:
            for where, entry in reader(stream):
                if isinstance(entry, dict) and file_of(entry):
                    yield where, entry
                else:
                    reason = str(entry) if isinstance(entry, Exception) else "not an object with a 'file_name'"
                    problems.append(StickerError(name, f"{where}: {reason}"))
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        raise_shortage(error, name)
        reason = error.reason if isinstance(error, StickerError) else str(error)
        problems.append(StickerError(name, f"cannot be read: {reason}"))


_Reader = Iterator[tuple[str, Any]]
"""Positions with their entries, or with the errors of entries that cannot be read."""


def _json_lines(stream: io.BufferedIOBase) -> _Reader:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = line
        while rest and not rest.endswith(b"\n"):  # skip the rest of a line that is too long
            rest = stream.readline(MAX_LINE_BYTES)
        if line.strip():
            yield f"line {number}", _json_line(line)


def _json_line(line: bytes) -> Any:
    if len(line) > MAX_LINE_BYTES:
        return ValueError(f"longer than {MAX_LINE_BYTES:,} bytes")
    try:
        return json.loads(line.decode("utf-8-sig"), parse_constant=no_value)
    except (ValueError, RecursionError) as error:
        return error


def _json_document(stream: io.BufferedIOBase) -> _Reader:
    """A list of objects, or an object of captions or objects by file."""
    head = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(head) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"longer than {MAX_DOCUMENT_BYTES:,} bytes; write JSON lines (metadata.jsonl)")
    content = json.loads(head.decode("utf-8-sig"), parse_constant=no_value)
    if isinstance(content, dict):
        objects = {name: known if isinstance(known, dict) else {"caption": known} for name, known in content.items()}
        content = [{"file_name": name, **known} for name, known in objects.items()]
    for number, entry in enumerate(content if isinstance(content, list) else [content], 1):
        yield f"entry {number}", entry


def _table_lines(stream: io.BufferedIOBase, delimiter: str) -> _Reader:
    lines: Any = stream  # TextIOWrapper only reads bytes from it
    text = io.TextIOWrapper(lines, "utf-8-sig", newline="")
    head = text.readline()
    text.seek(0)
    if delimiter == "," and ";" in head and "," not in head:  # Excel in countries with decimal commas
        delimiter = ";"
    rows = csv.DictReader(text, delimiter=delimiter, strict=True)
    for row in rows:
        # Empty cells are missing values. Cells beyond the head have no name.
        yield f"line {rows.line_num}", {k: cell for k, cell in row.items() if k and isinstance(cell, str) and cell}


def _parquet_rows(stream: io.BufferedIOBase) -> _Reader:
    number = 0
    for batch in pq.ParquetFile(stream).iter_batches(batch_size=4096):
        for row in batch.to_pylist():
            number += 1
            yield f"row {number}", plain(row)


def no_value(name: str) -> None:
    """Read NaN and Infinity, as pandas writes them, as missing values."""


_ENDINGS: dict[str, Callable[[io.BufferedIOBase], _Reader]] = {
    "jsonl": _json_lines,
    "json": _json_document,
    "csv": functools.partial(_table_lines, delimiter=","),
    "tsv": functools.partial(_table_lines, delimiter="\t"),
    "parquet": _parquet_rows,
}
_METADATA_NAMES = {
    f"{stem}.{ending}": reader for stem in ("metadata", "captions") for ending, reader in _ENDINGS.items()
}
