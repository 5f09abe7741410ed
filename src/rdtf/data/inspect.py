"""The page about a prepared dataset: its numbers, its checks, and the clips that training will see."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image
from rich.table import Table

from rdtf.data.augment import MIRRORED
from rdtf.data.checks import CAPTION_CHECKS, FRAME_CHECKS, JUMP, Check
from rdtf.data.clips import plan_clip
from rdtf.data.dataset import StickerDataset
from rdtf.data.duplicates import Likeness, NearPairs
from rdtf.data.keyframes import LOOP_SEAM
from rdtf.data.survey import (
    Group,
    Survey,
    flagged,
    left_out_pairs,
    near_groups,
    refusals,
    shared_captions,
    survey_dataset,
)
from rdtf.files import write_text
from rdtf.page import bar_list, data_address, histogram, render_page
from rdtf.pixels import fit
from rdtf.progress import console
from rdtf.rng import numpy_rng

PAGE = "index.html"
CHECKS, DUPLICATES, REJECTED = "checks.csv", "near_duplicates.csv", "rejected.csv"
"""Files beside the page. They list everything; the page shows examples."""

FRAMES = 8  # largest number of frames of a clip on the page
STILL_FRACTION = 0.25  # of the clips
CLUSTER_FRACTION = 0.5  # of the clips, extracted by feature clusters

# Limits that keep the page small, whatever the size of the dataset.
SIDE = 80  # pixels of a picture
PICTURE_FRAMES = 12
PICTURE_BYTES = 16 * 1024
GREETING, EXAMPLES, GROUPS, MEMBERS, EXTREMES, SPOKEN = 24, 6, 12, 4, 3, 12
NAMES = 100  # for one check, or for one kind of reason
KINDS = 40  # of reasons
WORDS, SOURCES = 40, 20
LENGTH = 160  # characters of a name or a caption

GAP = 6  # pixels between the frames of a clip


@dataclass(frozen=True)
class Picture:
    """A sticker on the page: its pixels (a ``data:`` address) and the texts below."""

    source: str
    name: str
    caption: str = ""
    note: str = ""


@dataclass(frozen=True)
class Found:
    """A check with the stickers that it applies to: some pictures, and more names."""

    code: str
    check: Check
    count: int
    fraction: str
    pictures: list[Picture]
    names: list[str]


@dataclass
class _Album:
    """Makes small pictures of stickers, and prefers examples that the page does not show yet."""

    dataset: StickerDataset
    survey: Survey
    rng: np.random.Generator
    shown: set[int] = field(default_factory=set)

    def choose(self, rows: np.ndarray, count: int) -> np.ndarray:
        """At most ``count`` of the rows, at random, those not yet shown first."""
        order = self.rng.permutation(rows)
        new = np.array([row not in self.shown for row in order.tolist()], bool)
        chosen = np.concatenate([order[new], order[~new]])[:count]
        self.shown.update(chosen.tolist())
        return chosen

    def picture(self, row: int, note: str = "") -> Picture:
        """A moving picture of a sticker of the dataset."""
        survey = self.survey
        return Picture(_moving(self.dataset, row), _cut(survey.sources[row]), _cut(survey.captions[row]), note)

    def pictures(self, rows: np.ndarray, count: int, *, captions: bool = False) -> list[Picture]:
        """Pictures of at most ``count`` of the rows, with their captions below if asked for."""
        texts = self.survey.captions
        return [self.picture(row, _cut(texts[row]) if captions else "") for row in self.choose(rows, count).tolist()]


def inspect_dataset(data: Path, out: Path, *, count: int = 24, seed: int = 0) -> Path:
    """Write ``index.html`` about a dataset and the lists beside it, and print a short summary.

    The page holds its pictures and takes a few MB for any dataset. It shows examples;
    :data:`CHECKS`, :data:`DUPLICATES` and :data:`REJECTED` list everything. Only frames of the examples are read.

    Args:
        data: prepared dataset.
        out: folder for the files; it is made if needed.
        count: number of clips drawn as in training, at most a quarter of them stills if there are enough others.
        seed: chooses the stickers and their frames.

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
    noted = len(np.unique(np.concatenate([np.zeros(0, np.int64), *survey.checks.values()])))
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
        charts=_charts(dataset, survey),
        lists=_lists(dataset, survey),
        extremes=_extremes(album),
        found=[_found(code, rows, album) for code, rows in survey.checks.items()],
        absent=[c.title for code, c in {**FRAME_CHECKS, **CAPTION_CHECKS}.items() if code not in survey.checks],
        noted=noted,
        groups=_shown_groups(groups, album),
        group_count=len(groups),
        grouped=int((survey.groups >= 0).sum()),
        left_out=_shown_pairs(left_out, others, album),
        left_out_count=len(others),
        rejected=_shown_refusals(dataset),
        rejected_count=len(manifest.rejected),
        passed_over=manifest.passed_over,
        splits=[(name, number, _percent(number, total)) for name, number in manifest.counts.items()],
        leaks=[_shown_group(group, album) for group in [g for g in groups if g.leaks][:GROUPS]],
        leak_count=sum(group.leaks for group in groups),
        shared=shared,
        held_out=held_out,
        by_caption=manifest.settings.get("split_by") == "caption",
        captions=_shown_captions(album),
        distinct=len(set(survey.captions)),
        clips=_clips(training if len(training) else dataset, count, seed),
        files={"checks": CHECKS, "duplicates": DUPLICATES, "rejected": REJECTED},
    )
    table = Table("stickers", *manifest.counts, "moving", "noted", "near-duplicates", "rejected")
    numbers = [total, *manifest.counts.values(), int(survey.moving.sum()), noted, int((survey.groups >= 0).sum())]
    table.add_row(*(f"{number:,}" for number in [*numbers, len(manifest.rejected)]))
    console.print(table)
    return page


