"""Stickers in Parquet files: a column of pictures (bytes, or the ``bytes`` and ``path`` of Hugging Face) and others."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rdtf.sticker import StickerError

MAX_GROUP_BYTES = 500 * 10**6
"""Largest row group in bytes. A worker has one in memory."""
_USUAL = ("image", "sticker", "bytes", "data", "img", "picture", "webp", "gif", "file", "video")


@dataclass(frozen=True, slots=True)
class Cell:
    """Position of a sticker in a Parquet file. ``column`` is a path as in ``image.bytes``."""

    column: str
    group: int
    row: int


def table_rows(file: Path) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """The position of each picture, with the other columns of its row (and ``path`` if the picture has one).

    Raises:
        StickerError: the file is damaged or no Parquet file, has no column of pictures, or too large row groups.
    """
    try:
        with pq.ParquetFile(file) as table:
            column, path, others = _columns(file, table.schema_arrow)
            for group in range(table.num_row_groups):
                if table.metadata.row_group(group).total_byte_size > MAX_GROUP_BYTES:
                    raise StickerError(
                        file, f"a row group of more than {MAX_GROUP_BYTES // 10**6} MB; write smaller ones"
                    )
                read = [*others, *([path] if path else [])]
                entries: Iterator[dict[str, Any]] = ({} for _ in range(table.metadata.row_group(group).num_rows))
                if read:
                    batches = table.iter_batches(4096, row_groups=[group], columns=read)
                    entries = (entry for batch in batches for entry in batch.to_pylist())
                for row, entry in enumerate(entries):
                    about = entry.pop(column.partition(".")[0], None) if path else None
                    known = plain(entry)
                    if isinstance(about, dict) and isinstance(about.get("path"), str):
                        known["path"] = about["path"]
                    yield Cell(column, group, row), known
    except StickerError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StickerError(file, f"no Parquet file that can be read ({error})") from error


def read_cell(file: Path, cell: Cell) -> bytes:
    """The bytes of a sticker.

    Raises:
        StickerError: the file is damaged, or the cell is empty.
    """
    try:
        value = _group(str(file), file.stat().st_mtime_ns, cell.column, cell.group)[cell.row].as_py()
    except MemoryError:
        raise
    except (OSError, ValueError, IndexError, pa.ArrowException) as error:
        raise StickerError(file, f"the table is damaged ({error})") from error
    if not value:
        raise StickerError(file, "its cell is empty")
    return value


@functools.lru_cache(maxsize=1)
def _group(file: str, changed: int, column: str, group: int) -> pa.ChunkedArray:
    """A column of a row group, cached because a worker reads several rows in their order."""
    name, _, inner = column.partition(".")
    with pq.ParquetFile(file, pre_buffer=False) as table:
        # In one thread, because threads that Arrow starts under a memory limit would fail.
        values = table.read_row_group(group, columns=[column], use_threads=False).column(name)
    return pa.chunked_array([chunk.field(inner) for chunk in values.chunks]) if inner else values


def _columns(file: Path, schema: pa.Schema) -> tuple[str, str | None, list[str]]:
    """The column of pictures, the column of their file names, and all other columns without bytes."""
    found: dict[str, str | None] = {}
    for field in schema:
        if _is_bytes(field.type):
            found[field.name] = None
        elif pa.types.is_struct(field.type):
            inner = {field.type.field(i).name: field.type.field(i).type for i in range(field.type.num_fields)}
            if "bytes" in inner and _is_bytes(inner["bytes"]):
                found[f"{field.name}.bytes"] = f"{field.name}.path" if "path" in inner else None
    if not found:
        raise StickerError(file, f"has no column of pictures; its columns are {', '.join(schema.names)}")
    usual = [column for column in found if column.partition(".")[0].lower() in _USUAL]
    column = (usual or list(found))[0]
    taken = {name.partition(".")[0] for name in found}
    return column, found[column], [name for name in schema.names if name not in taken]


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def plain(value: Any) -> Any:
    """A value of a table for JSON: bytes are removed, NaN becomes None, times become text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if not isinstance(item, bytes)}
    if isinstance(value, list):
        return [plain(item) for item in value if not isinstance(item, bytes)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
