"""The notebook in the documents runs from the first cell to the last."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rdtf import hub
from rdtf.pipeline import StickerPipeline
from tests.test_pipeline import make_pipeline, pipeline  # noqa: F401 (fixtures)

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def test_the_quickstart_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: StickerPipeline):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    pipeline.save_pretrained("model")
    monkeypatch.setattr(hub, "SHIPPED_FOLDER", tmp_path / "model")
    shown: list[str] = []
    display = ModuleType("IPython.display")
    display.HTML = shown.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # as a kernel does
    assert [text.count("data:image/webp") for text in shown] == [2, 1, 1]
    assert {path.name for path in Path("quickstart").iterdir()} >= {"mine.webp", "mine.gif"}
