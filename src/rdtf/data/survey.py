"""Numbers about a dataset as a whole, read from the columns that hold them and from no frames."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rdtf.data.dataset import LEFT_OUT_ROWS, Rejection, StickerDataset
from rdtf.data.duplicates import NearPairs
from rdtf.data.findings import CAPTION_FINDINGS, FRAME_FINDINGS
from rdtf.data.languages import language_shares
from rdtf.data.signatures import SIGNATURE_BYTES, compare

BARS = 32
TAIL = 0.995
"""The last bar of a histogram holds all that is beyond this share of the values, if that shortens the axis much."""
_WORD = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)*")
_CHUNK = 2048


@dataclass(frozen=True)
class Survey:
    """What there is to tell about a dataset, all splits together. Arrays have an entry for each of ``n`` stickers.

    Attributes:
        frames: numbers of frames.
        seconds: how long one pass lasts.
        coverage: mean alpha over all frames, 0..1.
        extent: side of the square around the drawing, in canvas heights.
        motion, seam: see :class:`~rdtf.data.dataset.StickerRecord`; ``seam`` is NaN for what does not move.
        stored: bytes of the frames on disk.
        splits: numbers of :data:`~rdtf.data.captions.SPLITS`, by name.
        loops, flippable: how many.
        captions: the first of each.
        texts: how many each has.
        words: words of the first caption.
        vocabulary: in how many first captions each word is, the most frequent first.
        scripts: stickers with a caption in it, by the script's name.
        languages: shares of first captions, as far as they tell (:func:`~rdtf.data.languages.language_shares`).
        sources: file names.
        groups: numbers of near-duplicate groups, -1 without.
        findings: rising positions of the stickers of each finding that occurs, by its code.
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
    scripts: dict[str, int]
    languages: dict[str, float]
    sources: list[str]
    groups: np.ndarray
    findings: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def moving(self) -> np.ndarray:
        """Which stickers have more than one frame."""
        return self.frames > 1


def survey_dataset(dataset: StickerDataset) -> Survey:
    """Read what there is to tell; a hundred thousand stickers take seconds and some 100 MB."""
    plain = dataset.table(["num_frames", "motion", "seam", "extent", "loops", "flippable"])
    lists = dataset.table(["durations", "coverage"])
    captions = list(dataset.column("caption"))
    spoken = [_WORD.findall(text.casefold()) for text in captions]
    vocabulary = Counter(word for words in spoken for word in set(words))
    scripts = _positions(dataset.table(["scripts"]).column(0))
    found = {**_positions(dataset.table(["findings"]).column(0))}
    found |= _positions(dataset.table(["caption_findings"]).column(0))
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
        scripts=dict(sorted(((name, len(rows)) for name, rows in scripts.items()), key=lambda item: (-item[1], item))),
        languages=language_shares(captions),
        sources=dataset.column("source"),
        groups=np.array(dataset.column("group"), np.int64),
        findings={code: found[code] for code in (*FRAME_FINDINGS, *CAPTION_FINDINGS) if code in found},
    )


def _sums(column: pa.ChunkedArray) -> np.ndarray:
    """``(n,)`` float64 sums of the lists in a column."""
    totals = [np.zeros(0)]
    for chunk in column.chunks:
        running = np.append(0.0, np.cumsum(chunk.values.to_numpy().astype(np.float64)))
        totals.append(np.diff(running[chunk.offsets.to_numpy()]))
    return np.concatenate(totals)


def _positions(column: pa.ChunkedArray) -> dict[str, np.ndarray]:
    """For each text in a column of lists, the rows that have it, rising."""
    codes = pc.dictionary_encode(pc.list_flatten(column)).combine_chunks()
    rows = np.asarray(pc.list_parent_indices(_one_chunk(column)))
    if isinstance(codes, pa.ChunkedArray):  # of no rows at all
        return {}
    labels = codes.indices.to_numpy()
    return {text: np.unique(rows[labels == code]) for code, text in enumerate(codes.dictionary.to_pylist())}


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    chunks = column.combine_chunks()
    return chunks.chunk(0) if isinstance(chunks, pa.ChunkedArray) else chunks


@dataclass(frozen=True)
class Bar:
    """One bar: what it counts, in words, how many, and where it begins. ``tail``: it holds all that is beyond."""

    label: str
    count: int
    start: float
    tail: bool = False


