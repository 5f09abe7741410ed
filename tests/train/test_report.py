from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rdtf.io.write import save_sticker
from rdtf.sheets import preview_grid
from rdtf.sticker import Sticker
from rdtf.train.report import write_report
from rdtf.train.settings import recipe_settings


def make_run(run: Path, steps: int = 40) -> Path:
    """A run's folder with made-up figures."""
    run.mkdir()
    settings = recipe_settings("fast", steps=100, lr=0.5).model_dump(mode="json")
    facts = {"settings": settings, "data": "<data>", "dataset": {"settings": {"size": 16}, "counts": {"train": 5}}}
    (run / "config.json").write_text(json.dumps({**facts, "previews": ["a <b>cat</b>", "a dog"]}))
    with (run / "log.jsonl").open("w") as log:
        for step in range(1, steps + 1):
            line = {"step": step, "loss": 2 / step, "loss_by_task": {"text_to_video": 1 / step}, "difficulty": step % 5}
            line |= {"weights": {"text_to_video": 0.7, "interpolation": 0.3}, "lr_factor": 1.0, "grad_norm": 0.5}
            log.write(json.dumps({**line, "stickers": 4, "seconds": 2.0 * step}) + "\n")
    held = {
        "step": 20,
        "loss": 0.25,
        "by_task": {"interpolation": 0.2},
        "by_unknown": {"3": 0.1},
        "by_noise": {"0.2": 1},
    }
    (run / "eval.jsonl").write_text(json.dumps(held) + "\n" + json.dumps({**held, "step": 40, "loss": 0.5}) + "\n")
    (run / "previews").mkdir()
    for step in (10, 20):
        shown = [Sticker.at_fps(np.full((2, 16, 16, 4), 60 * place + step, np.uint8)) for place in (1, 2)]
        save_sticker(preview_grid(shown, columns=4), run / f"previews/step-{step:08d}.webp")
    return run


def test_the_page_tells_what_the_run_says(tmp_path: Path):
    page = write_report([make_run(tmp_path / "run")], tmp_path / "page.html").read_text()
    for title in (
        "Training loss",
        "Held-out loss by task",
        "by number of unknown frames",
        "Proportion of each task",
        "Difficulty",
    ):
        assert title in page
    assert "40 of 100" in page
    assert "0.2500 at step 20" in page and "2.00 s" in page and "<dd>2.0</dd>" in page  # stickers a second
    assert re.search(r"<td>lr</td><td>0.5</td><td>0.002</td>", page)
    assert page.count("data:image/webp;base64,") == 4  # two captions at two steps
    assert "a &lt;b&gt;cat" in page and "<b>" not in page and "&lt;data&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "no checkpoint yet" in page


def test_what_is_broken_is_said_and_the_rest_is_shown(tmp_path: Path):
    run = make_run(tmp_path / "run")
    (run / "config.json").write_text("{")
    (run / "eval.jsonl").unlink()
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 41, "loss": NaN, "weights": 3}\n[]\n{"step": 4')
    page = write_report([run], tmp_path / "page.html").read_text()
    for text in (
        "config.json is missing or damaged",
        "2 damaged lines are left out",
        "1 values that are not finite",
        "no held-out losses",
        "previews",
    ):
        assert text in page
    assert "Training loss" in page and "Held-out loss by task" not in page
    (tmp_path / "begun").mkdir()
    with pytest.raises(ValueError, match="holds nothing of a run"):
        write_report([tmp_path / "begun"], tmp_path / "page.html")
    (tmp_path / "begun/config.json").write_text("{}")
    assert "no step is done yet" in write_report([tmp_path / "begun"], tmp_path / "page.html").read_text()


def test_runs_are_compared_in_one_plot(tmp_path: Path):
    runs = [make_run(tmp_path / name) for name in ("one", "two")]
    page = write_report(runs, tmp_path / "page.html").read_text()
    first = page[: page.index("</figure>")]
    assert first.count("<polyline") == 4 and "one</span>" in first and "two</span>" in first


def test_the_page_of_a_long_run_stays_small(tmp_path: Path):
    assert write_report([make_run(tmp_path / "run", 5000)], tmp_path / "page.html").stat().st_size < 200_000


def test_earlier_previews_of_fewer_captions_are_shown(tmp_path: Path):
    run = make_run(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "previews": [*config["previews"], "c", "d", "e"]}))
    page = write_report([run], tmp_path / "page.html").read_text()
    assert page.count("data:image/webp;base64,") == 10 and "<th>e</th>" in page


def test_a_single_evaluation_is_a_point(tmp_path: Path):
    run = make_run(tmp_path / "run")
    first, _second = (run / "eval.jsonl").read_text().splitlines()
    (run / "eval.jsonl").write_text(first + "\n")
    page = write_report([run], tmp_path / "page.html").read_text()
    chart = page[page.index('aria-label="Held-out loss"') :]
    assert re.search(r'<circle class="line-0" cx="[\d.]+" cy="[\d.]+"', chart[: chart.index("</svg>")])
    loss = page[page.index('aria-label="Training loss"') :]
    assert "<circle" not in loss[: loss.index("</svg>")]


@pytest.mark.parametrize("saved", [True, False])
def test_a_run_that_began_with_a_model_shows_what_that_brought(tmp_path: Path, saved: bool):
    """Its settings hold defaults for what the model decides."""
    run = make_run(tmp_path / "run")
    base = tmp_path / "base"
    config = json.loads((run / "config.json").read_text())
    config["settings"] = recipe_settings("tune", start_from=str(base)).model_dump(mode="json")
    (run / "config.json").write_text(json.dumps(config))
    if saved:
        for part, facts in (("dfgn", {"widths": [96, 192, 288]}), ("codec", {"widths": [48, 96, 128]})):
            (base / part).mkdir(parents=True)
            (base / part / "config.json").write_text(json.dumps({"_class_name": "StickerAutoencoder", **facts}))
    page = write_report([run], tmp_path / "page.html").read_text()
    size, codec = ("small", "f8") if saved else ("unknown", "unknown")
    assert f"<dt>size</dt><dd>{size}</dd>" in page and f"<dt>codec</dt><dd>{codec}</dd>" in page
    assert f"<td>size</td><td>{size}</td>" in page and f"<dt>start_from</dt><dd>{base}</dd>" in page
    assert "tiny" not in page and "builtin" not in page
