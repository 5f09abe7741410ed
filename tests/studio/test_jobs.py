"""Trainings of the studio: processes that outlive it, are stopped, and go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rdtf.studio.jobs import FAILED, FINISHED, KILLED, RUNNING, STOPPED, Jobs
from rdtf.studio.maker import Models
from rdtf.studio.trainings import Trainings
from tests.conftest import TINY_NETWORK


def waited(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_training_outlives_the_studio_is_stopped_and_goes_on(split_data: Path, tmp_path: Path):
    def opened() -> Trainings:
        return Trainings(tmp_path, {}, Models([], tmp_path / "runs"))

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "few").symlink_to(split_data)
    first = opened()
    assert first.datasets() == ["few"]
    run = tmp_path / "runs" / "mine"
    options = {"model": TINY_NETWORK, "num_augmented": 1, "previews": 0, "eval_clips": 0}
    sets = [f"--set={name}={json.dumps(value)}" for name, value in options.items()]
    command = ["train", str(split_data), str(run), "--steps=100000", "--batch-size=2", "--frames=2", "--codec=pixel2"]
    first.jobs.start("train-mine", [[*command, "--threads=1", *sets]])
    with pytest.raises(ValueError, match="running already"):
        first.jobs.start("train-mine", [])
    second = opened()  # as after a restart: it knows what the folder says
    assert second.names() == ["mine"]
    waited(lambda: second.status("mine").step > 1)
    assert second.status("mine").state == RUNNING
    second.stop("mine")
    waited(lambda: second.status("mine").state != RUNNING)
    status = second.status("mine")
    assert status.state == STOPPED, status.log
    assert status.losses["training"] and status.steps == 100000
    assert second.models.names() == ["mine"]
    second.resume("mine")
    third = opened()
    waited(lambda: third.status("mine").step > status.step)
    process = third.jobs._process("train-mine")
    assert process is not None
    process.kill()
    waited(lambda: opened().status("mine").state == KILLED)


def test_jobs_end_as_their_commands_do(tmp_path: Path):
    jobs = Jobs(tmp_path / "jobs")
    world = ["world", str(tmp_path / "stickers"), "--count=2", "--size=16"]
    jobs.start("draw", [world, ["check", "nowhere.png", "--for=line"], world])
    waited(lambda: jobs.state("draw") != RUNNING)
    assert jobs.state("draw") == FAILED and "nowhere.png" in jobs.log("draw")
    assert len(list((tmp_path / "stickers").glob("*.webp"))) == 2
    jobs.start("again", [["world", str(tmp_path / "more"), "--count=1", "--size=16"]])
    waited(lambda: jobs.state("again") != RUNNING)
    assert jobs.state("again") == FINISHED
    assert jobs.names() == ["again", "draw"] and jobs.state("none") == ""


@pytest.mark.parametrize("name", ["../x", "", "a/b", "-x", "a" * 61, "ä"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path):
    trainings = Trainings(tmp_path, {"here": tmp_path}, Models([], tmp_path / "runs"))
    uses = [
        lambda: trainings.prepare("here", name, {}),
        lambda: trainings.status(name),
        lambda: trainings.jobs.log(name),
        lambda: trainings.page(f"{name}/../../secret"),
    ]
    (tmp_path.parent / "secret").write_text("x")
    for use in uses:
        with pytest.raises(ValueError, match="a name has|no page"):
            use()


def test_wrong_wishes_get_a_sentence(tmp_path: Path):
    trainings = Trainings(tmp_path, {"here": tmp_path}, Models([], tmp_path / "runs"))
    with pytest.raises(ValueError, match="no folder of stickers"):
        trainings.prepare(str(tmp_path), "x", {})
    with pytest.raises(ValueError, match="no dataset"):
        trainings.train("x", "mine", {})
    with pytest.raises(ValueError, match="no setting"):
        trainings.prepare("here", "x", {"engine": "ray"})
    with pytest.raises(ValueError, match="no training"):
        trainings.resume("mine")
