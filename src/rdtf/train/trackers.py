"""A run's numbers in TensorBoard or trackio, through accelerate's trackers. The run's own log stays complete."""

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
"""Names, and functions that say whether their packages are installed."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise ``ValueError`` for an unknown tracker, ``ImportError`` for one whose package is missing."""
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker {name!r}; choose from {', '.join(TRACKERS)}")
        if not TRACKERS[name]():
            raise ImportError(f"trackers={name} needs a package that is not installed: pip install 'rdtf[{name}]'")


class Trackers:
    """The open trackers of a run, in its first process only.

    A resumed run continues the same curves. Steps after the last checkpoint are done again but not shown twice:
    TensorBoard purges them, and trackio does not get them again.

    Args:
        names: names in :data:`TRACKERS`. run: the run's folder. settings: shown beside the curves.
        step: the step of the checkpoint, or 0. logged: the last step that the trackers got before the run was stopped.
    """

    def __init__(self, names: Sequence[str], run: Path, settings: Mapping[str, Any], step: int, logged: int) -> None:
        self.trackers: list[tuple[GeneralTracker, int]] = []
        for name in names:
            if name == "tensorboard":
                tracker, last = TensorBoardTracker("tensorboard", run, purge_step=step + 1), step
            else:
                tracker, last = TrackioTracker("rdtf", name=run.resolve().name, resume="allow"), max(step, logged)
            tracker.start()
            if step == 0 and logged <= 0:
                told_as = {
                    name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
                    for name, value in flat(settings, "/").items()
                }
                tracker.store_init_configuration(told_as)
            self.trackers.append((tracker, last))

    def log(self, line: Mapping[str, Any], kind: str) -> None:
        """Send the numbers of a log line. Nested ones are named ``kind/name/inner``."""
        step = int(line["step"])
        values = {f"{kind}/{name}": value for name, value in flat(line, "/").items() if isinstance(value, int | float)}
        for tracker, last in self.trackers:
            if step > last:
                tracker.log(values, step=step)

    def show(self, picture: Path, step: int) -> None:
        """Send an animated picture, all frames one below the other, to trackers that show pictures."""
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
        """Write what is buffered, and close."""
        for tracker, _ in self.trackers:
            tracker.finish()
