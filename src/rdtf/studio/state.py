"""What the studio's page and its endpoints work on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rdtf.studio.library import Library
from rdtf.studio.maker import Maker, Models
from rdtf.studio.trainings import Trainings


class Studio:
    """The models, stickers, generations and trainings of a folder.

    Args:
        folder: of the studio. models: folders of models. sources: what may be trained on.

    Raises:
        ValueError: one of the folders of models holds none, or a source is not there.
    """

    def __init__(self, folder: Path, models: Sequence[Path] = (), sources: Sequence[Path] = ()) -> None:
        if missing := [path for path in sources if not path.exists()]:
            raise ValueError(f"{missing[0]}: no such file or folder; name stickers that are there with --stickers")
        self.models = Models(models, folder / "runs")
        self.library = Library(folder, self.models.load)
        self.maker = Maker(self.models, self.library)
        self.trainings = Trainings(folder, {path.resolve().name: path for path in sources}, self.models)
