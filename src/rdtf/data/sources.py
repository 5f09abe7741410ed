"""What a user names as sources, turned into a list of stickers that are not read yet.

Finding looks at names and metadata alone, so it is quick and may run in the parent process. Decoding is what
:meth:`Item.read` does, and belongs into a worker.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rdtf.data.captions import Caption, find_captions
from rdtf.data.dataset import Rejection
from rdtf.data.read import SUFFIXES, read_sticker
from rdtf.sticker import Sticker, StickerError

_SIDECARS = frozenset({".txt", ".md", ".rst", ".jsonl", ".csv", ".tsv", ".html", ".yaml", ".yml"})
_SIDECAR_NAMES = frozenset({"readme", "license", "licence", "copying", "notice", "authors", "thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class Item:
    """One sticker of a source, found but not read. It is small and pickles.

    Attributes:
        name: the source's label and the path inside of it, as shown to people and stored in datasets.
        file: where it is on disk.
        caption: what is known in words.
    """

    name: str
    file: str
    caption: Caption

    @property
    def path(self) -> Path:
        """The file on disk that holds it."""
        return Path(self.file)

    def read(self, *, size: int | None = None, max_frames: int | None = None) -> Sticker:
        """Decode it; see :func:`~rdtf.data.read.read_sticker` for arguments and errors."""
        return read_sticker(self.path, size=size, max_frames=max_frames)

    def stamp(self) -> str:
        """16 hex digits that change when the bytes of the sticker may have changed; nothing but ``stat`` is called.

        The caption, which asks for no decoding, is not part of it.

        Raises:
            StickerError: the file is gone.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise StickerError(self.path, error.strerror or str(error)) from error
        return hashlib.sha256(f"{status.st_size}/{status.st_mtime_ns}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Found:
    """What is in a source.

    Attributes:
        items: the stickers, sorted by their names.
        problems: what looked like a sticker or a caption, and cannot be one.
        passed_over: number of captions, read-mes and hidden files seen, which are no stickers.
    """

    items: list[Item]
    problems: list[Rejection]
    passed_over: int


def source_labels(sources: Sequence[Path]) -> list[str]:
    """The sources' names, made different by a number where they are equal."""
    labels: list[str] = []
    for source in sources:
        name = label = _printable(source.resolve().name) or "root"
        number = 2
        while label in labels:
            label = f"{name}-{number}"
            number += 1
        labels.append(label)
    return labels


def find_items(source: Path, label: str) -> Found:
    """The stickers of a folder and its subfolders with their captions, sorted by path.

    Links that lead out of it are problems, and so are files of unknown kinds. Nothing is decoded.

    Args:
        source: a folder.
        label: what names begin with, see :func:`source_labels`.
    """
    files, problems, passed_over = _walk(source)
    captions, more = find_captions(source, files)
    items = [Item(_below(file, source, label), str(file), captions[file]) for file in files if file in captions]
    rejected = [
        Rejection(file=_below(problem.path, source, label), reason=problem.reason) for problem in [*problems, *more]
    ]
    return Found(items, rejected, passed_over)


def _printable(text: str) -> str:
    """File names are bytes and may not be text; shown they must be."""
    return text.encode("utf-8", "backslashreplace").decode()


def _below(path: Path, source: Path, label: str) -> str:
    return f"{label}/{_printable(path.relative_to(source).as_posix())}"


def _walk(source: Path) -> tuple[list[Path], list[StickerError], int]:
    """All files below a folder that may be stickers, sorted by path; problems; the number of files passed over."""
    files: list[Path] = []
    problems: list[StickerError] = []
    passed_over = 0
    inside = source.resolve()
    unreadable: list[OSError] = []
    for folder, folders, names in os.walk(source, onerror=unreadable.append):
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        problems += [StickerError(here / name, "a link to a folder is not followed") for name in links]
        folders[:] = [name for name in folders if not name.startswith((".", "__")) and name not in links]
        for name in names:
            path = here / name
            if name.startswith(".") or path.suffix.lower() in _SIDECARS or name.lower() in _SIDECAR_NAMES:
                passed_over += 1
            elif path.suffix.lower() not in SUFFIXES:
                problems.append(StickerError(path, f"the ending {path.suffix!r} is not a known sticker format"))
            elif path.is_symlink() and not path.resolve().is_relative_to(inside):
                problems.append(StickerError(path, "a link out of the folder is not followed"))
            elif not path.is_file():
                problems.append(StickerError(path, "not a regular file"))
            else:
                files.append(path)
    problems += [StickerError(error.filename or source, error.strerror or str(error)) for error in unreadable]
    return sorted(files, key=lambda path: path.relative_to(source).as_posix()), problems, passed_over
