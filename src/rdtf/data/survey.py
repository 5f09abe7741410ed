"""Statistics of a whole dataset, from its columns. Frames are not read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rdtf.data.checks import CAPTION_CHECKS, FRAME_CHECKS
from rdtf.data.dataset import LEFT_OUT_ROWS, Rejection, StickerDataset
from rdtf.data.duplicates import SIGNATURE_BYTES, NearPairs, compare

_WORD = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)*")
_CHUNK = 2048


@dataclass(frozen=True)
class Survey:
    """Statistics of a dataset, all splits together. Arrays have one entry for each of ``n`` stickers.

    Attributes:
        frames: numbers of frames.
        seconds: duration of one pass.
        coverage: mean alpha over all frames, in 0..1.
        extent: side of the square around the drawing, in canvas heights.
        motion, seam: see :class:`~rdtf.data.dataset.StickerRecord`. ``seam`` is NaN for stickers that do not move.
        stored: bytes of the frames on disk.
        splits: names of the splits.
        loops, flippable: numbers of stickers.
        captions: first captions.
        texts: numbers of captions.
        words: numbers of words of the first captions.
        vocabulary: each word with the number of first captions that have it, the most frequent word first.
        sources: file names.
        groups: numbers of near-duplicate groups, -1 without one.
        checks: increasing positions of stickers by their codes of :mod:`rdtf.data.checks`.
    """

    frames: np.ndarray
    seconds: np.ndarray
    coverage: np.ndarray
    extent: np.ndarray
    motion: np.ndarray
    seam: np.ndarray
    stored: np.ndarray
    splits: np.ndarray
    loops: int
    flippable: int
    captions: list[str]
    texts: np.ndarray
    words: np.ndarray
    vocabulary: list[tuple[str, int]]
    sources: list[str]
    groups: np.ndarray
    checks: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def moving(self) -> np.ndarray:
        """Which stickers have more than one frame."""
        return self.frames > 1


def survey_dataset(dataset: StickerDataset) -> Survey:
    """Compute the statistics. 100,000 stickers take seconds and some 100 MB."""
    plain = dataset.table(["num_frames", "motion", "seam", "extent", "loops", "flippable"])
    lists = dataset.table(["durations", "coverage"])
    captions = list(dataset.column("caption"))
    spoken = [_WORD.findall(text.casefold()) for text in captions]
    vocabulary = Counter(word for words in spoken for word in set(words))
    found = _positions(dataset.table(["checks"]).column(0)) | _positions(dataset.table(["caption_checks"]).column(0))
    frames = plain["num_frames"].to_numpy()
    return Survey(
        frames=frames,
        seconds=_sums(lists["durations"]) / 1000,
        coverage=_sums(lists["coverage"]) / frames,
        extent=plain["extent"].to_numpy(),
        motion=plain["motion"].to_numpy(),
        seam=plain["seam"].to_numpy(),
        stored=dataset.stored_bytes(),
        splits=np.array(dataset.column("split")),
        loops=int(pc.sum(plain["loops"]).as_py() or 0),
        flippable=int(pc.sum(plain["flippable"]).as_py() or 0),
        captions=captions,
        texts=np.asarray(pc.list_value_length(dataset.table(["captions"]).column(0))),
        words=np.array([len(words) for words in spoken]),
        vocabulary=sorted(vocabulary.items(), key=lambda item: (-item[1], item[0])),
        sources=dataset.column("source"),
        groups=np.array(dataset.column("group"), np.int64),
        checks={code: found[code] for code in (*FRAME_CHECKS, *CAPTION_CHECKS) if code in found},
    )


def _sums(column: pa.ChunkedArray) -> np.ndarray:
    """``(n,)`` float64 sums of the lists in a column."""
    totals = [np.zeros(0)]
    for chunk in column.chunks:
        running = np.append(0.0, np.cumsum(chunk.values.to_numpy().astype(np.float64)))
        totals.append(np.diff(running[chunk.offsets.to_numpy()]))
    return np.concatenate(totals)


def _positions(column: pa.ChunkedArray) -> dict[str, np.ndarray]:
    """For each text in a column of lists, the increasing positions of its rows."""
    codes = pc.dictionary_encode(pc.list_flatten(column)).combine_chunks()
    rows = np.asarray(pc.list_parent_indices(_one_chunk(column)))
    if isinstance(codes, pa.ChunkedArray):  # the column has no rows
        return {}
    labels = codes.indices.to_numpy()
    return {text: np.unique(rows[labels == code]) for code, text in enumerate(codes.dictionary.to_pylist())}


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    chunks = column.combine_chunks()
    return chunks.chunk(0) if isinstance(chunks, pa.ChunkedArray) else chunks


@dataclass(frozen=True)
class Group:
    """A group of near-duplicates.

    Attributes:
        rows: increasing positions.
        how: the :class:`~rdtf.data.duplicates.Likeness` of each to the first.
        differences: root mean square difference of each to the first, in 0..1.
        splits: names of their splits.
    """

    rows: np.ndarray
    how: np.ndarray
    differences: np.ndarray
    splits: np.ndarray

    @property
    def leaks(self) -> bool:
        """Whether some of its stickers are in training and others are held out."""
        return bool((self.splits == "train").any() and (self.splits != "train").any())


def near_groups(dataset: StickerDataset, survey: Survey) -> list[Group]:
    """All groups of near-duplicates in the dataset, in the order of their numbers."""
    rows = np.flatnonzero(survey.groups >= 0)
    if not len(rows):
        return []
    order = rows[np.argsort(survey.groups[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(survey.groups[order], prepend=-1))
    firsts = order[np.repeat(starts, np.diff(np.append(starts, len(order))))]
    near = _likened(dataset, dataset, np.stack([firsts, order], axis=1))
    parts = (np.split(values, starts[1:]) for values in (order, near.how, near.differences, survey.splits[order]))
    return [Group(*group) for group in zip(*parts, strict=True)]


def _likened(first: StickerDataset, second: StickerDataset, pairs: np.ndarray) -> NearPairs:
    """Compare the stickers of pairs ``(m, 2)`` of positions in two datasets."""
    how, differences = [np.zeros(0, np.int8)], [np.zeros(0, np.float32)]
    for start in range(0, len(pairs), _CHUNK):
        chunk = pairs[start : start + _CHUNK]
        sides = (_signatures(dataset, chunk[:, side]) for side, dataset in enumerate((first, second)))
        _, likeness, difference = compare(*sides)
        how.append(likeness)
        differences.append(difference)
    return NearPairs(pairs, np.concatenate(how), np.concatenate(differences))


def _signatures(dataset: StickerDataset, rows: np.ndarray) -> np.ndarray:
    wanted, position = np.unique(rows, return_inverse=True)
    column = dataset.table(["signature"], wanted).column(0)
    joined = np.frombuffer(b"".join(column.to_pylist()), np.uint8)
    return joined.reshape(-1, SIGNATURE_BYTES)[position]


def left_out_pairs(dataset: StickerDataset, survey: Survey) -> tuple[StickerDataset, NearPairs]:
    """Near-duplicates that ``--duplicates drop`` left out, each with the sticker that was kept.

    Returns:
        the dataset of the left-out stickers, and pairs of positions in ``dataset`` and in it.
    """
    others = StickerDataset(dataset.folder, LEFT_OUT_ROWS)
    staying = {name: row for row, name in enumerate(survey.sources)} if len(others) else {}
    kept = {r.file: r.reason.removeprefix("near-duplicate of ") for r in dataset.manifest.rejected}
    pairs = [(staying.get(kept.get(name, ""), -1), row) for row, name in enumerate(others.column("source"))]
    known = np.array([pair for pair in pairs if pair[0] >= 0], np.int64).reshape(-1, 2)
    return others, _likened(dataset, others, known)


@dataclass(frozen=True)
class Refusals:
    """Rejected files with one kind of reason. Numbers and names are removed from ``reason``."""

    reason: str
    rejected: list[Rejection]


def refusals(rejected: Sequence[Rejection]) -> list[Refusals]:
    """Rejections by kind, the most frequent first."""
    kinds: dict[str, list[Rejection]] = {}
    for rejection in rejected:
        kinds.setdefault(_kind_of(rejection.reason), []).append(rejection)
    found = [Refusals(kind, files) for kind, files in kinds.items()]
    return sorted(found, key=lambda kind: (-len(kind.rejected), kind.reason))


def _kind_of(reason: str) -> str:
    for start in ("duplicate of ", "near-duplicate of "):
        if reason.startswith(start):
            return f"{start}another file"
    reason = re.sub(r"(?<!\w)(['\"]).*?\1(?!\w)", "\N{HORIZONTAL ELLIPSIS}", reason, flags=re.DOTALL)
    return re.sub(r"\d+(?:[.,]\d+)*", "N", reason)


def shared_captions(survey: Survey) -> tuple[int, int]:
    """Number of held-out stickers whose first caption a training sticker has too, and number of held-out stickers."""
    training = {text for text, split in zip(survey.captions, survey.splits.tolist(), strict=True) if split == "train"}
    held_out = [text for text, split in zip(survey.captions, survey.splits.tolist(), strict=True) if split != "train"]
    return sum(text in training for text in held_out if text), len(held_out)


def flagged(survey: Survey) -> Iterator[tuple[str, int]]:
    """Code and position of every check that applies, by code."""
    for code, rows in survey.checks.items():
        yield from ((code, row) for row in rows.tolist())
