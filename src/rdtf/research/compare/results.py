"""The results of a comparison: ``results.json``, tables with a sentence about every claim, and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy.stats import t

from rdtf.files import write_text
from rdtf.io.write import webp_bytes
from rdtf.page import data_address, render_page
from rdtf.research.compare.runs import BASE, Comparison, read
from rdtf.research.compare.suites import LOWER_IS_BETTER, MEASURES, TITLES_IN, Claim, Suite, TableSpec
from rdtf.sticker import Sticker

REAL = "real"
CONFIDENCE = 0.95
_OUTCOMES = HELD, REVERSE, OPEN = "held", "the reverse held", "open"
_FPS = 8.0

Results = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Measures by variant, seed and name."""


def write_results(comparison: Comparison) -> Path:
    """Write ``results.json``, ``tables.md`` and the page of the finished seeds of a comparison; returns the page."""
    suite, out = comparison.suite, comparison.out
    results = {
        variant: {seed: read(comparison.run(variant, seed) / "result.json") for seed in suite.seeds}
        for variant in suite.variants
    }
    facts = _facts(comparison, results[suite.reference][suite.seeds[0]])
    tables = [make_table(spec, suite, results) for spec in suite.tables]
    write_text(out / "results.json", json.dumps({"facts": facts, "results": results}, indent=1))
    text = "\n".join(
        [f"# Comparison `{suite.name}`", "", *[f"- {fact}" for fact in facts], "", *[t.markdown() for t in tables]]
    )
    write_text(out / "tables.md", text)
    return render_page(
        out / "index.html",
        "compare",
        title=f"RDTF: comparison {suite.name}",
        facts=facts,
        tables=tables,
        inputs=_inputs(comparison),
        titles={name: variant.title for name, variant in suite.variants.items()},
        shown=[REAL, *suite.tables[0].rows],
        others=[name for name in suite.variants if name not in suite.tables[0].rows],
        real=REAL,
        key=json.dumps([suite.name, *facts]),
    )


def _facts(comparison: Comparison, first: Mapping[str, float]) -> list[str]:
    """Sentences about the conditions.

    Args:
        first: measures of the reference with the first seed.
    """
    suite = comparison.suite
    facts = [
        f"Trained on {'stickers drawn for it' if comparison.data is None else 'a dataset of the user'}; measured on "
        f"{first['clips']:.0f} clips that no training saw (image and text to video), {first['text_clips']:.0f} (text to"
        f" video) and {first['given_clips']:.0f} (in-between, prediction).",
        f"Seeds {', '.join(map(str, suite.seeds))}: of weights, batches and samples. Figures are means over the seeds "
        "and, behind ±, standard deviations.",
        f"Equal compute: each run had the operations of {suite.steps} steps of "
        f"{suite.variants[suite.reference].title}, {first['cost.teraflop']:.3g} TFLOP, counted forward, "
        "backward and in the optimiser's matrix products. Seconds are those of runs side by side.",
    ]
    if comparison.is_done(BASE, 0):
        cost = read(comparison.run(BASE, 0) / "cost.json")
        facts.append(
            f"The tuned methods start from one base of {cost['parameters'] / 1e6:.1f} M parameters, pretrained for "
            f"{cost['steps']} steps ({comparison.base_teraflop():.3g} TFLOP, which count for nobody) on "
            f"{suite.source.count} stickers of another style."
        )
    facts.append(
        "PSNR of the cross-fade of the given frames, which needs no model: "
        + ", ".join(f"{task} {first[f'{task}.crossfade']:.1f} dB" for task in ("interpolation", "forward", "backward"))
        + "."
    )
    floor = f" FD-sticker between real clips and as many others: {first['floor']:.2f}." if "floor" in first else ""
    facts.append(f"Judge {read(comparison.out / 'compare.json')['judge']}.{floor}")
    return facts


