"""The page about a prepared dataset: its numbers, its checks, and the clips that training will see."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup
from PIL import Image

from rdtf.data.augment import MIRRORED
from rdtf.data.checks import CAPTION_CHECKS, FRAME_CHECKS
from rdtf.data.clips import plan_clip
from rdtf.data.dataset import Rejection, StickerDataset
from rdtf.data.keyframes import LOOP_SEAM
from rdtf.files import write_text
from rdtf.page import bar_list, data_address, histogram, render_page
from rdtf.pixels import fit
from rdtf.progress import console
from rdtf.rng import numpy_rng

PAGE = "index.html"
CHECKS, DUPLICATES, REJECTED = "checks.csv", "near_duplicates.csv", "rejected.csv"
"""Files beside the page. They list everything; the page shows examples."""

FRAMES = 8  # largest number of frames of a clip on the page
CLUSTER_FRACTION = 0.5  # of the clips, extracted by feature clusters

# Limits that keep the page small, whatever the size of the dataset.
SIDE, PICTURE_FRAMES = 80, 12  # pixels and frames of a picture
GREETING, EXAMPLES, GROUPS, MEMBERS = 24, 6, 12, 4
KINDS = 40  # of reasons
WORDS, SOURCES = 15, 15
LENGTH = 160  # characters of a name or a caption

GAP = 6  # pixels between the frames of a clip
_WORD = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)*")


@dataclass(frozen=True)
class Picture:
    """A sticker on the page: its pixels (a ``data:`` address), its file, its caption and a remark."""

    source: str
    name: str
    caption: str
    note: str = ""


class _Columns:
    """The columns of a dataset, all splits together, with one entry for each sticker.

    Attributes:
        frames: numbers of frames. seconds: duration of one pass. coverage: mean alpha over all frames.
        motion, seam: see :class:`~rdtf.data.dataset.StickerRecord`; the seam is NaN for stickers that do not move.
        captions: first captions. sources: file names. splits: names of the splits.
        groups: positions of near-duplicates, by group.
        checks: increasing positions of stickers by their codes of :mod:`rdtf.data.checks`, in the order of the checks.
        moving: which stickers have more than one frame.
    """

    def __init__(self, dataset: StickerDataset) -> None:
        self.dataset = dataset
        names = ["num_frames", "motion", "seam", "durations", "coverage", "checks", "caption_checks"]
        table = dataset.table(names)
        self.frames, self.motion, self.seam = (table[name].to_numpy() for name in names[:3])
        self.seconds, self.coverage = _sums(table["durations"]) / 1000, _sums(table["coverage"]) / self.frames
        self.captions, self.sources, self.splits = map(dataset.column, ("caption", "source", "split"))
        members: dict[int, list[int]] = defaultdict(list)
        for row, group in enumerate(dataset.column("group")):
            members[group].append(row)
        self.groups = [rows for group, rows in sorted(members.items()) if group >= 0]
        found: dict[str, list[int]] = defaultdict(list)
        for name in ("checks", "caption_checks"):
            for row, codes in enumerate(table[name].to_pylist()):
                for code in codes:
                    found[code].append(row)
        self.checks = {code: found[code] for code in (*FRAME_CHECKS, *CAPTION_CHECKS) if code in found}
        self.moving = self.frames > 1

    def picture(self, row: int, note: str = "") -> Picture:
        """A moving picture of a sticker."""
        return Picture(_moving(self.dataset, row), _cut(self.sources[row]), _cut(self.captions[row]), note)

    def examples(self, rows: Sequence[int] | np.ndarray, count: int, rng: np.random.Generator) -> list[Picture]:
        """Pictures of at most ``count`` of the rows, at random."""
        return [self.picture(row) for row in rng.permutation(np.asarray(rows))[:count].tolist()]

    def members(self, groups: Sequence[Sequence[int]]) -> list[tuple[int, list[Picture]]]:
        """The sizes of some groups of near-duplicates, with pictures of their first members."""
        return [
            (len(rows), [self.picture(row, self.splits[row]) for row in rows[:MEMBERS]]) for rows in groups[:GROUPS]
        ]


def inspect_dataset(data: Path, out: Path, *, count: int = 24, seed: int = 0) -> Path:
    """Write ``index.html`` about a dataset and the lists beside it, and print a line.

    The page holds its pictures and takes a few MB for any dataset. It shows examples;
    :data:`CHECKS`, :data:`DUPLICATES` and :data:`REJECTED` list everything. Only frames of the examples are read.

    Args:
        data: prepared dataset.
        out: folder for the files; it is made if needed.
        count: number of clips drawn as in training; those that move come first.
        seed: chooses the stickers and their frames.

    Returns:
        The page.

    Raises:
        ValueError: ``data`` is no dataset, or ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    dataset, training = StickerDataset(data), StickerDataset(data, "train")
    columns, rng = _Columns(dataset), numpy_rng(seed, 0, "examples")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    names, splits = columns.sources, columns.splits
    found = ((code, names[row], splits[row]) for code, rows in columns.checks.items() for row in rows)
    _write_csv(out / CHECKS, ("check", "file", "split"), found)
    near = ((number, names[row], splits[row]) for number, rows in enumerate(columns.groups) for row in rows)
    _write_csv(out / DUPLICATES, ("group", "file", "split"), near)
    rejected = dataset.manifest.rejected
    _write_csv(out / REJECTED, ("file", "reason"), ((one.file, one.reason) for one in rejected))
    noted = len({row for rows in columns.checks.values() for row in rows})
    moving = columns.moving
    greeting = columns.examples(np.flatnonzero(moving) if moving.any() else np.arange(len(dataset)), GREETING, rng)
    every = {**FRAME_CHECKS, **CAPTION_CHECKS}
    checks = [
        (every[code], len(rows), _percent(len(rows), len(dataset)), columns.examples(rows, EXAMPLES, rng))
        for code, rows in columns.checks.items()
    ]
    leaking = [rows for rows in columns.groups if len({splits[row] == "train" for row in rows}) > 1]
    captions = list(zip(columns.captions, splits, strict=True))
    known = {text for text, split in captions if split == "train"}
    held_out = [text for text, split in captions if split != "train"]
    words = [_WORD.findall(text.casefold()) for text in columns.captions]
    frequent = Counter(word for said in words for word in set(said))
    kinds = reason_kinds(rejected)
    page = render_page(
        out / PAGE,
        "inspect",
        name=Path(data).resolve().name,
        total=len(dataset),
        size=dataset.size,
        fingerprint=dataset.fingerprint,
        greeting=greeting,
        animations=int(moving.sum()),
        median_frames=np.median(columns.frames[moving]) if moving.any() else 0,
        minutes=columns.seconds[moving].sum() / 60,
        captioned=_percent(sum(map(bool, columns.captions)), len(dataset)),
        captions=len({*columns.captions}),
        words=len(frequent),
        charts=_charts(columns, np.array(list(map(len, words))), frequent),
        noted=noted,
        checks=checks,
        grouped=len(columns.groups),
        alike=sum(map(len, columns.groups)),
        largest=columns.members(sorted(columns.groups, key=len, reverse=True)),
        splits=[(name, n, _percent(n, len(dataset))) for name, n in dataset.manifest.counts.items()],
        leaks=len(leaking),
        leaking=columns.members(leaking),
        held_out=len(held_out),
        shared=sum(text in known for text in held_out if text),
        clips=_clips(training if len(training) else dataset, count, seed),
        rejected=len(rejected),
        kinds=[(_cut(kind), len(f), _cut(f[0].file), _cut(f[0].reason)) for kind, f in kinds[:KINDS]],
        more_kinds=len(kinds) - KINDS,
        passed_over=dataset.manifest.passed_over,
    )
    console.print(
        f"{len(dataset):,} stickers, {noted:,} with a failed check, {len(columns.groups):,} groups of near-duplicates, "
        f"{len(rejected):,} rejected",
        highlight=False,
    )
    return page


