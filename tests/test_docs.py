"""Every test that the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rdtf.data.checks import CAPTION_CHECKS, FRAME_CHECKS

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`((?:\w+/)*test_\w+\.py)::(\w+)`")


@pytest.mark.parametrize("document", ["reliability.md", "paper_map.md"])
def test_tests_that_a_document_names_are_there(document: str):
    named = NAMED.findall((ROOT / "docs" / document).read_text(encoding="utf-8"))
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{file}::{test}"


def test_every_check_is_in_the_table():
    text = (ROOT / "docs" / "preparing.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("|")]
    for check in (*FRAME_CHECKS.values(), *CAPTION_CHECKS.values()):
        assert [check.title, check.meaning, check.fix] in rows
