"""The results of a comparison: ``results.json``, ``tables.md`` and the page."""

from __future__ import annotations

import json
from pathlib import Path

from rdtf.files import write_text
from rdtf.research.compare.page import write_comparison_page
from rdtf.research.compare.paths import BASE, Paths
from rdtf.research.compare.run_variant import base_teraflop
from rdtf.research.compare.suites import SUITES, Suite
from rdtf.research.compare.tables import make_table


def write_results(suite: Suite, paths: Paths) -> Path:
    """Write ``results.json``, ``tables.md`` and the page of finished seeds of a comparison; returns the page."""
    results = {
        variant: {
            seed: json.loads((paths.run(variant, seed) / "result.json").read_text(encoding="utf-8"))
            for seed in suite.seeds
        }
        for variant in suite.variants
    }
    facts = _facts(suite, paths)
    tables = [make_table(spec, suite, results) for spec in suite.tables]
    write_text(paths.out / "results.json", json.dumps({"facts": facts, "results": results}, indent=1))
    text = "\n".join(
        [f"# Comparison `{suite.name}`", "", *[f"- {fact}" for fact in facts], "", *[t.markdown() for t in tables]]
    )
    write_text(paths.out / "tables.md", text)
    return write_comparison_page(suite, paths, facts, tables)


def _facts(suite: Suite, paths: Paths) -> list[str]:
    """Sentences about the conditions."""
    first = json.loads((paths.run(suite.reference, suite.seeds[0]) / "result.json").read_text(encoding="utf-8"))
    settings = json.loads((paths.out / "compare.json").read_text(encoding="utf-8"))
    facts = [
        f"Trained on {'stickers drawn for it' if settings['data'] is None else 'a dataset of the user'}; measured on "
        f"{first['clips']:.0f} clips that no training saw (image and text to video), {first['text_clips']:.0f} (text to"
        f" video) and {first['given_clips']:.0f} (in-between, prediction).",
        f"Seeds {', '.join(map(str, suite.seeds))}: of weights, batches and samples. Figures are means over the seeds "
        "and, behind ±, standard deviations.",
        f"Equal compute: each run had the operations of {suite.steps} steps of "
        f"{suite.variants[suite.reference].title}, {first['cost.teraflop']:.3g} TFLOP, counted forward, "
        "backward and in the optimiser's matrix products. Seconds are those of runs side by side.",
    ]
    usual = SUITES[suite.name].training if suite.name in SUITES else suite.training
    changed = {name: value for name, value in suite.training.items() if value != usual.get(name)}
    if changed:
        told_changes = ", ".join(f"{name}={json.dumps(value)}" for name, value in changed.items())
        facts.append(f"Set otherwise than in the suite, for all: {told_changes}.")
    base = paths.run(BASE, 0) / "cost.json"
    if base.is_file():
        cost = json.loads(base.read_text(encoding="utf-8"))
        facts.append(
            f"The tuned methods start from one base of {cost['parameters'] / 1e6:.1f} M parameters, pretrained for "
            f"{cost['steps']} steps ({base_teraflop(paths):.3g} TFLOP, which count for nobody) on "
            f"{suite.source.count} stickers of another style."
        )
    facts.append(
        "PSNR of the cross-fade of the given frames, which needs no model: "
        + ", ".join(f"{task} {first[f'{task}.crossfade']:.1f} dB" for task in ("interpolation", "forward", "backward"))
        + "."
    )
    floor = f" FD-sticker between real clips and as many others: {first['floor']:.2f}." if "floor" in first else ""
    facts.append(f"Judge {settings['judge']}.{floor}")
    return facts
