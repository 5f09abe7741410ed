"""From the measures of all runs to tables, and a sentence on every ordering that was claimed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from rdtf.compare.page import write_comparison_page
from rdtf.compare.suites import LOWER_IS_BETTER, MEASURES, TITLES_IN, Claim, Suite, TableSpec
from rdtf.compare.work import BASE, Place
from rdtf.files import write_text

Results = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Measures by variant, seed and name."""


@dataclass(frozen=True)
class Table:
    """A table as text: a head, a row a variant; and sentences below it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    verdicts: tuple[str, ...]

    def markdown(self) -> str:
        """As GitHub shows it."""
        lines = [f"## {self.title}", "", _row(self.head), _row(["---", *["---:"] * (len(self.head) - 1)])]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, "", *[f"- {verdict}" for verdict in self.verdicts], ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_tables(suite: Suite, place: Place) -> Path:
    """Write ``results.json``, ``tables.md`` and the page of a finished comparison; returns the page."""
    results = {
        variant: {
            seed: json.loads((place.run(variant, seed) / "result.json").read_text(encoding="utf-8"))
            for seed in suite.seeds
        }
        for variant in suite.variants
    }
    facts = _facts(suite, place)
    tables = [make_table(spec, suite, results) for spec in suite.tables]
    write_text(place.out / "results.json", json.dumps({"facts": facts, "results": results}, indent=1))
    text = "\n".join(
        [f"# Comparison `{suite.name}`", "", *[f"- {fact}" for fact in facts], "", *[t.markdown() for t in tables]]
    )
    write_text(place.out / "tables.md", text)
    return write_comparison_page(suite, place, facts, tables)


def _facts(suite: Suite, place: Place) -> list[str]:
    """The conditions, a sentence each."""
    first = json.loads((place.run(suite.reference, suite.seeds[0]) / "result.json").read_text(encoding="utf-8"))
    told = json.loads((place.out / "compare.json").read_text(encoding="utf-8"))
    facts = [
        f"Trained on {'stickers drawn for it' if told['data'] is None else 'a dataset of the user'}; measured on "
        f"{first['clips']:.0f} clips that no training saw (image and text to video, text to video), and on "
        f"{first['given_clips']:.0f} (in-between, prediction).",
        f"Seeds {', '.join(map(str, suite.seeds))}: of weights, batches and samples. Figures are means over the seeds "
        "and, behind ±, standard deviations.",
        f"Equal compute: each run had the operations of {suite.steps} steps of "
        f"{suite.variants[suite.reference].title}, {first['cost.petaflop']:.3f} PFLOP, counted forward and backward. "
        "Seconds are those of runs side by side.",
    ]
    base = place.run(BASE, 0) / "cost.json"
    if base.is_file():
        cost = json.loads(base.read_text(encoding="utf-8"))
        facts.append(
            f"The tuned methods start from one base of {cost['parameters'] / 1e6:.1f} M parameters, pretrained for "
            f"{cost['steps']} steps ({cost['flop'] * cost['steps'] / 1e15:.3f} PFLOP, which count for nobody) on "
            f"{suite.source.count} stickers of another style, half of each step single frames."
        )
    facts.append(
        "PSNR of the cross-fade of the given frames, which needs no model: "
        + ", ".join(f"{task} {first[f'{task}.crossfade']:.1f} dB" for task in ("interpolation", "forward", "backward"))
        + "."
    )
    if "floor" in first:
        facts.append(f"Judge {told['judge']}. FD-sticker between real clips and as many others: {first['floor']:.2f}.")
    return facts


def make_table(spec: TableSpec, suite: Suite, results: Results) -> Table:
    """A table with the measures that were taken; of each, the best mean is bold."""
    measures = [
        name for name in spec.measures if all(name in results[row][seed] for row in spec.rows for seed in suite.seeds)
    ]
    columns = {
        name: {row: [results[row][seed][name] for seed in suite.seeds] for row in spec.rows} for name in measures
    }
    titles = {row: TITLES_IN.get(spec.title, {}).get(row, suite.variants[row].title) for row in spec.rows}
    rows = []
    for row in spec.rows:
        cells = [titles[row]]
        for name in measures:
            means = {other: fmean(values) for other, values in columns[name].items()}
            best = min(means.values()) if name in LOWER_IS_BETTER else max(means.values())
            text = _figure(columns[name][row])
            cells.append(f"**{text}**" if means[row] == best and not name.startswith("cost.") else text)
        rows.append(tuple(cells))
    head = ("", *(MEASURES[name] for name in measures))
    verdicts = tuple(
        verdict(claim, titles, columns[claim.measure]) for claim in spec.claims if claim.measure in columns
    )
    return Table(spec.title, head, tuple(rows), verdicts)


def verdict(claim: Claim, titles: Mapping[str, str], column: Mapping[str, Sequence[float]]) -> str:
    """Whether an ordering held, in a sentence: in how many seeds, and by how much against the spread.

    It counts as held where every seed agrees and the mean difference is above twice its standard error, as the reverse
    where the same is true the other way round, and as open otherwise.
    """
    sign = -1 if claim.measure in LOWER_IS_BETTER else 1
    gains = [sign * (a - b) for a, b in zip(column[claim.better], column[claim.worse], strict=True)]
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    mean, agreeing = fmean(gains), sum(gain > 0 for gain in gains)
    if agreeing == len(gains) and mean > 2 * error:
        outcome = "held"
    elif agreeing == 0 and -mean > 2 * error:
        outcome = "the reverse held"
    else:
        outcome = "open"
    spread = f" ± {_plain(stdev(gains))}" if len(gains) > 1 else ""
    return (
        f"{titles[claim.better]} better than {titles[claim.worse]} in {MEASURES[claim.measure]} ({claim.source}): "
        f"{outcome}; better in {agreeing} of {len(gains)} seeds, by {_plain(mean)}{spread} on average."
    )


def _figure(values: Sequence[float]) -> str:
    mean = _plain(fmean(values))
    return f"{mean} ± {_plain(stdev(values))}" if len(values) > 1 and stdev(values) else mean


def _plain(value: float) -> str:
    """Three digits, more before the point where there are."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    return (
        f"{value:.0f}"
        if size >= 100
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2f}"
        if size >= 0.1
        else f"{value:.3f}"
    )
