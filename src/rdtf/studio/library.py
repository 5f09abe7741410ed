"""The studio's folder: stickers that were made, stickers that were given, and files for messengers.

All names that come from a browser pass :meth:`Library.path`, so none leads out of the folder.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rdtf.export.batch import Source
from rdtf.export.larger import Load, loader, with_larger
from rdtf.export.pack import check_texts, write_packs
from rdtf.export.search import Export
from rdtf.export.target import Target, load_target, target_names
from rdtf.files import write_bytes
from rdtf.io.metadata import note_of
from rdtf.io.read import read_sticker
from rdtf.io.wall import read_sticker as read_guarded
from rdtf.io.write import save_sticker
from rdtf.pixels import fit
from rdtf.sticker import Sticker, StickerError

MADE, GIVEN = "made", "given"
MOST_FRAMES, MOST_SIDE = 16, 512
"""Of stickers that are given; more frames are thinned out, larger ones scaled down."""
_KEY = re.compile(rf"({MADE}|{GIVEN})-[0-9]{{8}}-[0-9]{{6}}-[0-9]{{3}}-[0-9a-f]{{8}}", re.ASCII)
_STICKERS, _EXPORTS = "stickers", "exports"


@dataclass(frozen=True)
class Entry:
    """A sticker of the library, by what its file says.

    Attributes:
        key: its name in the library. caption: in words. seed: None where it was not made by a model.
        model: name of the folder of the model that made it.
    """

    key: str
    caption: str = ""
    seed: int | None = None
    model: str = ""


class Library:
    """Stickers in a folder, each a lossless WebP with the note of how it was made."""

    def __init__(self, folder: Path, load: Load | None = None) -> None:
        """``load`` gives the pipeline of a model's name; by default those that a command finds."""
        self.folder, self._load = folder, load or loader()
        for name in (_STICKERS, _EXPORTS):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def add(self, sticker: Sticker) -> str:
        """Keep a sticker that was made; returns its key."""
        return self._keep(MADE, sticker)

    def give(self, file: Path) -> str:
        """Keep an image or a sticker of a stranger, decoded in a process of its own; returns its key.

        Raises:
            StickerError: it cannot be read, or takes too long or too much memory. It holds no folder's name.
        """
        try:
            sticker = read_guarded(file, max_frames=MOST_FRAMES)
        except StickerError as error:
            raise StickerError(file.name, error.reason) from None
        if max(sticker.size) > MOST_SIDE:
            sticker = Sticker(fit(sticker.frames, MOST_SIDE), sticker.durations)
        return self._keep(GIVEN, sticker)

    def _keep(self, kind: str, sticker: Sticker) -> str:
        now = datetime.now()
        key = f"{kind}-{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03}-{secrets.token_hex(4)}"
        save_sticker(sticker, self.path(key, new=True))
        return key

    def path(self, key: str, *, new: bool = False) -> Path:
        """The file of a sticker.

        Raises:
            ValueError: there is none of this key.
        """
        path = self.folder / _STICKERS / f"{key}.webp"
        if not (isinstance(key, str) and _KEY.fullmatch(key)) or not (new or path.is_file()):
            raise ValueError(f"there is no sticker {key!r} in the studio's folder")
        return path

    def read(self, key: str) -> Sticker:
        """The frames of a sticker."""
        return read_sticker(self.path(key))

    def listed(self, kind: str = MADE) -> list[str]:
        """All stickers of a kind, newest first."""
        found = (path.stem for path in (self.folder / _STICKERS).glob(f"{kind}-*.webp"))
        return sorted((key for key in found if _KEY.fullmatch(key)), reverse=True)

    def entry(self, key: str) -> Entry:
        """What the file of a sticker says."""
        note = note_of(self.path(key).read_bytes()) or {}
        settings = note.get("settings", {})
        seed = settings.get("seed", 0) + note.get("number", 0) if note else None
        return Entry(key, str(note.get("caption", "")), seed, str(note.get("model", "")))

    def delete(self, keys: Sequence[str]) -> None:
        """Remove stickers and their exports."""
        for path in [self.path(key) for key in keys]:
            path.unlink()
            for export in (self.folder / _EXPORTS).glob(f"{path.stem}*"):
                export.unlink()

    def export(self, key: str, target: str) -> tuple[Path, Export]:
        """The file of a sticker for a messenger.

        Raises:
            ValueError: no such target, or the sticker cannot keep its rules.
        """
        made = self._exported(key, target)
        path = self.folder / _EXPORTS / f"{key}-{target}{load_target(target).suffix}"
        write_bytes(path, made.data)
        return path, made

    def pack(self, keys: Sequence[str], target: str, name: str, author: str) -> tuple[Path, dict[str, str]]:
        """A ZIP file with sticker packs for a messenger, and the stickers that were left out, with their reasons.

        Raises:
            ValueError: no stickers, too few of them, no such target, or texts that are too long.
        """
        check_texts(_known(target), name, author)
        results: list[tuple[Source, Export | str]] = []
        for key in dict.fromkeys(keys):
            try:
                results.append((self._source(key), self._exported(key, target)))
            except ValueError as error:
                results.append((self._source(key), str(error)))
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "packs")
            report = write_packs(results, _known(target), target, folder, name=name, author=author)
            archive = shutil.make_archive(str(Path(place, "pack")), "zip", folder)
            path = self.folder / _EXPORTS / f"pack-{secrets.token_hex(4)}-{target}.zip"
            write_bytes(path, Path(archive).read_bytes())
        return path, report.left_out

    def exported(self, name: str) -> Path:
        """A file that :meth:`export` or :meth:`pack` has written, by its name."""
        path = self.folder / _EXPORTS / name
        if not re.fullmatch(r"[a-z0-9-]+\.[a-z]+", name, re.ASCII) or not path.is_file():
            raise ValueError(f"there is no file {name!r} in the studio's folder")
        return path

    def _source(self, key: str) -> Source:
        return Source(key, self.path(key), self.entry(key).caption)

    def _exported(self, key: str, target: str) -> Export:
        rules = _known(target)
        with tempfile.TemporaryDirectory() as folder:
            return with_larger(self._source(key), [rules], Path(folder), self._load).export(rules)


def _known(target: str) -> Target:
    if target not in target_names():  # never a path
        raise ValueError(f"there is no messenger {target!r}; choose from {', '.join(target_names())}")
    return load_target(target)
