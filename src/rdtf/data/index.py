"""The index of a dataset: near-duplicates, left-out stickers and splits, which depend on the whole dataset.

The index is a small file beside the rows, which depend on one sticker each. So other splits change only this file.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from rdtf.data.captions import SPLITS
from rdtf.data.dataset import INDEX_SCHEMA, LEFT_OUT, open_batches
from rdtf.data.duplicates import SIGNATURE_BYTES, NearPairs, near_pairs
from rdtf.data.settings import PrepareSettings
from rdtf.data.style import FIELD, without_style

_VARIATION_SELECTORS = re.compile("[\ufe00-\ufe0f]")


@dataclass(frozen=True)
class Index:
    """The index of a dataset, with one entry for each row.

    Attributes:
        splits: ``(n,)`` int8, positions in :data:`~rdtf.data.captions.SPLITS`, or -1 for rows that are left out.
        groups: ``(n,)`` int32, equal numbers for stickers connected by near-duplicates; -1 for all others.
        copies: left-out rows, each with the row of its near-duplicate that stays.
    """

    splits: np.ndarray
    groups: np.ndarray
    copies: dict[int, int]

    def digest(self) -> bytes:
        """A hash of the index."""
        return hashlib.sha256(self.splits.tobytes() + self.groups.tobytes()).digest()

    def write(self, stream: BinaryIO) -> None:
        """Write the index as an Arrow file."""
        table = pa.table({"split": self.splits, "group": self.groups}, schema=INDEX_SCHEMA)
        with pa.ipc.new_file(stream, INDEX_SCHEMA) as sink:
            sink.write_table(table)


def make_index(
    folder: Path,
    files: Mapping[str, int],
    settings: PrepareSettings,
) -> Index:
    """The index of a dataset's rows.

    Near-duplicates share a split. A split in the metadata has priority, also for near-duplicates without one.

    Args:
        folder: of the dataset. files: its Arrow files, in order.
        settings: ``duplicates`` = ``drop`` leaves out all but the first of near-duplicates that show the same (what
            is mirrored or played backwards stays). With ``split_by`` = ``caption``, or the name of a metadata field,
            stickers with an equal caption (without its style words) or field share a split too. A group's split is
            drawn from its member with the smallest content hash, so file order does not matter.
    """
    table = _table(folder, files)
    count = table.num_rows
    own = [content.hex() for content in table["content"].to_pylist()]
    drawn_from = own if settings.split_by == "content" else _shared(table, settings.split_by, own)
    if settings.split_by != "content" and drawn_from == own:
        raise ValueError(f"split_by: no sticker has a metadata field {settings.split_by!r}; name one that they have")
    signatures = [_bytes_of(chunk, SIGNATURE_BYTES) for chunk in table["signature"].chunks]
    pairs = near_pairs(signatures, table["extent"].to_numpy())
    copies = _copies(pairs) if settings.duplicates == "drop" else {}
    left_out = np.zeros(count, bool)
    left_out[list(copies)] = True
    links = pairs.rows[~left_out[pairs.rows].any(1)]
    groups = _numbered(_connected(links, count))
    rows_of: dict[str, int] = {}
    equal = [rows_of.setdefault(text, row) for row, text in enumerate(drawn_from)]
    codes = assign_splits(
        _connected(np.concatenate([links, np.stack([np.arange(count), equal], axis=1)]), count),
        np.array([int(content[:16], 16) for content in own], np.uint64),
        np.array([draw(settings.seed, key) for key in drawn_from]),
        np.array([-1 if split is None else SPLITS.index(split) for split in table["asked_split"].to_pylist()], np.int8),
        settings.splits,
    )
    return Index(np.where(left_out, np.int8(LEFT_OUT), codes), np.where(left_out, np.int32(-1), groups), copies)


def _shared(table: pa.Table, field: str, own: list[str]) -> list[str]:
    """The caption or metadata field of each row as comparable text; ``own`` if the row has none."""
    attributes = [json.loads(text) for text in table["attributes"].to_pylist()]
    values = [known.get(field) for known in attributes]
    if field == "caption":
        captions = table["caption"].to_pylist()
        values = [without_style(text, known.get(FIELD)) for text, known in zip(captions, attributes, strict=True)]
    return [
        key
        if value in (None, "")
        else comparable(value)
        if isinstance(value, str)
        else json.dumps(value, sort_keys=True)
        for value, key in zip(values, own, strict=True)
    ]


def comparable(text: str) -> str:
    """A key that is equal for texts that differ only in case, spaces, Unicode form or variation selectors of emoji."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_VARIATION_SELECTORS.sub("", folded).split())


