"""One page that shows a prepared dataset: what is in it, what is odd about it, and what training will see."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table

from rdtf.data.augment import MIRRORED
from rdtf.data.checks import JUMP
from rdtf.data.clips import plan_clip
from rdtf.data.dataset import StickerDataset
from rdtf.data.duplicates import NearPairs
from rdtf.data.findings import CAPTION_FINDINGS, FRAME_FINDINGS, Finding
from rdtf.data.keyframes import LOOP_SEAM
from rdtf.data.signatures import Likeness
from rdtf.data.survey import (
    Bar,
    Group,
    Survey,
    flagged,
    histogram,
    left_out_pairs,
    near_groups,
    refusals,
    shared_captions,
    survey_dataset,
)
from rdtf.files import write_text
from rdtf.page import data_address, render_page
from rdtf.pixels import fit
from rdtf.progress import console
from rdtf.rng import numpy_rng

PAGE = "index.html"
FINDINGS, DUPLICATES, REJECTED = "findings.csv", "near_duplicates.csv", "rejected.csv"
"""Files beside the page with everything of which the page shows examples."""

FRAMES = 8  # the most frames of a clip that training is shown to see
STILLS_SHARE = 0.25  # of these clips: stills say little, and training draws few of them
CLUSTER_SHARE = 0.5  # of the clips, extracted by feature clusters

# What bounds the page, whatever the dataset.
SIDE = 80  # most pixels of a picture each way
PICTURE_FRAMES = 12
PICTURE_BYTES = 16 * 1024
GREETING, EXAMPLES, GROUPS, MEMBERS, EXTREMES, SPOKEN = 24, 6, 12, 4, 3, 12
NAMES = 100  # of one finding, or of one kind of reason
KINDS = 40  # of reasons
WORDS, SOURCES = 40, 20
LENGTH = 160  # characters of a name or a caption

GAP = 6  # pixels between the frames of a clip


@dataclass(frozen=True)
class Chart:
    """A histogram as it is drawn.

    Attributes:
        title: what is counted; median: of all values, with its unit.
        bars: see :func:`~rdtf.data.survey.histogram`.
        note: a sentence below.
        marked: classes for the bars that begin at a value or beyond, the values rising.
    """

    title: str
    median: str
    bars: list[Bar]
    note: str
    marked: Sequence[tuple[float, str]]

    WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 180, 44, 14, 12, 24

    @classmethod
    def of(
        cls,
        title: str,
        values: np.ndarray,
        *,
        unit: str = "",
        whole: bool = False,
        note: str = "",
        marked: Sequence[tuple[float, str]] = (),
    ) -> Chart:
        """A chart of values; those that are not finite are not counted."""
        values = values[np.isfinite(values)]
        median = f"{np.median(values):,.3g}{unit}" if len(values) else ""
        return cls(title, median, histogram(values, unit=unit, whole=whole), note, marked)

    @property
    def logarithmic(self) -> bool:
        """Whether the smaller bars could not be seen beside the largest one."""
        counts = sorted(bar.count for bar in self.bars if bar.count)
        return counts[-1] > 20 * counts[len(counts) // 2]

    def _up(self, count: float) -> float:
        """Height of a bar, in 0..1; one sticker can always be seen."""
        highest = max(bar.count for bar in self.bars)
        if not self.logarithmic:
            return count / highest
        return math.log10(1 + count) / math.log10(1 + highest)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and numbers of the lines across."""
        highest = max(bar.count for bar in self.bars)
        if self.logarithmic:
            counts = [10**power for power in range(math.floor(math.log10(highest)) + 1)]
        else:
            step = next(
                step for power in range(12) for step in (10**power, 2 * 10**power, 5 * 10**power) if highest / step <= 4
            )
            counts = list(range(0, highest + 1, step))
        return [(self._place(self._up(count)), f"{count:,}") for count in counts]

    def _place(self, up: float) -> float:
        return round(self.HEIGHT - self.BOTTOM - up * (self.HEIGHT - self.BOTTOM - self.TOP), 1)

    @property
    def boxes(self) -> list[dict[str, Any]]:
        """What is drawn for each bar."""
        room = (self.WIDTH - self.LEFT - self.RIGHT) / len(self.bars)
        every = math.ceil(len(self.bars) / 6)
        drawn = []
        for number, bar in enumerate(self.bars):
            top = self._place(self._up(bar.count))
            kind = next((kind for start, kind in reversed(self.marked) if bar.start >= start - 1e-9), "bar")
            shown = bar.tail or (number % every == 0 and not (self.bars[-1].tail and number + every > len(self.bars)))
            drawn.append(
                {
                    "x": round(self.LEFT + number * room + min(1.0, 0.1 * room), 1),
                    "middle": round(self.LEFT + (number + 0.5) * room, 1),
                    "width": round(room - min(2.0, 0.2 * room), 1),
                    "top": top,
                    "height": round(self.HEIGHT - self.BOTTOM - top, 1),
                    "kind": "tail" if bar.tail else kind,
                    "title": f"{bar.label}: {bar.count:,}",
                    "tick": f"{bar.start:,.4g}{'+' if bar.tail else ''}" if shown else "",
                }
            )
        return drawn


