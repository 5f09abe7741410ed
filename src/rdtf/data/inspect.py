"""A page and a contact sheet that show a prepared dataset as training will see it."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from rich.table import Table

from rdtf.data.augment import MIRRORED
from rdtf.data.clips import plan_clip
from rdtf.data.dataset import MANIFEST, StickerDataset
from rdtf.page import Card, Section, write_page
from rdtf.progress import console
from rdtf.rng import numpy_rng
from rdtf.sheets import contact_sheet

PAGE = "index.html"
SHEET = "contact_sheet.png"
FRAMES = 8  # the most frames of a clip that the sheet shows
STILLS_SHARE = 0.25  # of the sheet: stills say little, and training draws few of them
CLUSTER_SHARE = 0.5  # of the clips, extracted by feature clusters
SHOWN_REJECTIONS = 500
HISTOGRAM_BARS = 40

_HISTOGRAM = """<figure class="plot">
<figcaption>{{ title }}</figcaption>
<svg viewBox="0 0 {{ 22 * bars | length }} 150" role="img" aria-label="{{ title }}" font-size="11" fill="#555">
{% for bar in bars %}
<rect x="{{ 22 * loop.index0 + 2 }}" y="{{ 130 - bar.height }}" width="18" height="{{ bar.height }}" fill="#0072b2">
<title>{{ bar.label }}: {{ bar.count }} stickers</title></rect>
<text x="{{ 22 * loop.index0 + 11 }}" y="145" text-anchor="middle">{{ bar.low }}</text>
{% endfor %}
</svg>
</figure>"""

_TABLE = """<figure class="plot">
<figcaption>{{ title }}</figcaption>
<table cellpadding="3">
{% for row in rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
</figure>"""


@dataclass(frozen=True)
class DatasetStatistics:
    """Numbers about a dataset, all splits together.

    Attributes:
        total: stickers.
        size: height and width in pixels.
        max_frames: the longest sticker's frames.
        counts: stickers per split.
        frame_counts: stickers per number of frames.
        stills: stickers of a single frame.
        loops: stickers whose last frame leads on to the first.
        flippable: stickers that may be mirrored.
        distinct: different first captions.
        empty: stickers without a caption.
        words: median number of words of a first caption.
        longest: most words of a first caption.
        frequent: the most frequent words with their counts, at most 30.
    """

    total: int
    size: int
    max_frames: int
    counts: dict[str, int]
    frame_counts: dict[int, int]
    stills: int
    loops: int
    flippable: int
    distinct: int
    empty: int
    words: int
    longest: int
    frequent: list[tuple[str, int]]


def dataset_statistics(dataset: StickerDataset) -> DatasetStatistics:
    """Count what there is to count, without reading any frames."""
    captions = dataset.column("caption")
    words = [re.findall(r"\w+", caption.casefold()) for caption in captions]
    frame_counts = Counter(dataset.column("num_frames"))
    frequent = Counter(word for caption in words for word in set(caption))
    lengths = [len(caption) for caption in words]
    return DatasetStatistics(
        total=len(dataset),
        size=dataset.size,
        max_frames=max(frame_counts),
        counts=dataset.manifest.counts,
        frame_counts=dict(sorted(frame_counts.items())),
        stills=frame_counts[1],
        loops=sum(dataset.column("loops")),
        flippable=sum(dataset.column("flippable")),
        distinct=len(set(captions)),
        empty=captions.count(""),
        words=round(float(np.median(lengths))),
        longest=max(lengths),
        frequent=sorted(frequent.items(), key=lambda item: (-item[1], item[0]))[:30],
    )


def inspect_dataset(data: Path, out: Path, *, count: int = 24, seed: int = 0) -> Path:
    """Write ``contact_sheet.png`` and ``index.html`` about a dataset into a folder, and print a short summary.

    Args:
        data: prepared dataset.
        out: folder for the two files; made if it is not there.
        count: stickers on the contact sheet, at most a quarter of them stills if there are enough others.
        seed: which stickers and which of their frames.

    Returns:
        The page.

    Raises:
        ValueError: ``data`` is no dataset, or ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    dataset = StickerDataset(data)
    stats = dataset_statistics(dataset)
    training = StickerDataset(data, "train")
    sheet, shown = _sheet(training if len(training) else dataset, count, seed)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / SHEET).write_bytes(sheet)

    def share(part: int) -> str:
        return f"{part / stats.total:.0%}"

    facts = [(name, f"{number:,}") for name, number in stats.counts.items()]
    facts += [("stills", share(stats.stills)), ("loop", share(stats.loops)), ("may mirror", share(stats.flippable))]
    manifest = dataset.manifest
    rejected = [(rejection.file, rejection.reason) for rejection in manifest.rejected]
    origins = [*manifest.sources.items(), *((f"licence {name}", n) for name, n in manifest.licenses.items())]
    more = len(rejected) - SHOWN_REJECTIONS
    sections = [
        Section(
            "What training sees",
            [
                "Clips drawn as training draws them: a frame of each of 3 to 8 feature clusters, or evenly spaced "
                "frames; mirrored at times where no caption forbids it."
            ],
            cards=[Card(f"{shown} stickers", strip=SHEET)],
            wide=True,
        ),
        Section("Stickers", plots=[_figure(_TABLE, "Splits and shares", rows=facts)]),
        Section(
            "Frames",
            ["Bars are as high as the square root of the number of stickers, so that rare lengths can be seen."],
            plots=[_figure(_HISTOGRAM, "Stickers by number of frames", bars=_bars(stats.frame_counts))],
        ),
        Section(
            "Captions",
            [
                f"{stats.distinct:,} different first captions, {stats.empty:,} empty; {stats.words} words at the "
                f"median, {stats.longest} at most."
            ],
            plots=[_figure(_TABLE, "Most frequent words, and in how many captions", rows=_columns(stats.frequent, 3))],
        ),
        Section("Sources", plots=[_figure(_TABLE, "Stickers by source folder and licence", rows=origins)]),
        Section(
            "Rejected",
            [f"{len(rejected):,} files or lines of metadata." + (f" All are in {MANIFEST}." if more > 0 else "")],
            plots=[_figure(_TABLE, "File and reason", rows=rejected[:SHOWN_REJECTIONS])] if rejected else [],
        ),
    ]
    name = Path(data).resolve().name
    about = f"{stats.size} x {stats.size} px, at most {stats.max_frames} frames, fingerprint {dataset.fingerprint}."
    page = write_page(out / PAGE, f"{stats.total:,} stickers in {name}", [about], sections)
    table = Table("stickers", *(name for name, _ in facts), "captions", "rejected")
    table.add_row(f"{stats.total:,}", *(value for _, value in facts), f"{stats.distinct:,}", f"{len(rejected):,}")
    console.print(table)
    return page