def count_up(folder: Path, files: Mapping[str, int], index: Index) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Count what is in a dataset, without reading frames.

    Returns:
        fields of :class:`~rdtf.data.dataset.Manifest`; and the files that are left out as near-duplicates, each with
        the file that stays.
    """
    table = _table(folder, files)
    names, *columns = (table[name].to_pylist() for name in ("source", "license", "checks", "caption_checks"))
    licenses, sources, checks = Counter[str](), Counter[str](), Counter[str]()
    for split, source, license, *found in zip(index.splits.tolist(), names, *columns, strict=True):
        if split != LEFT_OUT:
            sources[source.partition("/")[0]] += 1
            checks.update(code for codes in found for code in codes)
            licenses.update([] if license is None else [license])
    counts = np.bincount(index.splits[index.splits != LEFT_OUT], minlength=len(SPLITS)).tolist()
    totals = {
        "counts": dict(zip(SPLITS, counts, strict=True)),
        "sources": dict(sorted(sources.items())),
        "licenses": dict(sorted(licenses.items())),
        "groups": int(index.groups.max(initial=-1)) + 1,
        "checks": dict(sorted(checks.items())),
    }
    return totals, [(names[row], names[kept]) for row, kept in sorted(index.copies.items())]


def draw(seed: int, key: str) -> float:
    """A number in 0..1 from a seed and a key. So a sticker keeps its split when others are added."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign_splits(
    labels: np.ndarray, keys: np.ndarray, draws: np.ndarray, asked: np.ndarray, shares: tuple[float, float, float]
) -> np.ndarray:
    """A split for each of ``n`` rows. Rows with equal labels share a split unless they ask for different ones.

    Args:
        labels: ``(n,)`` integers. keys: ``(n,)``; the row with the smallest key of a label decides.
        draws: ``(n,)`` in 0..1.
        asked: ``(n,)`` positions in :data:`~rdtf.data.captions.SPLITS`, or -1. Rows with -1 follow the first row of
            their label that asks.
        shares: fractions of train, val and test.

    Returns:
        ``(n,)`` int8 positions in :data:`~rdtf.data.captions.SPLITS`.
    """
    order = np.lexsort((keys, labels))
    _, starts, inverse = np.unique(labels[order], return_index=True, return_inverse=True)
    speaker = np.empty(len(labels), np.int64)
    speaker[order] = order[starts][inverse]
    splits = np.searchsorted(np.cumsum(shares[:2]), draws[speaker], side="right").astype(np.int8)
    asking = np.flatnonzero(asked >= 0)
    asking_labels, first = np.unique(labels[asking], return_index=True)
    if len(asking):
        place = np.searchsorted(asking_labels, labels).clip(max=len(asking_labels) - 1)
        asking_rows = asking_labels[place] == labels
        splits[asking_rows] = asked[asking[first]][place[asking_rows]]
        splits[asking] = asked[asking]
    return splits


def _copies(pairs: NearPairs) -> dict[int, int]:
    """Rows to leave out, each with its earlier near-duplicate. At most one row of each pair stays."""
    rows = pairs.rows[pairs.copies]
    copies: dict[int, int] = {}
    # Sorted by the later row, so that the fate of earlier rows is known.
    for first, second in rows[np.lexsort((rows[:, 0], rows[:, 1]))].tolist():
        if first not in copies and second not in copies:
            copies[second] = first
    return copies


def _connected(links: np.ndarray, count: int) -> np.ndarray:
    """``(count,)`` labels, equal for rows that links ``(m, 2)`` connect."""
    graph = coo_matrix((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Numbers of labels with more than one row, in the order of their first rows; -1 for all others."""
    _, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    several = np.flatnonzero(sizes > 1)
    numbers = np.full(len(sizes), -1, np.int32)
    numbers[several[np.argsort(first[several])]] = np.arange(len(several))
    return numbers[inverse]


def _table(folder: Path, files: Mapping[str, int]) -> pa.Table:
    """The rows of all Arrow files, memory-mapped."""
    return pa.Table.from_batches([batch for name in files for batch in open_batches(folder / name)])


def _bytes_of(column: pa.Array, width: int) -> np.ndarray:
    """A view of a column of byte strings of one width as ``(n, width)`` uint8."""
    data = np.frombuffer(column.buffers()[1], np.uint8)
    return data[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)
