"""A run's figures for TensorBoard or trackio, through accelerate's trackers. The run's own files stay what counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker
from accelerate.utils import is_tensorboard_available, is_trackio_available
from PIL import Image

from rdtf.train.reproducibility import flat

TRACKERS = {"tensorboard": is_tensorboard_available, "trackio": is_trackio_available}
"""Names, and whether their packages are there."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise ``ValueError`` for an unknown tracker, ``ImportError`` for one whose package is missing."""
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker {name!r}; choose from {', '.join(TRACKERS)}")
        if not TRACKERS[name]():
            raise ImportError(f"trackers={name} needs a package that is not installed: pip install 'rdtf[{name}]'")


class Trackers:
    """The trackers of a run, opened; for the first of several processes.

    A resumed run goes on in the same place. Steps that are done again, because they came after the last checkpoint, are
    not told twice: TensorBoard is asked to purge them, and trackio is not given them again.

    Args:
        names: of :data:`TRACKERS`. run: its folder. settings: shown beside the curves.
        step: steps that the run begins after. told: the last step that was told before it was stopped.
    """

    def __init__(self, names: Sequence[str], run: Path, settings: Mapping[str, Any], step: int, told: int) -> None:
        self.trackers: list[tuple[GeneralTracker, int]] = []
        for name in names:
            if name == "tensorboard":
                tracker, last = TensorBoardTracker("tensorboard", run, purge_step=step + 1), step
            else:
                tracker, last = TrackioTracker("rdtf", name=run.resolve().name, resume="allow"), max(step, told)
            tracker.start()
            if step == 0 and told <= 0:
                told_as = {
                    name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
                    for name, value in flat(settings, "/").items()
                }
                tracker.store_init_configuration(told_as)
            self.trackers.append((tracker, last))

    def log(self, line: Mapping[str, Any], kind: str) -> None:
        """Tell the numbers of a log line, those inside of others under ``kind/name/inner``."""
        step = int(line["step"])
        values = {f"{kind}/{name}": value for name, value in flat(line, "/").items() if isinstance(value, int | float)}
        for tracker, last in self.trackers:
            if step > last:
                tracker.log(values, step=step)

    def show(self, picture: Path, step: int) -> None:
        """Show an animated picture: all its frames, one below the other, where the tracker has pictures."""
        pictures = [(tracker, last) for tracker, last in self.trackers if hasattr(tracker, "log_images")]
        if not any(step > last for _, last in pictures):
            return
        with Image.open(picture) as image:
            frames = []
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                frames.append(np.asarray(image.convert("RGB")))
        for tracker, last in pictures:
            if step > last:
                tracker.log_images({"previews": np.concatenate(frames)[None]}, step=step, dataformats="NHWC")

    def close(self) -> None:
        """Write what is held back, and let go."""
        for tracker, _ in self.trackers:
            tracker.finish()