def _charts(columns: _Columns, words: np.ndarray, frequent: dict[str, int]) -> list[Markup]:
    """Charts of the numbers.

    Args:
        words: numbers of words of the captions. frequent: number of captions that have a word.
    """
    manifest, moving = columns.dataset.manifest, columns.moving
    most = int(manifest.settings.get("max_frames", 0))
    at_limit = int((columns.frames == most).sum())
    limit = f"{at_limit:,} have {most}, the limit: longer animations were thinned out." if at_limit else ""
    seams = (
        f"The step from the last frame to the first, in mean steps. Up to {LOOP_SEAM:g} it is a loop without a seam."
    )
    motion = "Mean difference between neighbouring frames, of the possible difference."
    return [
        histogram(columns.frames, title="Frames", whole=True, note=limit),
        histogram(columns.seconds[moving], title="Duration of an animation", unit=" s"),
        histogram(100 * columns.coverage, title="Drawn area", unit=" %", note="Mean opacity."),
        histogram(100 * columns.motion[moving], title="Motion", unit=" %", note=motion),
        histogram(columns.seam, title="Seams", unit=" steps", note=seams, marked=((LOOP_SEAM, "beyond"),)),
        histogram(words, title="Words of the first caption", whole=True),
        _most("Most frequent words", frequent, WORDS),
        _most("Sources", manifest.sources, SOURCES),
        _most("Licences", manifest.licenses, SOURCES),
    ]


