from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rdtf.data.dataset import read_manifest
from rdtf.train.reproducibility import changed_data, conditions, cut_lines, data_facts, differences, exactness_doubt
from rdtf.train.settings import recipe_settings


def frame(**settings: Any) -> dict[str, Any]:
    return {
        "settings": recipe_settings("fast", **settings).model_dump(mode="json"),
        "conditions": conditions(torch.device("cpu"), False),
        "frozen": {"codec": "a", "text": "b"},
    }


def test_differences_name_what_is_nested():
    old = {"a": 1, "b": {"c": [1, 2], "d": None}, "gone": "x"}
    new = {"a": 1, "b": {"c": [1, 3], "d": 0.5}, "e": True}
    assert differences(old, new) == {
        "b.c": "[1, 2] -> [1, 3]",
        "b.d": "none -> 0.5",
        "gone": "x -> none",
        "e": "none -> true",
    }
    assert differences(old, old) == {}


def test_conditions_say_what_the_bits_depend_on():
    found = conditions(torch.device("cpu"), True)
    assert found["threads"] == str(torch.get_num_threads())
    assert found["torch"] == torch.__version__
    assert found["precision"] == "bf16"
    assert torch.backends.cpu.get_cpu_capability() in found["device"]


def test_exactness_is_promised_or_doubted_in_a_line():
    assert exactness_doubt(frame(), frame()) == ""
    assert exactness_doubt(frame(), frame(preview_every=7, checkpoint_every=9, threads=3)) == ""
    doubt = exactness_doubt(frame(), frame(lr=0.5))
    assert "Not promised" in doubt and "lr 0.002 -> 0.5" in doubt and "\n" not in doubt
    for name, value in (("threads", "64"), ("torch", "1.0"), ("device", "abacus"), ("precision", "bf16")):
        other = frame()
        other["conditions"][name] = value
        assert f"{name} " in exactness_doubt(frame(), other)
    assert "clock" in exactness_doubt(frame(max_minutes=5), frame(max_minutes=5))
    assert "does not say" in exactness_doubt({}, frame())


@pytest.mark.parametrize(
    "change",
    [{"size": "small"}, {"codec": "f8"}, {"muon": False}, {"model": {"head_dim": 8}}, {"objective": {"min_t": 0.2}}],
)
def test_what_a_checkpoint_is_made_of_cannot_change(change: dict[str, Any]):
    with pytest.raises(ValueError, match=rf"cannot change within a run: {next(iter(change))}.* -> "):
        exactness_doubt(frame(), frame(**change))


def test_another_codec_of_the_same_name_is_refused():
    other = frame()
    other["frozen"]["codec"] = "c"
    with pytest.raises(ValueError, match="another codec.*a -> c"):
        exactness_doubt(frame(), other)


def test_changed_data_are_told(tiny_data: Path):
    facts = data_facts(read_manifest(tiny_data))
    assert changed_data(facts, json.loads(json.dumps(facts))) == ""
    more = {**facts, "fingerprint": "x", "counts": {**facts["counts"], "train": 25}}
    assert changed_data(facts, more) == "counts.train 20 -> 25"
    assert "other frames" in changed_data(facts, {**facts, "fingerprint": "x"})
    smaller = {**facts, "fingerprint": "x", "settings": {**facts["settings"], "size": 8}}
    assert changed_data(facts, smaller) == "settings.size 16 -> 8"


LINES = [json.dumps({"step": step}) + "\n" for step in range(1, 6)]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("".join(LINES), 3),
        ("".join(LINES[:3]) + LINES[3][:5], 3),
        ("".join(LINES[:3]) + "\0\0\0", 3),
        ("".join(LINES[:2]) + LINES[2][:-1], 2),
        (LINES[0] + LINES[0] + LINES[1], 1),
        (LINES[0] + LINES[2], 1),
        ("[1]\n", 0),
        ("", 0),
    ],
)
def test_the_log_is_cut_back(tmp_path: Path, text: str, kept: int):
    log = tmp_path / "log.jsonl"
    assert cut_lines(log, 3) == 0
    log.write_text(text)
    assert cut_lines(log, 3) == cut_lines(log, 3) == kept
    assert log.read_text() == "".join(LINES[:kept])


def test_a_log_of_some_steps_is_cut_back(tmp_path: Path):
    log = tmp_path / "eval.jsonl"
    log.write_text(LINES[1] + LINES[3] + LINES[4] + '{"st')
    assert cut_lines(log, 4, gaps=True) == 4
    assert log.read_text() == LINES[1] + LINES[3]
    log.write_text(LINES[1] + "nothing\n" + LINES[3])
    assert cut_lines(log, 4, gaps=True) == 2
