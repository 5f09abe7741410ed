"""Every test that the documents name is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rdtf.data.checks import CAPTION_CHECKS, FRAME_CHECKS
from rdtf.train.settings import TrainSettings, recipe_settings

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`((?:\w+/)*test_\w+\.py)::(\w+)`")


@pytest.mark.parametrize("document", ["reliability.md", "paper_map.md"])
def test_tests_that_a_document_names_are_there(document: str):
    named = NAMED.findall((ROOT / "docs" / document).read_text(encoding="utf-8"))
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{file}::{test}"


def test_defaults_in_the_paper_map_are_the_codes():
    lines = (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8").partition("## Defaults")[2].splitlines()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:4]] for line in lines if line.startswith("| `")]
    assert len(rows) > 25
    for name, *values in rows:
        for recipe, value in zip(("fast", "paper"), values, strict=True):
            found: Any = recipe_settings(recipe).model_dump(mode="json")
            for part in name.split("."):
                found = found[part]
            assert found == json.loads(value), f"{name} of {recipe}"


def test_files_and_settings_that_the_paper_map_names_are_there():
    text = (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8")
    for path in {*re.findall(r"`((?:\w+/)*\w+\.py|\w+/)`", text)}:
        assert any((ROOT / folder / path).exists() for folder in ("src/rdtf", "tests")), path
    for name in {*re.findall(r"`TrainSettings\.(\w+)`", text)}:
        assert name in TrainSettings.model_fields, name


def test_every_check_is_in_the_table():
    text = (ROOT / "docs" / "preparing.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("|")]
    for check in (*FRAME_CHECKS.values(), *CAPTION_CHECKS.values()):
        assert [check.title, check.meaning, check.fix] in rows