def _most(title: str, counts: dict[str, int], shown: int) -> Markup:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:shown]
    return bar_list([(_cut(name), count) for name, count in most], title=title, more=len(counts) - len(most))


def reason_kinds(rejected: Sequence[Rejection]) -> list[tuple[str, list[Rejection]]]:
    """Rejections by the kind of their reason (without numbers and names), the most frequent first."""
    kinds: dict[str, list[Rejection]] = defaultdict(list)
    for rejection in rejected:
        kind = re.sub(r"(?s)(duplicate of ).*", r"\1another file", rejection.reason)
        kind = re.sub(r"(?s)(?<!\w)(['\"]).*?\1(?!\w)", "\N{HORIZONTAL ELLIPSIS}", kind)
        kinds[re.sub(r"\d+(?:[.,]\d+)*", "N", kind)].append(rejection)
    return sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))


def _clips(dataset: StickerDataset, count: int, seed: int) -> list[Picture]:
    """Clips drawn as training draws them, each as a strip of frames with remarks."""
    rng = numpy_rng(seed, 0, "contact sheet")
    still = np.array(dataset.column("num_frames")) == 1
    order = rng.permutation(len(dataset))
    clips = []
    for index in order[np.argsort(still[order], kind="stable")][:count]:  # what moves comes first
        record = dataset.record(int(index))
        plan = plan_clip(record, FRAMES, rng, cluster_fraction=CLUSTER_FRACTION)
        clip = _small(dataset.frames(int(index))[list(plan.frames)])
        if plan.variant == MIRRORED:
            clip = clip[:, :, ::-1]
        strip = np.concatenate(np.pad(clip, ((0, 0), (0, 0), (0, GAP), (0, 0))), axis=1)[:, :-GAP]
        notes = [f"{len(plan.frames)} of {record.num_frames} frames" if record.num_frames > 1 else "a still"]
        notes += ["mirrored"] * (plan.variant == MIRRORED) + ["loop"] * plan.loop
        source = data_address(_webp(strip[None], []))
        clips.append(Picture(source, _cut(record.source), _cut(record.caption), ", ".join(notes)))
    return clips


def _moving(dataset: StickerDataset, row: int) -> str:
    """A sticker as a small animated WebP, at its own speed, in a ``data:`` address."""
    frames, times = dataset.frames(row), np.cumsum(dataset.record(row).durations)
    count = min(PICTURE_FRAMES, len(frames))
    chosen = np.linspace(0, len(frames), count, endpoint=False).astype(int)
    ends = np.append(times[chosen[1:] - 1], times[-1])
    durations = np.diff(ends, prepend=0).clip(20, 60_000).astype(int).tolist()
    return data_address(_webp(_small(frames[chosen]), durations))


def _small(frames: np.ndarray) -> np.ndarray:
    return frames if frames.shape[1] <= SIDE else fit(frames, SIDE)


def _webp(frames: np.ndarray, durations: list[int]) -> bytes:
    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    stream = io.BytesIO()
    moving = {"save_all": True, "append_images": pictures[1:], "duration": durations, "loop": 0}
    pictures[0].save(stream, "WEBP", quality=40, alpha_quality=40, method=2, **(moving if len(pictures) > 1 else {}))
    return stream.getvalue()


def _sums(column: pa.ChunkedArray) -> np.ndarray:
    """``(n,)`` float64 sums of the lists in a column."""
    totals = [np.zeros(0)]
    for chunk in column.chunks:
        running = np.append(0.0, np.cumsum(chunk.values.to_numpy().astype(np.float64)))
        totals.append(np.diff(running[chunk.offsets.to_numpy()]))
    return np.concatenate(totals)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %"


def _cut(text: str) -> str:
    return text if len(text) <= LENGTH else text[: LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    write_text(path, text.getvalue())
