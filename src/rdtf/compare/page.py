"""The page of a comparison: tables, stickers of all variants for the same input, and a blind test."""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rdtf.compare.suites import Suite
from rdtf.compare.work import Place
from rdtf.data.write import save_sticker
from rdtf.files import write_text
from rdtf.sticker import Sticker

if TYPE_CHECKING:
    from rdtf.compare.tables import Table

REAL = "real"
_FPS = 8.0


def write_comparison_page(suite: Suite, place: Place, facts: Sequence[str], tables: Sequence[Table]) -> Path:
    """Write ``index.html``: one file with everything in it, whose own script is all that may run."""
    environment = Environment(
        loader=PackageLoader("rdtf"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.get_template("page.css").render() + environment.get_template("compare.css").render()
    script = environment.get_template("compare.js").render()
    path = place.out / "index.html"
    html = environment.get_template("compare.html").render(
        title=f"RDTF: comparison {suite.name}",
        facts=facts,
        tables=tables,
        inputs=_inputs(suite, place),
        titles={name: variant.title for name, variant in suite.variants.items()},
        shown=[REAL, *suite.tables[0].rows],
        others=[name for name in suite.variants if name not in suite.tables[0].rows],
        real=REAL,
        key=json.dumps([suite.name, *facts]),
        style=Markup(style),
        script=Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
    )
    write_text(path, html)
    return path


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inputs(suite: Suite, place: Place) -> list[dict[str, Any]]:
    """For each input: its caption, and the pictures of the real sticker and of every variant with the first seed."""
    samples = {}
    for name in suite.variants:
        with np.load(place.run(name, suite.seeds[0]) / "samples.npz") as saved:
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
    """An animated WebP as a data URL."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sticker.webp"
        save_sticker(Sticker.at_fps(frames, _FPS), file)
        return f"data:image/webp;base64,{base64.b64encode(file.read_bytes()).decode()}"
