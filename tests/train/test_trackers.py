"""What trackers are told: each step once, also when a run is killed and resumed; nothing of it changes the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdtf.train import trackers as module
from rdtf.train.run import resume, train
from rdtf.train.settings import TrainSettings
from rdtf.train.trackers import Trackers, check_trackers
from tests.train.test_run import settings as tiny_settings

TOLD: list[tuple[str, int, Any]] = []


class Recorder:
    """Takes down what a tracker is told."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        TOLD.append(("opened", -1, {"args": args, **kwargs}))

    def start(self) -> None:
        pass

    def store_init_configuration(self, values: dict) -> None:
        TOLD.append(("settings", -1, values))

    def log(self, values: dict, step: int) -> None:
        TOLD.append(("log", step, values))

    def finish(self) -> None:
        TOLD.append(("closed", -1, None))


class Pictures(Recorder):
    """A tracker that has pictures, too."""

    def log_images(self, values: dict, step: int, **options: Any) -> None:
        TOLD.append(("images", step, {name: np.shape(value) for name, value in values.items()}))


@pytest.fixture(autouse=True)
def _recorders(monkeypatch: pytest.MonkeyPatch) -> None:
    TOLD.clear()
    monkeypatch.setattr(module, "TRACKERS", {"tensorboard": lambda: True, "trackio": lambda: True})
    monkeypatch.setattr(module, "TensorBoardTracker", Pictures)
    monkeypatch.setattr(module, "TrackioTracker", Recorder)


def settings(**changes: Any) -> TrainSettings:
    return tiny_settings(**{"num_augmented": 0, "eval_clips": 0, "trackers": ["trackio"], **changes})


def steps(kind: str = "log") -> list[int]:
    return [step for what, step, _ in TOLD if what == kind]


def test_every_step_is_told_once_over_a_resumed_run(tiny_data: Path, tmp_path: Path):
    run = tmp_path / "run"
    train(tiny_data, run, settings())
    assert steps() == [1, 2, 3, 4]
    values = next(values for what, _, values in TOLD if what == "log")
    assert values["training/loss"] > 0 and "training/weights/text_to_video" in values
    told = next(values for what, _, values in TOLD if what == "settings")
    assert told["objective/path"] == "flow" and told["model/widths"] == "[16]"
    assert TOLD[-1][0] == "closed"
    # As if killed after step 4, with a checkpoint of step 2 only: 3 and 4 are done again, and were told before.
    (run / "checkpoints" / "step-00000004").rename(tmp_path / "lost")
    TOLD.clear()
    resume(tiny_data, run, steps=6)
    assert steps() == [5, 6]
    assert not [what for what, *_ in TOLD if what == "settings"]


def test_tensorboard_is_asked_to_purge_what_is_done_again(tmp_path: Path):
    trackers = Trackers(["tensorboard"], tmp_path, {}, step=2, logged=4)
    assert TOLD[0][2]["purge_step"] == 3
    trackers.log({"step": 2, "loss": 1.0}, "training")
    trackers.log({"step": 3, "loss": 1.0}, "training")
    assert steps() == [3]


def test_pictures_go_where_there_are_pictures(tmp_path: Path):
    frames = [Image.new("RGBA", (6, 5), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "p.webp", save_all=True, append_images=frames[1:], lossless=True)
    Trackers(["tensorboard", "trackio"], tmp_path, {}, step=0, logged=0).show(tmp_path / "p.webp", 7)
    assert [values for what, _, values in TOLD if what == "images"] == [{"previews": (1, 15, 6, 3)}]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="unknown tracker 'paper'; choose from tensorboard, trackio"):
        check_trackers(["paper"])
    monkeypatch.setattr(module, "TRACKERS", {"tensorboard": lambda: False})
    with pytest.raises(ImportError, match=r"pip install 'rdtf\[tensorboard\]'"):
        check_trackers(["tensorboard"])


def test_the_real_tensorboard_reads_it_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("tensorboard")
    from accelerate.state import PartialState
    from accelerate.tracking import TensorBoardTracker
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    PartialState()
    monkeypatch.setattr(module, "TensorBoardTracker", TensorBoardTracker)
    trackers = Trackers(["tensorboard"], tmp_path, {"lr": 0.1}, step=0, logged=0)
    for step in (1, 2):
        trackers.log({"step": step, "loss": 1.5 / step}, "training")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "p.webp")
    trackers.show(tmp_path / "p.webp", 2)
    trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(each.step, each.value) for each in events.Scalars("training/loss")] == [(1, 1.5), (2, 0.75)]
    assert events.Images("previews")[0].step == 2
