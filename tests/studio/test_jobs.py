"""Trainings of the studio: processes that outlive it, are stopped, and go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rdtf.io.write import save_sticker
from rdtf.studio.jobs import FAILED, FINISHED, KILLED, RUNNING, STOPPED, Jobs
from rdtf.studio.maker import Models
from rdtf.studio.trainings import Trainings
from rdtf.world import draw_sticker
from tests.conftest import TINY_NETWORK


def waited(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_training_outlives_the_studio_is_stopped_and_goes_on(
    split_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
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
    assert second.models.names() == ["shipped", "mine"]
    asked: list = []
    monkeypatch.setattr(second.jobs, "start", lambda name, commands: asked.append((name, commands)))
    second.resume("mine")
    assert asked == [("train-mine", [["train", str(split_data), str(run), "--resume"]])]


def test_jobs_end_as_their_commands_do(tmp_path: Path):
    jobs = Jobs(tmp_path / "jobs")
    here, missing = ["check", str(tmp_path / "a.png"), "--for=webp"], ["check", "nowhere.png", "--for=line"]
    save_sticker(draw_sticker(0, 0, size=16), tmp_path / "a.png")
    for name, commands in (("fails", [missing, here]), ("killed", [here]), ("ends", [["--help"]])):
        jobs.start(name, commands)
    process = jobs._process("killed")
    assert process is not None
    process.kill()
    waited(lambda: all(jobs.state(name) != RUNNING for name in jobs.names()))
    assert jobs.state("fails") == FAILED and "nowhere.png" in jobs.log("fails") and "a.png" not in jobs.log("fails")
    assert jobs.names() == ["ends", "fails", "killed"]
    assert (jobs.state("killed"), jobs.state("ends"), jobs.state("none")) == (KILLED, FINISHED, "")


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
