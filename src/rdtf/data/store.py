"""The store of a preparation: the results of all files, in an SQLite database in the dataset's cache folder.

Each result is stored at once, so a killed run can continue. Until the dataset is finished, the store has the frames;
afterwards it has their positions in the dataset. A later run reads only files without a result. The database is in WAL
mode: a killed process loses no committed result, and a power cut loses only the last results.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rdtf import faults
from rdtf.data.dataset import CACHE
from rdtf.data.process_file import FileResult, Kind

STORE = "prepared.sqlite"

_VERSION = 2
# ``frames`` and ``limits`` are hashes of the settings and versions that the result depends on.
_TABLES = f"""
PRAGMA auto_vacuum = FULL;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, stamp TEXT NOT NULL, frames TEXT NOT NULL, limits TEXT NOT NULL,
    kind INTEGER NOT NULL, content BLOB NOT NULL, payload BLOB, file TEXT, row INTEGER,
    finished INTEGER NOT NULL DEFAULT 0, UNIQUE (name, frames));
CREATE TABLE IF NOT EXISTS datasets (manifest TEXT PRIMARY KEY, about TEXT NOT NULL, finished INTEGER NOT NULL);
CREATE TEMP TABLE items (position INTEGER PRIMARY KEY, name TEXT NOT NULL, stamp TEXT NOT NULL);
CREATE TEMP TABLE owners (content BLOB PRIMARY KEY, owner INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""
# Results that are valid for the current items. A duplicate has neither payload nor row.
_VIEW = f"""
CREATE TEMP VIEW known AS
    SELECT position, id, kind, content, file, row, finished, payload IS NOT NULL AS held
    FROM items JOIN results USING (name, stamp)
    WHERE frames = '{{frames}}' AND (kind != {Kind.STOPPED:d} OR limits = '{{limits}}');
"""
_OWNERS = f"INSERT INTO owners SELECT content, MIN(position) FROM known WHERE kind = {Kind.USED:d} GROUP BY content"

_DISK_ERRORS = {
    "is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "readonly": errno.EROFS,
    "unable to open": errno.EACCES,
}
"""Messages of SQLite, with the error numbers of files."""


class Store:
    """The store in a dataset's folder, which the caller has locked.

    A store that cannot be read is replaced by an empty one. The files are then read again.

    Args:
        folder: folder of the dataset.
        about: settings and versions that the results depend on, under ``frames`` and ``limits``.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.path = folder / CACHE / STORE
        self.path.parent.mkdir(exist_ok=True)
        self._about = about
        self._hashes = {part: _hash(about[part]) for part in ("frames", "limits")}
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._database.close()
            for ending in ("", "-wal", "-shm"):
                self.path.with_name(STORE + ending).unlink(missing_ok=True)
            self._open()

    def _open(self) -> None:
        with _disk_errors():
            self._database = sqlite3.connect(self.path, isolation_level=None)
            if self._one("PRAGMA user_version") != _VERSION:
                self._database.executescript("DROP TABLE IF EXISTS results; DROP TABLE IF EXISTS datasets")
            self._database.executescript(_TABLES + _VIEW.format(**self._hashes))

    def close(self) -> None:
        """Close the store."""
        self._database.close()

    def _one(self, query: str, *values: Any) -> Any:
        found = self._database.execute(query, values).fetchone()
        return None if found is None else found[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _disk_errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                self._database.execute("ROLLBACK")
                raise

    # What is there

    def about(self, manifest: str, *, finished: bool = False) -> dict[str, Any] | None:
        """What a dataset depends on, by the hash of its manifest; None if the store does not know the dataset.

        Args:
            finished: only if the store knows the position of each result in the dataset.
        """
        text = self._one("SELECT about FROM datasets WHERE manifest = ? AND finished >= ?", manifest, int(finished))
        return None if text is None else json.loads(text)

    def take_items(self, items: Iterable[tuple[str, str]], files: Mapping[str, int]) -> dict[str, int]:
        """Compare the names and stamps of all items with the results.

        Args:
            files: Arrow files that can be read, with their numbers of rows. Frames in other files are lost.

        Returns:
            numbers of items whose results are known or missing, in words, and of results without an item.
        """
        with self._transaction():
            self._database.executemany(
                "INSERT INTO items VALUES (?, ?, ?)", ((position, *item) for position, item in enumerate(items))
            )
            for (file,) in self._database.execute(
                "SELECT DISTINCT file FROM results WHERE file IS NOT NULL"
            ).fetchall():
                rows = files.get(file, 0)
                self._database.execute(
                    "UPDATE results SET file = NULL, row = NULL WHERE file = ? AND row >= ?", (file, rows)
                )
        kept = self._one("SELECT COUNT(*) FROM known WHERE finished")
        resumed = self._one("SELECT COUNT(*) FROM known WHERE NOT finished")
        gone = "SELECT COUNT(DISTINCT name) FROM results WHERE finished AND name NOT IN (SELECT name FROM items)"
        return {
            "kept from the last run": kept,
            "done before the run was stopped": resumed,
            "new or changed": self._one("SELECT COUNT(*) FROM items") - kept - resumed,
            "gone": self._one(gone),
        }

    def todo(self) -> Sequence[int]:
        """Positions of items to process: without a result, or duplicates whose original is gone."""
        self._database.execute("DELETE FROM owners")
        self._database.execute(_OWNERS)
        query = """
            SELECT position FROM items LEFT JOIN known USING (position) LEFT JOIN owners USING (content)
            WHERE id IS NULL OR (owner = position AND row IS NULL AND NOT held) ORDER BY position
        """
        return [position for (position,) in self._database.execute(query)]

    def known(self) -> Iterator[tuple[int, bytes, int | None, str | None, int | None]]:
        """The stored result of each item in order. Call it when :meth:`todo` is empty.

        Yields:
            id of the result; SHA-256 of the frames; position of the first item with equal frames, or None if the item
            cannot be used; Arrow file and row of the frames in an earlier dataset, or None if they are in the store.
        """
        query = "SELECT id, content, owner, file, row FROM known LEFT JOIN owners USING (content) ORDER BY position"
        return iter(self._database.execute(query))

    def payload(self, result: int) -> bytes:
        """The payload of a result that is in the store."""
        payload: bytes = self._one("SELECT payload FROM results WHERE id = ?", result)
        return payload

    # Writing

    def add(self, position: int, result: FileResult) -> None:
        """Store the result of an item."""
        with self._transaction():
            self._database.execute(
                """
                INSERT OR REPLACE INTO results (name, stamp, frames, limits, kind, content, payload)
                SELECT name, stamp, ?, ?, ?, ?, ? FROM items WHERE position = ?
                """,
                (*self._hashes.values(), int(result.kind), result.content, result.payload, position),
            )
            faults.reach("prepare.record")
        faults.reach("prepare.record")

    def announce(self, manifest: str) -> None:
        """Store what a dataset depends on, before its manifest is written."""
        with self._transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO datasets VALUES (?, ?, 0)", (manifest, json.dumps(self._about, sort_keys=True))
            )

    def finish(self, manifest: str, places: Iterable[tuple[int, str | None, int | None]]) -> None:
        """Remove frames that a finished dataset has, and results without an item.

        Args:
            manifest: hash of the dataset's manifest, as announced.
            places: id of the result of every item, with the Arrow file and the row of its frames, or None.
        """
        with self._transaction():
            self._database.execute("UPDATE results SET finished = 0")
            self._database.executemany(
                f"""
                UPDATE results SET finished = 1, file = ?2, row = ?3,
                payload = CASE kind WHEN {Kind.USED:d} THEN NULL ELSE payload END WHERE id = ?1
                """,
                places,
            )
            self._database.execute("DELETE FROM results WHERE NOT finished")
            self._database.execute("DELETE FROM datasets WHERE manifest != ?", (manifest,))
            self._database.execute("UPDATE datasets SET finished = 1")


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn SQLite's errors about a full or read-only disk into the errors of files."""
    try:
        yield
    except sqlite3.OperationalError as error:
        for text, number in _DISK_ERRORS.items():
            if text in str(error):
                raise OSError(number, os.strerror(number)) from error
        raise


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
