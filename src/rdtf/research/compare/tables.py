"""Tables of the measures of all runs, with a sentence about every claim."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t

from rdtf.research.compare.suites import (
    LOWER_IS_BETTER,
    MEASURES,
    NEAREST_ONE_IS_BEST,
    TITLES_IN,
    Claim,
    Suite,
    TableSpec,
)

Results = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Measures by variant, seed and name."""


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
    if measure in NEAREST_ONE_IS_BEST:
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


CONFIDENCE = 0.95
_OUTCOMES = HELD, REVERSE, OPEN = "held", "the reverse held", "open"


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
    return (
        f"{value:.0f}"
        if size >= 100
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2f}"
        if size >= 0.1
        else f"{value:.3f}"
    )