def _percent(part: int, whole: int) -> str:
    """A percentage. Only nothing is 0 % and only all is 100 %."""
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
        (_percent(captioned, total), "with a caption", f"{len(survey.vocabulary):,} different words"),
        (f"{noted:,}", "with a failed check", f"{_percent(noted, total)} of all"),
        (f"{len(groups):,}", "groups of near-duplicates", f"{int((survey.groups >= 0).sum()):,} stickers in them"),
        (f"{rejected:,}", "rejected", "each with its reason"),
    ]


def _charts(dataset: StickerDataset, survey: Survey) -> list[Markup]:
    moving = survey.moving
    most = int(dataset.manifest.settings.get("max_frames", 0))
    at_limit = int((survey.frames == most).sum())
    limit = f"{at_limit:,} have {most}, the limit: longer animations were thinned out." if at_limit else ""
    seams = (
        f"The step from the last frame to the first, in mean steps. Up to {LOOP_SEAM:g} it is a loop without a seam, "
        f"above {JUMP:g} it is a jump."
    )
    size = f"{survey.stored.sum() / 1e6:,.1f} MB of frames together, at {dataset.size} x {dataset.size} pixels."
    extent = "Side of a square around the drawing, as a part of the canvas."
    motion = "Mean difference between neighbouring frames, of the possible difference."
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = survey.frames[moving] / survey.seconds[moving]
    charts = [
        histogram(survey.frames, title="Frames", whole=True, note=limit),
        histogram(survey.seconds[moving], title="Duration of an animation", unit=" s"),
        histogram(rate, title="Frames a second", note="As stored: thinned-out animations have fewer."),
        histogram(100 * survey.coverage, title="Drawn area", unit=" %", note="Mean opacity over canvas and frames."),
        histogram(100 * survey.extent, title="Size of the drawing", unit=" %", note=extent),
        histogram(100 * survey.motion[moving], title="Motion", unit=" %", note=motion),
        histogram(
            survey.seam, title="Seams", unit=" steps", note=seams, marked=((LOOP_SEAM, "between"), (JUMP, "beyond"))
        ),
        histogram(survey.words, title="Words of the first caption", whole=True),
        histogram(survey.texts, title="Captions of a sticker", whole=True) if survey.texts.max() > 1 else Markup(""),
        histogram(survey.stored / 1000, title="Size in the dataset", unit=" kB", note=size),
    ]
    return [chart for chart in charts if chart]


def _lists(dataset: StickerDataset, survey: Survey) -> list[Markup]:
    """Counts by name."""
    manifest, words = dataset.manifest, survey.vocabulary
    parts = (
        ("Most frequent words", words[:WORDS], len(words), "first captions with it"),
        ("Sources", _most(manifest.sources), len(manifest.sources), "stickers"),
        ("Licences", _most(manifest.licenses), len(manifest.licenses), "stickers with it in their metadata"),
    )
    charts = [
        bar_list([(_cut(name), count) for name, count in shown], title=title, remark=remark, more=total - len(shown))
        for title, shown, total, remark in parts
    ]
    return [chart for chart in charts if chart]


def _most(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:SOURCES]


def _extremes(album: _Album) -> list[tuple[str, list[Picture]]]:
    """Stickers at the ends of some scales."""
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
    check = {**FRAME_CHECKS, **CAPTION_CHECKS}[code]
    names = [_cut(album.survey.sources[row]) for row in rows[:NAMES].tolist()]
    pictures = album.pictures(rows, EXAMPLES, captions=code in CAPTION_CHECKS)
    return Found(code, check, len(rows), _percent(len(rows), len(album.survey)), pictures, names)


def _shown_groups(groups: Sequence[Group], album: _Album) -> list[tuple[str, list[list[Picture]]]]:
    """The largest groups, and the groups with the largest differences: they may be wrong."""
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
    """Stickers that were left out, each beside the kept one, the largest difference first."""
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
    """Stickers with all their captions; half of them have several captions, if there are enough."""
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
    """Write the CSV files."""
    names, splits = survey.sources, survey.splits.tolist()
    _write_csv(out / CHECKS, ("check", "file", "split"), ((c, names[r], splits[r]) for c, r in flagged(survey)))
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
    wanted = max(math.floor(count * STILL_FRACTION), count - len(moving))
    chosen = [*moving[: count - min(wanted, len(stills))], *stills[:wanted]]
    shown = []
    for index in chosen:
        record = dataset.record(int(index))
        plan = plan_clip(record, FRAMES, rng, cluster_fraction=CLUSTER_FRACTION)
        clip = _small(dataset.frames(int(index))[list(plan.frames)])
        if plan.variant == MIRRORED:
            clip = clip[:, :, ::-1]
        strip = np.concatenate(np.pad(clip, ((0, 0), (0, 0), (0, GAP), (0, 0))), axis=1)[:, :-GAP]
        notes = [f"{len(plan.frames)} of {record.num_frames} frames" if record.num_frames > 1 else "a still"]
        notes += ["mirrored"] * (plan.variant == MIRRORED) + ["loop"] * plan.loop
        source = data_address(_webp(strip[None], [], 60))
        shown.append((Picture(source, _cut(record.source), _cut(record.caption)), notes, len(plan.frames)))
    return shown