@dataclass(frozen=True)
class Picture:
    """A sticker on the page: where its pixels are (a ``data:`` address), and the words below."""

    source: str
    name: str
    caption: str = ""
    note: str = ""


@dataclass(frozen=True)
class Found:
    """A finding with its stickers: a part of them shown, some more named."""

    code: str
    finding: Finding
    count: int
    share: str
    pictures: list[Picture]
    names: list[str]


@dataclass
class _Album:
    """Makes pictures of stickers, each small, and chooses examples that were not shown before."""

    dataset: StickerDataset
    survey: Survey
    rng: np.random.Generator
    shown: set[int] = field(default_factory=set)

    def choose(self, rows: np.ndarray, count: int) -> np.ndarray:
        """At most so many of some rows, at random, best such that are new."""
        order = self.rng.permutation(rows)
        new = np.array([row not in self.shown for row in order.tolist()], bool)
        chosen = np.concatenate([order[new], order[~new]])[:count]
        self.shown.update(chosen.tolist())
        return chosen

    def picture(self, row: int, note: str = "") -> Picture:
        """A moving picture of a sticker of the dataset."""
        survey = self.survey
        return Picture(_moving(self.dataset, row), _cut(survey.sources[row]), _cut(survey.captions[row]), note)

    def pictures(self, rows: np.ndarray, count: int, *, said: bool = False) -> list[Picture]:
        """Pictures of at most so many of some rows; with what is ``said`` about them below."""
        captions = self.survey.captions
        return [self.picture(row, _cut(captions[row]) if said else "") for row in self.choose(rows, count).tolist()]


