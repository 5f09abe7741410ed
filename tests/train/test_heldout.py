from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from rdtf.train.checkpoint import load_latest
from rdtf.train.heldout import HeldOut
from rdtf.train.run import resume, train
from rdtf.train.step import Learner
from tests.train.runs import run_differences
from tests.train.test_run import after, assert_same_run, crash, settings


def evaluations(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def watched(split_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("watched") / "run"
    train(split_data, run, settings(eval_every=1, eval_clips=6))
    return run


def test_training_is_the_same_with_and_without(split_data: Path, watched: Path, tmp_path: Path):
    train(split_data, tmp_path / "run", settings(eval_clips=0))
    assert not (tmp_path / "run/eval.jsonl").exists()
    assert_same_run(watched, tmp_path / "run")
    lines = evaluations(watched)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {line["clips"] for line in lines} == {8}  # two whole batches of four
    assert len({line["loss"] for line in lines}) == 4


def test_the_figures_are_those_of_the_averaged_weights_clip_by_clip(split_data: Path, watched: Path, tmp_path: Path):
    learner = Learner(split_data, tmp_path / "other", settings(eval_clips=6))
    found = load_latest(watched / "checkpoints")
    assert found is not None
    learner.take(found[0])
    held_out, table = HeldOut(learner, split_data, tmp_path), []
    with learner.averaged() as net, torch.no_grad():
        assert {"step": 4, **held_out.evaluate(net)} == evaluations(watched)[-1]
        for step in (-1, -2):
            for batch in held_out._source.batches(step, 0.0):
                t, eps = learner.noise(batch, step)
                losses, frames = learner.losses(batch, t, eps, net), batch.valid.sum(1)
                unknown = frames - batch.known.sum(1)
                table += list(zip(batch.tasks, unknown.tolist(), losses.tolist(), frames.tolist(), strict=True))
    for group, place in (("by_task", 0), ("by_unknown", 1)):
        for name, value in evaluations(watched)[-1][group].items():
            rows = [row for row in table if str(getattr(row[place], "value", row[place])) == name]
            assert value == pytest.approx(sum(r[2] * r[3] for r in rows) / sum(r[3] for r in rows), rel=1e-4)
    known = {learner.source.latents.record(i).id for i in range(len(learner.source.latents))}
    shown = {name for batch in held_out._source.batches(-1, 0.0) for name in batch.ids}
    assert not known & shown


def test_killed_or_stopped_and_resumed_the_figures_are_the_same(
    split_data: Path, watched: Path, tmp_path: Path, monkeypatch
):
    for number, act in enumerate((crash, lambda: os.kill(os.getpid(), signal.SIGTERM))):
        run = tmp_path / str(number)
        with monkeypatch.context() as patch:
            after(patch, 3, act)
            try:
                train(split_data, run, settings(eval_every=1, eval_clips=6))
            except Exception as error:
                assert act is crash, error
        resume(split_data, run)
        assert run_differences(watched, run) == []
    resume(split_data, run)  # finished: nothing is written twice
    assert evaluations(run) == evaluations(watched)
    shorter = (run / "eval.jsonl").read_text().splitlines(keepends=True)[:-1]
    (run / "eval.jsonl").write_text("".join(shorter))
    assert run_differences(watched, run) == ["held_out"]


def test_no_held_out_stickers_are_told(tiny_data: Path, tmp_path: Path, capsys):
    train(tiny_data, tmp_path / "run", settings(steps=1))
    assert "No held-out loss: the dataset's val split is empty" in capsys.readouterr().err
    assert not (tmp_path / "run/eval.jsonl").exists()
    shutil.rmtree(tmp_path / "run")
    train(tiny_data, tmp_path / "run", settings(steps=1, eval_clips=0))
    assert "held-out" not in capsys.readouterr().err