def _figure(template: str, title: str, **values: Any) -> Markup:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return Markup(environment.from_string(template).render(title=title, **values))


def _columns(pairs: Iterable[tuple[str, int]], count: int) -> list[list[str | int]]:
    """Table rows with several pairs beside each other, to be read down the columns."""
    pairs = list(pairs)
    height = math.ceil(len(pairs) / count)
    return [[cell for pair in pairs[row::height] for cell in pair] for row in range(height)]


def _sheet(dataset: StickerDataset, count: int, seed: int) -> tuple[bytes, int]:
    """A PNG of clips drawn as training draws them, and the number of stickers on it."""
    rng = numpy_rng(seed, 0, "contact sheet")
    still = np.array(dataset.column("num_frames")) == 1
    order = rng.permutation(len(dataset))
    moving, stills = order[~still[order]], order[still[order]]
    wanted = max(math.floor(count * STILLS_SHARE), count - len(moving))
    chosen = [*moving[: count - min(wanted, len(stills))], *stills[:wanted]]
    rows, labels = [], []
    for index in chosen:
        record = dataset.record(int(index))
        plan = plan_clip(record, FRAMES, rng, cluster_share=CLUSTER_SHARE)
        clip = dataset.frames(int(index))[list(plan.frames)]
        mirrored = plan.version == MIRRORED
        rows.append(clip[:, :, ::-1] if mirrored else clip)
        notes = f"{len(plan.frames)} of {record.num_frames}{', mirrored' if mirrored else ''}"
        labels.append(f"{record.caption[:80]} ({notes}{', loop' if plan.loop else ''})")
    png = io.BytesIO()
    contact_sheet(rows, labels=labels, frames=FRAMES).save(png, "PNG")
    return png.getvalue(), len(rows)


@dataclass(frozen=True)
class _Bar:
    low: int
    label: str
    count: int
    height: float


def _bars(frame_counts: dict[int, int]) -> list[_Bar]:
    """Histogram bars of equal width from 1 frame to the longest sticker."""
    width = math.ceil(max(frame_counts) / HISTOGRAM_BARS)
    totals = Counter[int]()
    for frames, number in frame_counts.items():
        totals[(frames - 1) // width] += number
    bars = []
    for step in range(max(totals) + 1):
        low, high = step * width + 1, (step + 1) * width
        height = round(120 * math.sqrt(totals[step] / max(totals.values())), 1)
        bars.append(_Bar(low, str(low) if low == high else f"{low} to {high}", totals[step], height))
    return bars