def _inputs(comparison: Comparison) -> list[dict[str, Any]]:
    """For each input: its caption, and the pictures of the real sticker and of every variant with the first seed."""
    suite, samples = comparison.suite, {}
    for name in suite.variants:
        with np.load(comparison.run(name, suite.seeds[0]) / "samples.npz") as saved:
            samples[name] = {key: saved[key] for key in saved.files}
    first = samples[suite.reference]
    inputs = []
    for i, caption in enumerate(first["captions"]):
        clips = {REAL: first["real"][i], **{name: made["it2v"][i] for name, made in samples.items()}}
        pictures = {name: data_address(webp_bytes(Sticker.at_fps(clip, _FPS))) for name, clip in clips.items()}
        inputs.append({"caption": str(caption), "pictures": pictures})
    return inputs


# ------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Table:
    """A table as text, with a row for each variant and sentences below it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    verdicts: tuple[str, ...]

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        lines = [f"## {self.title}", "", _row(self.head), _row(["---", *["---:"] * (len(self.head) - 1)])]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, "", *[f"- {verdict}" for verdict in self.verdicts], ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def make_table(spec: TableSpec, suite: Suite, results: Results) -> Table:
    """A table of the existing measures. The best mean of each measure is bold."""
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
            text = _figure(columns[name][row])
            best = row == max(means, key=lambda other: _goodness(name, means[other]))
            cells.append(f"**{text}**" if best and not name.startswith("cost.") else text)
        rows.append(tuple(cells))
    head = ("", *(MEASURES[name] for name in measures))
    return Table(spec.title, head, tuple(rows), tuple(_verdicts(spec.claims, titles, columns)))


def _goodness(measure: str, value: float) -> float:
    if measure == "it2v.motion":  # a ratio
        return -abs(value - 1)
    return -value if measure in LOWER_IS_BETTER else value


def _verdicts(
    claims: Sequence[Claim], titles: Mapping[str, str], columns: Mapping[str, Mapping[str, Sequence[float]]]
) -> Iterator[str]:
    """A sentence for each claimed pair: the measures in which the claim held, and in which it did not."""
    pairs: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for claim in claims:
        if taken := [name for name in claim.measures if name in columns]:
            found, figures = outcome(claim, taken[0], columns[taken[0]])
            pairs.setdefault((claim.better, claim.worse, claim.source), {}).setdefault(found, []).append(figures)
    for (better, worse, source), outcomes in pairs.items():
        text = "; ".join(f"{name} in {' and '.join(outcomes[name])}" for name in _OUTCOMES if name in outcomes)
        yield f"{titles[better]} better than {titles[worse]} ({source}): {text}."


def outcome(claim: Claim, measure: str, column: Mapping[str, Sequence[float]]) -> tuple[str, str]:
    """Test a claim in a measure over the seeds, with Student's t for paired values at a level of 5 %.

    Returns:
        ``held`` or ``the reverse held`` if the mean difference is significant, otherwise ``open``; and the numbers.
    """
    sign = -1 if measure in LOWER_IS_BETTER else 1
    gains = [sign * (a - b) for a, b in zip(column[claim.better], column[claim.worse], strict=True)]
    mean, agreeing, bound = fmean(gains), sum(gain > 0 for gain in gains), math.inf
    if len(gains) > 1:
        bound = t.ppf(0.5 + CONFIDENCE / 2, len(gains) - 1) * stdev(gains) / math.sqrt(len(gains))
    found = HELD if mean > bound else REVERSE if -mean > bound else OPEN
    spread = f" ± {_plain(stdev(gains))}" if len(gains) > 1 else ""
    return found, f"{MEASURES[measure]} (by {_plain(mean)}{spread}, {agreeing} of {len(gains)} seeds)"


def _figure(values: Sequence[float]) -> str:
    mean = _plain(fmean(values))
    return f"{mean} ± {_plain(stdev(values))}" if len(values) > 1 and stdev(values) else mean


def _plain(value: float) -> str:
    """A number with at least three significant digits."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3}f}"