def inspect_dataset(data: Path, out: Path, *, count: int = 24, seed: int = 0) -> Path:
    """Write ``index.html`` about a dataset into a folder, lists of everything beside it, and print a short summary.

    The page holds its pictures and is a few MB whatever the dataset: it shows examples, and names all that it does
    not show in :data:`FINDINGS`, :data:`DUPLICATES` and :data:`REJECTED`. Frames are read of the examples only.

    Args:
        data: prepared dataset.
        out: folder for the files; made if it is not there.
        count: clips as training draws them, at most a quarter of them stills if there are enough others.
        seed: which stickers and which of their frames.

    Returns:
        The page.

    Raises:
        ValueError: ``data`` is no dataset, or ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    dataset = StickerDataset(data)
    survey = survey_dataset(dataset)
    album = _Album(dataset, survey, numpy_rng(seed, 0, "examples"))
    groups = near_groups(dataset, survey)
    others, left_out = left_out_pairs(dataset, survey)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _write_lists(out, dataset, survey, groups, left_out, others)

    manifest, total = dataset.manifest, len(survey)
    noted = len(np.unique(np.concatenate([np.zeros(0, np.int64), *survey.findings.values()])))
    training = StickerDataset(data, "train")
    shared, held_out = shared_captions(survey)
    page = render_page(
        out / PAGE,
        "inspect",
        name=Path(data).resolve().name,
        size=dataset.size,
        fingerprint=dataset.fingerprint,
        total=total,
        facts=_facts(survey, noted, groups, len(manifest.rejected)),
        greeting=album.pictures(np.flatnonzero(survey.moving) if survey.moving.any() else np.arange(total), GREETING),
        charts=[chart for chart in _charts(dataset, survey) if chart.bars],
        lists=_lists(dataset, survey),
        extremes=_extremes(album),
        found=[_found(code, rows, album) for code, rows in survey.findings.items()],
        absent=[f.title for code, f in {**FRAME_FINDINGS, **CAPTION_FINDINGS}.items() if code not in survey.findings],
        noted=noted,
        groups=_shown_groups(groups, album),
        group_count=len(groups),
        grouped=int((survey.groups >= 0).sum()),
        left_out=_shown_pairs(left_out, others, album),
        left_out_count=len(others),
        rejected=_shown_refusals(dataset),
        rejected_count=len(manifest.rejected),
        passed_over=manifest.passed_over,
        splits=[(name, number, _share(number, total)) for name, number in manifest.counts.items()],
        leaks=[_shown_group(group, album) for group in [g for g in groups if g.leaks][:GROUPS]],
        leak_count=sum(group.leaks for group in groups),
        shared=shared,
        held_out=held_out,
        by_caption=manifest.settings.get("split_by") == "caption",
        captions=_shown_captions(album),
        distinct=len(set(survey.captions)),
        clips=_clips(training if len(training) else dataset, count, seed),
        files={"findings": FINDINGS, "duplicates": DUPLICATES, "rejected": REJECTED},
    )
    table = Table("stickers", *manifest.counts, "moving", "noted", "near-duplicates", "rejected")
    numbers = [total, *manifest.counts.values(), int(survey.moving.sum()), noted, int((survey.groups >= 0).sum())]
    table.add_row(*(f"{number:,}" for number in [*numbers, len(manifest.rejected)]))
    console.print(table)
    return page


def _share(part: int, whole: int) -> str:
    """A share in words; never 0 % or 100 % of what is not none or all."""
    if 0 < part < 0.005 * whole:
        return "under 1 %"
    if 0.995 * whole < part < whole:
        return "over 99 %"
    return f"{part / whole:.0%}".replace("%", " %") if whole else "0 %"


def _cut(text: str) -> str:
    return text if len(text) <= LENGTH else text[: LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _facts(survey: Survey, noted: int, groups: Sequence[Group], rejected: int) -> list[tuple[str, str, str]]:
    """The numbers at the top: number, what it counts, a remark."""
    total, moving = len(survey), survey.moving
    minutes = float(survey.seconds[moving].sum()) / 60
    played = f"{minutes / 60:,.1f} h" if minutes >= 120 else f"{minutes:,.1f} min"
    captioned = sum(bool(text) for text in survey.captions)
    stills = total - int(moving.sum())
    usual = f"{np.median(survey.frames[moving]):.0f} frames at the median" if moving.any() else "nothing moves"
    return [
        (f"{int(moving.sum()):,}", "animations", f"{usual}, and {stills:,} stills"),
        (played, "of animation", f"{survey.loops:,} loop without a seam"),
        (_share(captioned, total), "with a caption", f"{len(survey.vocabulary):,} different words"),
        (f"{noted:,}", "with a finding", f"{_share(noted, total)} of all"),
        (f"{len(groups):,}", "groups of near-duplicates", f"{int((survey.groups >= 0).sum()):,} stickers in them"),
        (f"{rejected:,}", "rejected", "each with its reason"),
    ]


def _charts(dataset: StickerDataset, survey: Survey) -> Iterator[Chart]:
    moving = survey.moving
    most = int(dataset.manifest.settings.get("max_frames", 0))
    at_limit = int((survey.frames == most).sum())
    limit = f"{at_limit:,} have {most}, the most that were kept: longer ones were thinned out." if at_limit else ""
    yield Chart.of("Frames", survey.frames, whole=True, note=limit)
    yield Chart.of("Length of an animation", survey.seconds[moving], unit=" s")
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = survey.frames[moving] / survey.seconds[moving]
    note = "As stored: a long sticker that was thinned out has fewer."
    yield Chart.of("Frames a second", rate, note=note)
    note = "Mean opacity over the canvas and all frames."
    yield Chart.of("Drawn area", 100 * survey.coverage, unit=" %", note=note)
    note = "Side of the square around what is drawn, by its spread, in parts of the canvas."
    yield Chart.of("Size of the drawing", 100 * survey.extent, unit=" %", note=note)
    note = "Mean difference between neighbouring frames, of what is possible."
    yield Chart.of("Motion", 100 * survey.motion[moving], unit=" %", note=note)
    note = (
        f"The step from the last frame to the first, in usual steps: up to {LOOP_SEAM:g} it loops without a seam, "
        f"beyond {JUMP:g} it jumps."
    )
    marked = ((LOOP_SEAM, "between"), (JUMP, "beyond"))
    yield Chart.of("Seams", survey.seam, unit=" steps", note=note, marked=marked)
    yield Chart.of("Words of the first caption", survey.words, whole=True)
    if survey.texts.max() > 1:
        yield Chart.of("Captions of a sticker", survey.texts, whole=True)
    note = f"{survey.stored.sum() / 1e6:,.1f} MB of frames together, at {dataset.size} x {dataset.size} pixels."
    yield Chart.of("Room in the dataset", survey.stored / 1000, unit=" kB", note=note)


def _lists(dataset: StickerDataset, survey: Survey) -> list[dict[str, Any]]:
    """Bars that lie: what is counted by name."""
    manifest = dataset.manifest
    spoken = int((survey.words > 0).sum())
    languages = [(name or "not told", round(share * spoken)) for name, share in survey.languages.items()]
    languages = [(name, count) for name, count in languages if count][:SOURCES]
    parts = [
        ("Most frequent words", survey.vocabulary[:WORDS], len(survey.vocabulary), "first captions with it"),
        ("Scripts of captions", list(survey.scripts.items()), len(survey.scripts), "stickers with a caption in it"),
        ("Languages of first captions", languages, len(languages), "stickers, as far as a few words tell"),
        ("Sources", _most(manifest.sources), len(manifest.sources), "stickers"),
        ("Licences", _most(manifest.licenses), len(manifest.licenses), "stickers whose metadata names one"),
    ]
    return [
        {
            "title": title,
            "counts": counts,
            "rows": [
                {"name": _cut(name), "count": number, "part": round(100 * number / rows[0][1], 1)}
                for name, number in rows
            ],
            "more": whole - len(rows),
        }
        for title, rows, whole, counts in parts
        if rows
    ]


def _most(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:SOURCES]


def _extremes(album: _Album) -> list[tuple[str, list[Picture]]]:
    """Stickers at the ends of some scales: the first thing to look at."""
    survey = album.survey
    rows = np.flatnonzero(survey.moving)
    if not len(rows):
        rows = np.arange(len(survey))
    scales = [
        ("Liveliest", -survey.motion, lambda row: f"{100 * survey.motion[row]:.1f} % a step"),
        ("Calmest", survey.motion, lambda row: f"{100 * survey.motion[row]:.2g} % a step"),
        ("Longest", -survey.seconds, lambda row: f"{survey.seconds[row]:.1f} s, {survey.frames[row]} frames"),
        ("Smallest", survey.coverage, lambda row: f"{100 * survey.coverage[row]:.2g} % drawn"),
        ("Fullest", -survey.coverage, lambda row: f"{100 * survey.coverage[row]:.0f} % drawn"),
    ]
    shown = []
    for title, scale, note in scales:
        chosen = rows[np.argsort(scale[rows], kind="stable")[:EXTREMES]].tolist()
        shown.append((title, [album.picture(row, note(row)) for row in chosen]))
    return shown


def _found(code: str, rows: np.ndarray, album: _Album) -> Found:
    finding = {**FRAME_FINDINGS, **CAPTION_FINDINGS}[code]
    names = [_cut(album.survey.sources[row]) for row in rows[:NAMES].tolist()]
    share = _share(len(rows), len(album.survey))
    pictures = album.pictures(rows, EXAMPLES, said=code in CAPTION_FINDINGS)
    return Found(code, finding, len(rows), share, pictures, names)


def _shown_groups(groups: Sequence[Group], album: _Album) -> list[tuple[str, list[list[Picture]]]]:
    """The largest groups, and those that are least alike: these are the ones to doubt."""
    by_size = sorted(range(len(groups)), key=lambda number: (-len(groups[number].rows), number))
    by_doubt = sorted(range(len(groups)), key=lambda number: (-groups[number].differences.max(), number))
    largest = by_size[: GROUPS // 2]
    doubted = [number for number in by_doubt if number not in largest][: GROUPS - len(largest)]
    titled = (("The largest groups", largest), ("The least alike", doubted))
    return [
        (title, [_shown_group(groups[number], album) for number in numbers]) for title, numbers in titled if numbers
    ]


def _shown_group(group: Group, album: _Album) -> list[Picture]:
    """Its first sticker and the ones least like it."""
    others = 1 + np.argsort(-group.differences[1:], kind="stable")[: MEMBERS - 1]
    places = [0, *others.tolist()]
    rows = group.rows[places].tolist()
    album.shown.update(rows)
    more = len(group.rows) - len(rows)
    notes = [f"{_apart(group, place)}, {group.splits[place]}" for place in places]
    notes[0] = f"the first, {group.splits[0]}"
    if more:
        notes[-1] += f"; {more:,} more"
    return [album.picture(row, note) for row, note in zip(rows, notes, strict=True)]


def _apart(near: Group | NearPairs, place: int) -> str:
    return f"{Likeness(near.how[place])}, {100 * near.differences[place]:.1f} % apart"


def _shown_pairs(left_out: NearPairs, others: StickerDataset, album: _Album) -> list[list[Picture]]:
    """What was left out beside what stays for it, the least alike first."""
    shown = []
    names = others.column("source")
    for place in np.argsort(-left_out.differences, kind="stable")[:GROUPS].tolist():
        kept, gone = left_out.rows[place].tolist()
        note = f"left out, {_apart(left_out, place)}"
        shown.append([album.picture(kept, "stays"), Picture(_moving(others, gone), _cut(names[gone]), note=note)])
    return shown


def _shown_refusals(dataset: StickerDataset) -> dict[str, Any]:
    kinds = refusals(dataset.manifest.rejected)
    shown = [
        {
            "reason": _cut(kind.reason),
            "count": len(kind.rejected),
            "files": [(_cut(one.file), _cut(one.reason)) for one in kind.rejected[:NAMES]],
        }
        for kind in kinds[:KINDS]
    ]
    return {"kinds": shown, "more": len(kinds) - len(shown)}


def _shown_captions(album: _Album) -> list[tuple[Picture, list[str]]]:
    """Stickers with all that is said about them; half of them have several captions, if there are enough."""
    survey = album.survey
    several = album.choose(np.flatnonzero(survey.texts > 1), SPOKEN // 2)
    rest = album.choose(np.flatnonzero(survey.texts == 1), SPOKEN - len(several))
    rows = [*several.tolist(), *rest.tolist()]
    shown = []
    for row in rows:
        texts = [_cut(text) for text in album.dataset.record(row).captions]
        more = [f"and {len(texts) - 6} more"] if len(texts) > 6 else []
        shown.append((album.picture(row), texts[:6] + more))
    return shown


def _write_lists(
    out: Path,
    dataset: StickerDataset,
    survey: Survey,
    groups: Sequence[Group],
    left_out: NearPairs,
    others: StickerDataset,
) -> None:
    """Everything, in tables that programs read."""
    names, splits = survey.sources, survey.splits.tolist()
    _write_csv(out / FINDINGS, ("finding", "file", "split"), ((c, names[r], splits[r]) for c, r in flagged(survey)))
    members = (
        (number, names[row], splits[row], Likeness(how), f"{difference:.4f}")
        for number, group in enumerate(groups)
        for row, how, difference in zip(
            group.rows.tolist(), group.how.tolist(), group.differences.tolist(), strict=True
        )
    )
    gone = others.column("source")
    copies = (
        (f"near {names[kept]}", gone[row], "left out", Likeness(how), f"{difference:.4f}")
        for (kept, row), how, difference in zip(*(part.tolist() for part in left_out), strict=True)
    )
    _write_csv(out / DUPLICATES, ("group", "file", "split", "how", "difference"), (*members, *copies))
    rejected = ((one.file, one.reason) for one in dataset.manifest.rejected)
    _write_csv(out / REJECTED, ("file", "reason"), rejected)


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _moving(dataset: StickerDataset, row: int) -> str:
    """A sticker as a small animated WebP, at its own speed, in a ``data:`` address."""
    frames = dataset.frames(row)
    times = np.cumsum(dataset.table(["durations"], np.array([row])).column(0).to_pylist()[0])
    for count, quality in ((PICTURE_FRAMES, 60), (PICTURE_FRAMES // 2, 30), (1, 30), (1, 1)):
        chosen = np.unique(np.linspace(0, len(frames), min(count, len(frames)), endpoint=False).astype(int))
        ends = np.append(times[chosen[1:] - 1], times[-1])
        durations = np.diff(ends, prepend=0).clip(20, 60_000).astype(int).tolist()
        data = _webp(_small(frames[chosen]), durations, quality)
        if len(data) <= PICTURE_BYTES:
            break
    return data_address(data)


def _small(frames: np.ndarray) -> np.ndarray:
    return frames if frames.shape[1] <= SIDE else fit(frames, SIDE)


def _webp(frames: np.ndarray, durations: list[int], quality: int) -> bytes:
    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    stream = io.BytesIO()
    moving = {"save_all": True, "append_images": pictures[1:], "duration": durations, "loop": 0}
    options = moving if len(pictures) > 1 else {}
    pictures[0].save(stream, "WEBP", quality=quality, alpha_quality=quality, method=2, **options)
    return stream.getvalue()


def _clips(dataset: StickerDataset, count: int, seed: int) -> list[tuple[Picture, list[str], int]]:
    """Clips drawn as training draws them: a strip of frames each, remarks, and how many frames."""
    rng = numpy_rng(seed, 0, "contact sheet")
    still = np.array(dataset.column("num_frames")) == 1
    order = rng.permutation(len(dataset))
    moving, stills = order[~still[order]], order[still[order]]
    wanted = max(math.floor(count * STILLS_SHARE), count - len(moving))
    chosen = [*moving[: count - min(wanted, len(stills))], *stills[:wanted]]
    shown = []
    for index in chosen:
        record = dataset.record(int(index))
        plan = plan_clip(record, FRAMES, rng, cluster_fraction=CLUSTER_SHARE)
        clip = _small(dataset.frames(int(index))[list(plan.frames)])
        if plan.version == MIRRORED:
            clip = clip[:, :, ::-1]
        strip = np.concatenate(np.pad(clip, ((0, 0), (0, 0), (0, GAP), (0, 0))), axis=1)[:, :-GAP]
        notes = [f"{len(plan.frames)} of {record.num_frames} frames" if record.num_frames > 1 else "a still"]
        notes += ["mirrored"] * (plan.version == MIRRORED) + ["loop"] * plan.loop
        source = data_address(_webp(strip[None], [], 60))
        shown.append((Picture(source, _cut(record.source), _cut(record.caption)), notes, len(plan.frames)))
    return shown
