"""The page of a comparison: tables, stickers of all variants for the same input, and a blind test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdtf.io.write import webp_bytes
from rdtf.page import data_address, render_page
from rdtf.research.compare.paths import Paths
from rdtf.research.compare.suites import Suite
from rdtf.research.compare.tables import Table
from rdtf.sticker import Sticker

REAL = "real"
_FPS = 8.0


def write_comparison_page(suite: Suite, paths: Paths, facts: Sequence[str], tables: Sequence[Table]) -> Path:
    """Write ``index.html``, one file with everything in it."""
    return render_page(
        paths.out / "index.html",
        "compare",
        title=f"RDTF: comparison {suite.name}",
        facts=facts,
        tables=tables,
        inputs=_inputs(suite, paths),
        titles={name: variant.title for name, variant in suite.variants.items()},
        shown=[REAL, *suite.tables[0].rows],
        others=[name for name in suite.variants if name not in suite.tables[0].rows],
        real=REAL,
        key=json.dumps([suite.name, *facts]),
    )


def _inputs(suite: Suite, paths: Paths) -> list[dict[str, Any]]:
    """For each input: its caption, and the pictures of the real sticker and of every variant with the first seed."""
    samples = {}
    for name in suite.variants:
        with np.load(paths.run(name, suite.seeds[0]) / "samples.npz") as saved:
            samples[name] = {key: saved[key] for key in saved.files}
    first = samples[suite.reference]
    return [
        {
            "caption": str(caption),
            "pictures": {
                REAL: _picture(first["real"][i]),
                **{name: _picture(made["it2v"][i]) for name, made in samples.items()},
            },
        }
        for i, caption in enumerate(first["captions"])
    ]


def _picture(frames: np.ndarray) -> str:
    return data_address(webp_bytes(Sticker.at_fps(frames, _FPS)))