def histogram(values: np.ndarray, *, unit: str = "", whole: bool = False) -> list[Bar]:
    """Bars of equal width that count every finite value once; the last one may hold a long tail, and says so.

    Args:
        values: none below 0.
        unit: behind the numbers of a label.
        whole: the values are whole numbers, and bars begin at them.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return []
    low, high = (float(np.floor(values.min())) if whole else 0.0), float(values.max())
    usual = float(np.quantile(values, TAIL))
    few = whole and high - low < BARS  # a bar for each value
    end = usual if high - low > 1.5 * (usual - low) and not few else high
    width = _nice((end - low) / BARS or 1.0)
    if whole:
        width = max(1.0, math.ceil(width))
    low = math.floor(low / width) * width if not whole else low
    count = max(1, math.floor((end - low) / width + 1e-9) + 1)
    at = np.minimum(np.floor((values - low) / width + 1e-9).astype(int), count)
    counts = np.bincount(at, minlength=count + 1).tolist()
    bars = []
    for number in range(count):
        start = low + number * width
        label = _span(start, width, whole)
        bars.append(Bar(f"{label}{unit}", counts[number], start))
    if counts[count]:
        start = low + count * width
        bars.append(Bar(f"{_short(start)}{unit} and more, up to {_short(high)}{unit}", counts[count], start, tail=True))
    return bars


def _span(start: float, width: float, whole: bool) -> str:
    if whole:
        return _short(start) if width == 1 else f"{_short(start)} to {_short(start + width - 1)}"
    return f"{_short(start)} to {_short(start + width)}"


def _nice(width: float) -> float:
    """The least of 1, 2, 2.5, 5, 10 times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= width * 0.9999)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(frozen=True)
class Group:
    """Near-duplicates.

    Attributes:
        rows: their positions, rising.
        how: of each, the :class:`~rdtf.data.signatures.Likeness` to the first.
        differences: root mean square difference of each to the first, in 0..1.
        splits: of each.
    """

    rows: np.ndarray
    how: np.ndarray
    differences: np.ndarray
    splits: np.ndarray

    @property
    def leaks(self) -> bool:
        """Whether it has stickers in training and out of it."""
        return bool((self.splits == "train").any() and (self.splits != "train").any())


def near_groups(dataset: StickerDataset, survey: Survey) -> list[Group]:
    """All groups of near-duplicates that stay in the dataset, in the order of their numbers."""
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
    """Pairs ``(m, 2)`` of positions in two datasets, with how alike they are."""
    how, apart = [np.zeros(0, np.int8)], [np.zeros(0, np.float32)]
    for start in range(0, len(pairs), _CHUNK):
        some = pairs[start : start + _CHUNK]
        sides = (_signatures(dataset, some[:, side]) for side, dataset in enumerate((first, second)))
        _, ways, differences = compare(*sides)
        how.append(ways)
        apart.append(differences)
    return NearPairs(pairs, np.concatenate(how), np.concatenate(apart))


def _signatures(dataset: StickerDataset, rows: np.ndarray) -> np.ndarray:
    wanted, place = np.unique(rows, return_inverse=True)
    column = dataset.table(["signature"], wanted).column(0)
    joined = np.frombuffer(b"".join(column.to_pylist()), np.uint8)
    return joined.reshape(-1, SIGNATURE_BYTES)[place]


def left_out_pairs(dataset: StickerDataset, survey: Survey) -> tuple[StickerDataset, NearPairs]:
    """Near-duplicates that ``--duplicates drop`` left out, each with the sticker that stays for it.

    Returns:
        The dataset of what is left out, and the pairs: positions in ``dataset``, and in the other one.
    """
    others = StickerDataset(dataset.folder, LEFT_OUT_ROWS)
    staying = {name: row for row, name in enumerate(survey.sources)} if len(others) else {}
    kept = {r.file: r.reason.removeprefix("near-duplicate of ") for r in dataset.manifest.rejected}
    pairs = [(staying.get(kept.get(name, ""), -1), row) for row, name in enumerate(others.column("source"))]
    known = np.array([pair for pair in pairs if pair[0] >= 0], np.int64).reshape(-1, 2)
    return others, _likened(dataset, others, known)


@dataclass(frozen=True)
class Refusals:
    """Rejected files of one kind of reason: the reason without what is particular to a file, and all of them."""

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
    """How many held-out stickers have a first caption that a training sticker has too; and how many are held out."""
    training = {text for text, split in zip(survey.captions, survey.splits.tolist(), strict=True) if split == "train"}
    held_out = [text for text, split in zip(survey.captions, survey.splits.tolist(), strict=True) if split != "train"]
    return sum(text in training for text in held_out if text), len(held_out)


def flagged(survey: Survey) -> Iterator[tuple[str, int]]:
    """Code and position of every finding, by code."""
    for code, rows in survey.findings.items():
        yield from ((code, row) for row in rows.tolist())
