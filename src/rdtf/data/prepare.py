"""From sources of stickers to a prepared dataset, with a reason for every file that is not in it.

A run is in three parts: find what there is, have workers settle each sticker that is not known yet (decode it and
describe its frames), and put the rows together. Each settled sticker goes into a journal at once; the rows are put
together from it in the order of the stickers, so that the same input gives the same bytes whatever the number of
workers, and whether or not the run was ever stopped. The dataset appears, or changes, when its manifest is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from rdtf import faults
from rdtf.data.captions import Caption
from rdtf.data.checks import check_captions
from rdtf.data.dataset import (
    CACHE,
    FORMAT,
    FRAMES,
    MANIFEST,
    SCHEMA,
    Manifest,
    Rejection,
    StickerDataset,
    is_dataset,
    read_manifest,
)
from rdtf.data.find import KNOWN, Item, Items, find_items, source_labels
from rdtf.data.index import count_up, make_index
from rdtf.data.journal import ENTRY, Journal, Ledger, find
from rdtf.data.mirroring import is_flippable
from rdtf.data.process_file import FACTS, Decoder, Job, Kind, OneFile, code_versions, rows_of
from rdtf.data.ray_engine import run_ray
from rdtf.data.settings import PARTS, PrepareSettings
from rdtf.data.style import FIELD, style_of, with_style
from rdtf.data.workers import run_local
from rdtf.files import LOCK, disk_errors, folder_lock, sync
from rdtf.progress import bars, console
from rdtf.sticker import StickerError

ROWS_PER_FILE = 2048
BYTES_PER_FILE = 256 * 2**20
BUILDING = "building"
"""Folder in the dataset's folder that holds the journal of a run that is not finished."""
JOURNAL = "journal"
INDEX = "index-{}.arrow"
LEDGER = "prepared-{}.npz"
"""In the dataset's cache folder, with a hash of the manifest that it belongs to."""
UNKNOWN = -1
_NO_CAPTION = Caption(("",))  # workers need none, and captions can be large


@dataclass(frozen=True)
class PrepareReport:
    """What :func:`prepare` did.

    Attributes:
        folder: the dataset.
        manifest: as written into it.
        seconds: wall-clock time.
        plan: what was taken over from an earlier run, and what was to be done.
    """

    folder: Path
    manifest: Manifest
    seconds: float
    plan: str

    @property
    def rejected(self) -> list[Rejection]:
        """What is not in the dataset, and why."""
        return self.manifest.rejected

    def summary(self) -> str:
        """A few lines for people."""
        counts = ", ".join(f"{name} {count:,}" for name, count in self.manifest.counts.items())
        sources = ", ".join(f"{name} {count:,}" for name, count in self.manifest.sources.items())
        total = sum(self.manifest.counts.values())
        lines = [f"{self.folder}: {total:,} stickers in {self.seconds:.0f} s ({counts}; from {sources})"]
        if self.rejected:
            lines.append(f"{len(self.rejected):,} rejected (all in {self.folder / MANIFEST}), such as:")
            lines += [f"  {rejection.file}: {rejection.reason}" for rejection in self.rejected[:5]]
        if self.manifest.passed_over:
            lines.append(f"{self.manifest.passed_over:,} files were passed over: captions, read-mes, hidden files")
        return "\n".join(lines)


def prepare(
    sources: Sequence[Path],
    out: Path,
    settings: PrepareSettings | None = None,
    *,
    overwrite: bool = False,
    decoder: Decoder = Item.read,
) -> PrepareReport:
    """Read folders of sticker files (with their subfolders), archives, tables and files into a dataset at ``out``.

    Rows are in the order of the sources, within each in the order of the paths. Of stickers whose frames are equal
    once scaled, the first one stays. The dataset appears whole or not at all. A run that was stopped, by whatever,
    goes on where it was when it is called again; over a finished dataset only what has changed is done.

    Args:
        sources: folders and files, see :func:`~rdtf.data.find.find_items`; nothing is followed out of them.
        out: a new folder, outside of the sources, or a dataset that was made from the same sources.
        settings: defaults if None.
        overwrite: let a dataset at ``out`` become one of other settings or sources (nothing else is ever replaced).
            What the two have in common is not done again.
        decoder: called as ``decoder(item, size=..., max_frames=...)`` in the workers; must pickle.

    Raises:
        ValueError: a source is missing or has no stickers, ``out`` is in the way or in use by another run, or no
            sticker could be used.
    """
    started = time.monotonic()
    settings = settings or PrepareSettings.model_validate({})
    sources, out = [Path(source) for source in sources], Path(out)
    _check_places(sources, out)
    for what, names in ("licence", settings.licenses), ("style", settings.styles):
        unknown = names.keys() - {"", *source_labels(sources)}
        if unknown:
            labels = ", ".join(source_labels(sources))
            raise ValueError(f"a {what} is given for {min(unknown)}, but the sources are called {labels}")
    found = _find(sources, settings.captions)
    about = _about(sources, found, settings)
    with disk_errors(out), _building(out) as building:
        past = _Past.of(out, overwrite)
        if not overwrite:
            past.check_same(out, settings, about)
        with contextlib.closing(_open_journal(building, about)) as journal:
            work = _plan(found.items, past, journal, about)
            console.print(f"{out}: {work.text}", highlight=False, markup=False, soft_wrap=True)
            if len(work.todo()) or past.ledger is None or past.ledger.about != about:
                _settle(work, past, journal, OneFile(decoder, settings))
                manifest = _put_together(out, work, past, journal, settings, found, about)
                past = _Past(manifest)
        assert past.manifest is not None
        _sweep(out, building, past.manifest)
    return PrepareReport(out, past.manifest, time.monotonic() - started, work.text)


def _check_places(sources: Sequence[Path], out: Path) -> None:
    if not sources:
        raise ValueError("give at least one folder of stickers")
    for source in sources:
        if not source.exists():
            raise ValueError(f"{source}: no such folder or file; a source is a folder of stickers, or an archive")
        here, there = source.resolve(), out.resolve()
        if there.is_relative_to(here) or here.is_relative_to(there):
            raise ValueError(f"the dataset {out} and its source {source} lie within each other; choose another folder")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose another folder")
    entries = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not entries <= {LOCK} and not (out / BUILDING).is_dir() and MANIFEST not in entries:
        raise ValueError(f"{out} is not empty and holds no prepared dataset; choose another folder")


@dataclass
class _FoundAll:
    """What all sources hold together."""

    items: Items = field(default_factory=Items)
    problems: list[Rejection] = field(default_factory=list)
    passed_over: int = 0


def _find(sources: Sequence[Path], captions: Sequence[str]) -> _FoundAll:
    together = _FoundAll()
    for source, label in zip(sources, source_labels(sources), strict=True):
        before = len(together.items)
        found = find_items(source, label, captions, together.items)
        if len(found.items) == before:
            reasons = "".join(f"; {problem.file}: {problem.reason}" for problem in found.problems[:3])
            raise ValueError(f"{source} holds no sticker (known endings: {', '.join(KNOWN)}){reasons}")
        together.problems += found.problems
        together.passed_over += found.passed_over
    return together


def _about(sources: Sequence[Path], found: _FoundAll, settings: PrepareSettings) -> dict[str, Any]:
    """All that a dataset depends on, in the parts of :data:`~rdtf.data.settings.PARTS`, JSON-able."""
    versions = code_versions(settings.features)
    parts = {name: {**settings.part(name), **versions.get(name, {})} for name in PARTS if name != "running"}
    words = hashlib.sha256()
    for item in found.items:
        known = item.caption
        said = [item.name, known.texts, known.attributes, known.license, known.split]
        words.update(json.dumps(said, sort_keys=True).encode())
    for problem in found.problems:
        words.update(json.dumps([problem.file, problem.reason]).encode())
    places = hashlib.sha256("\0".join(str(source.resolve()) for source in sources).encode("utf-8", "surrogateescape"))
    return {
        **parts,
        "rows": {**parts["rows"], "captions": words.hexdigest(), "the rows' code": _own_code()},
        "sources": places.hexdigest()[:16],
    }


def _own_code() -> str:
    digest = hashlib.sha256()
    for module in ("prepare", "index", "duplicates", "checks", "mirroring", "style"):
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _building(out: Path) -> Iterator[Path]:
    """The folder of an unfinished run, which no other run may enter at the same time.

    The lock lies in the dataset's folder and stays there: a run that waits for a file that its holder removes would
    hold a lock that nobody else sees.
    """
    out.mkdir(parents=True, exist_ok=True)
    building = out / BUILDING
    with folder_lock(out, "this dataset"):
        building.mkdir(exist_ok=True)
        try:
            yield building
        except KeyboardInterrupt:
            console.print(f"{out}: what is done is kept; the same command goes on from here", soft_wrap=True)
            raise
        finally:
            journal = building / JOURNAL
            if not journal.is_file() or journal.stat().st_size == 0:  # nothing to go on from
                shutil.rmtree(building, ignore_errors=True)


def _open_journal(building: Path, about: dict[str, Any]) -> Journal:
    """The journal of this very work; outcomes for other settings are dropped."""
    mark, journal = building / "about.json", building / JOURNAL
    text = json.dumps({part: about[part] for part in ("frames", "facts", "limits")}, sort_keys=True)
    if not mark.is_file() or mark.read_text("utf-8") != text:
        journal.unlink(missing_ok=True)
        mark.write_text(text, "utf-8")
    return Journal(journal)


@dataclass(frozen=True)
class _Past:
    """An earlier dataset in the place of the new one, and what is known of how it was made."""

    manifest: Manifest | None = None
    ledger: Ledger | None = None
    files: tuple[Path, ...] = ()
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, out: Path, overwrite: bool) -> _Past:
        """What lies at ``out``; a dataset that cannot be used is no past, if it may be replaced."""
        if not (out / MANIFEST).is_file():
            return cls()
        try:
            manifest = read_manifest(out)
            StickerDataset(out)
        except ValueError as error:
            if not is_dataset(out):
                raise
            if not overwrite:
                raise ValueError(f"{error} with --overwrite") from None
            return cls()
        ledger = Ledger.load(_ledger_path(out, manifest))
        rows = list(manifest.files.values())
        return cls(manifest, ledger, tuple(out / name for name in manifest.files), np.cumsum([0, *rows]))

    def check_same(self, out: Path, settings: PrepareSettings, about: dict[str, Any]) -> None:
        """Raise if this run would make another dataset than the one that is there."""
        if self.manifest is None:
            return
        # What was no setting yet when it was made was as it is by default.
        before, now = {**PrepareSettings().shaping(), **self.manifest.settings}, settings.shaping()
        changed = [f"{name} {before.get(name)!r} to {now[name]!r}" for name in now if before.get(name) != now[name]]
        if self.ledger is None or self.ledger.about.get("sources") != about["sources"]:
            changed.append("other sources, or not known which")
        if changed:
            raise ValueError(
                f"{out} holds another dataset ({', '.join(changed)}); choose another folder, or let it become this one "
                "by --overwrite: what the two have in common is not done again"
            )

    def place(self, row: int) -> tuple[Path, int]:
        """The Arrow file of a row of the dataset, and the row in it."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.files[number], row - int(self.starts[number])


@dataclass
class _Work:
    """What there is to do, in arrays of fixed-size records: a million stickers are a few dozen MB.

    Attributes:
        items: all stickers, in the order of the rows.
        entries: of each its outcome, as far as it is known. ``place`` is in the journal if 0 or more; position p of
            the ledger is -2 - p; -1 is not known yet.
        frames: of each the row of the earlier dataset that holds its frames, -1 if none does.
        text: what is taken over and what is to be done, for people.
    """

    items: Items
    entries: np.ndarray
    frames: np.ndarray
    text: str = ""

    def owners(self) -> np.ndarray:
        """For each used sticker the first one with equal frames; -1 for those that are not used or not known yet."""
        known = (self.entries["place"] != UNKNOWN) | (self.frames >= 0)
        used = np.flatnonzero((self.entries["kind"] == Kind.USED) & known)
        _, first, inverse = np.unique(self.entries["content"][used], return_index=True, return_inverse=True)
        owners = np.full(len(self.items), -1)
        owners[used] = used[first[inverse]]
        return owners

    def todo(self) -> np.ndarray:
        """Stickers to settle: those not known, and those known as a copy of one that is no longer before them."""
        known = self.entries["place"]
        owns = self.owners() == np.arange(len(self.items))
        return np.flatnonzero((known == UNKNOWN) | (owns & (known < UNKNOWN) & (self.frames < 0)))


def _plan(items: Items, past: _Past, journal: Journal, about: dict[str, Any]) -> _Work:
    """Match what is there now with what is known of it."""
    work = _Work(items, np.zeros(len(items), ENTRY), np.full(len(items), -1))
    entries = work.entries
    entries["name"], entries["stamp"], entries["place"] = (
        np.frombuffer(items.hashes, np.uint64),
        _stamps(items),
        UNKNOWN,
    )
    notes: list[str] = []
    known = past.ledger.entries if past.ledger is not None else np.zeros(0, ENTRY)
    positions = find(entries["name"], known["name"])
    there = positions >= 0
    same = there.copy()
    same[there] &= known["stamp"][positions[there]] == entries["stamp"][there]
    kept = same.copy()
    if past.ledger is not None:
        before = past.ledger.about
        differs = {part: _differences(before.get(part, {}), about[part]) for part in PARTS if part in about}
        if differs["frames"]:
            kept[:] = False
            notes.append(f"{differs['frames']} changed: all are read again")
        else:
            work.frames[same] = known["place"][positions[same]]
            entries["content"][same] = known["content"][positions[same]]
            if differs["facts"]:
                kept &= work.frames < 0
                notes.append(f"{differs['facts']} changed: all are described again, from the frames in the dataset")
            elif differs["rows"] and not (differs["rows"] == "captions" and there.sum() != max(len(items), len(known))):
                notes.append(f"{differs['rows']} changed: no frames are needed for that")
        if differs["limits"]:
            kept[kept] &= known["kind"][positions[kept]] != Kind.STOPPED
            notes.append(f"{differs['limits']} changed: what was stopped by it is tried again")
    entries["kind"][kept], entries["content"][kept] = known["kind"][positions[kept]], known["content"][positions[kept]]
    entries["place"][kept] = UNKNOWN - 1 - positions[kept]

    at = find(entries["name"], journal.entries["name"])
    done = at >= 0
    done[done] &= journal.entries["stamp"][at[done]] == entries["stamp"][done]
    entries[done] = journal.entries[at[done]]
    counts = {
        "kept from the last run": int((kept & ~done).sum()),
        "done before the run was stopped": int(done.sum()),
        "new": int((~there & ~done).sum()),
        "changed": int((there & ~same & ~done).sum()),
        "gone": len(known) - int(there.sum()),
    }
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    work.text = "; ".join([shown, *notes])
    return work


def _stamps(items: Sequence[Item]) -> np.ndarray:
    def stamp(item: Item) -> int:
        try:
            return int(item.stamp(), 16)
        except StickerError:  # gone meanwhile: its worker will say so
            return 0

    return np.fromiter(map(stamp, items), np.uint64, len(items))


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    return ", ".join(name for name in now if before.get(name) != now[name])


def _settle(work: _Work, past: _Past, journal: Journal, one_file: OneFile) -> None:
    """Have workers settle what is to do, and write each outcome down as it comes."""
    entries = work.entries

    def job_of(position: int) -> Job:
        row = int(work.frames[position])
        again = row >= 0 and entries["place"][position] == UNKNOWN
        return Job(replace(work.items[position], caption=_NO_CAPTION), past.place(row) if again else None)

    engine = run_ray if one_file.settings.engine == "ray" else run_local
    with bars() as progress:
        while len(todo := work.todo()):  # a second time only if copies turned out to be of stickers that fail now
            task = progress.add_task("preparing", total=len(todo), note="")
            refused = 0
            with contextlib.closing(engine(todo.data, job_of, one_file, one_file.settings.workers)) as outcomes:
                for position, outcome in outcomes:
                    name, stamp = int(entries["name"][position]), int(entries["stamp"][position])
                    place = journal.append(name, stamp, outcome)
                    entries[position] = name, stamp, place, outcome.kind, outcome.content
                    refused += outcome.kind != Kind.USED
                    progress.update(task, advance=1, note=f"{refused} rejected")


def _put_together(
    out: Path,
    work: _Work,
    past: _Past,
    journal: Journal,
    settings: PrepareSettings,
    found: _FoundAll,
    about: dict[str, Any],
) -> Manifest:
    """Write the rows of all used stickers, in order, then the ledger, and last the manifest."""
    rejected, reasons = list(found.problems), dict[int, str]()
    ledger = work.entries.copy()
    ledger["place"] = -1
    writer = _Writer(out)
    digest = hashlib.sha256()
    rows = 0
    owners = work.owners()
    for position, (item, owner) in enumerate(zip(work.items, owners.data, strict=True)):
        if owner not in (-1, position):
            rejected.append(Rejection(file=item.name, reason=f"duplicate of {work.items[owner].name}"))
            continue
        facts = _facts(work, past, journal, position)
        if isinstance(facts, str):
            reasons[position] = facts
            rejected.append(Rejection(file=item.name, reason=facts))
            continue
        words, complaint = _words(item, work.entries["content"][position].tobytes(), settings)
        if complaint:
            rejected.append(Rejection(file=item.name, reason=complaint))
        row = {**facts, **words}
        ledger["place"][position] = rows
        rows += 1
        # All but the frames, for which the id stands: caches of anything in a row may rely on it.
        text = json.dumps({**row, FRAMES: None, "content": None, "signature": None}, sort_keys=True).encode()
        digest.update(text)
        writer.add(row, text)
    writer.flush()
    if not writer.files:
        journal.clear()
        shown = "".join(f"\n  {rejection.file}: {rejection.reason}" for rejection in rejected[:5])
        raise ValueError(f"none of the {len(work.items)} stickers could be used:{shown}")
    index = make_index(out, writer.files, settings)
    digest.update(index.digest())
    totals = count_up(out, writer.files, index)
    rejected += [Rejection(file=file, reason=f"near-duplicate of {kept}") for file, kept in totals.copies]
    index_name = INDEX.format(index.digest().hex()[:12])
    with _in_place(out / index_name) as stream:
        index.write(stream)
    manifest = Manifest(
        format=FORMAT,
        settings=settings.shaping(),
        files=writer.files,
        index=index_name,
        counts=totals.counts,
        sources=totals.sources,
        licenses=totals.licenses,
        groups=totals.groups,
        checks=totals.checks,
        fingerprint=digest.hexdigest()[:16],
        rejected=sorted(rejected, key=lambda rejection: (rejection.file, rejection.reason)),
        passed_over=found.passed_over,
    )
    faults.reach("prepare.before_ledger")
    _ledger_path(out, manifest).parent.mkdir(exist_ok=True)
    with _in_place(_ledger_path(out, manifest)) as stream:
        Ledger(ledger, reasons, about).write(stream)
    faults.reach("prepare.before_manifest")
    with _in_place(out / MANIFEST) as stream:
        stream.write(_text(manifest))
    faults.reach("prepare.after_manifest")
    return manifest


def _facts(work: _Work, past: _Past, journal: Journal, position: int) -> dict[str, Any] | str:
    """What is known about the frames of a sticker, with them; or the reason why it is not used."""
    place = int(work.entries["place"][position])
    if place >= 0:
        outcome = journal.outcome(place)
        return outcome.facts() if outcome.kind == Kind.USED else outcome.payload.decode()
    if work.entries["kind"][position] != Kind.USED:
        assert past.ledger is not None
        return past.ledger.reasons[UNKNOWN - 1 - place]
    file, row = past.place(int(work.frames[position]))
    return rows_of(file).slice(row, 1).select(FACTS.names).to_pylist()[0]


def _words(item: Item, content: bytes, settings: PrepareSettings) -> tuple[dict[str, Any], str]:
    """The columns of a row that need no frames, and what is wrong with the field ``style`` (empty: nothing)."""
    caption, complaint = item.caption, ""
    texts, checks = check_captions(caption.texts)
    languages = caption.attributes.get("languages", [])
    # A text that was cleaned may be another one's equal: then it is not known which language it is of.
    flippable = all(map(is_flippable, texts, languages if len(languages) == len(texts) else [""] * len(texts)))
    attributes = caption.attributes
    if settings.caption_style:
        try:
            style = style_of(attributes, settings.of_source(settings.styles, item.name))
        except ValueError as error:
            style, complaint = "", str(error)
        if style:
            texts, attributes = tuple(with_style(text, style) for text in texts), {**attributes, FIELD: style}
    return {
        "id": hashlib.sha256(content + texts[0].encode()).hexdigest()[:16],
        "caption": texts[0],
        "captions": list(texts),
        "attributes": json.dumps(attributes, sort_keys=True),
        "source": item.name,
        "license": caption.license or settings.of_source(settings.licenses, item.name),
        "caption_checks": list(checks),
        "asked_split": caption.split,
        "flippable": flippable,
    }, complaint


class _Writer:
    """Rows into numbered Arrow files, of which only the last unwritten one is held in memory.

    Each file has a hash of its rows in its name. One that is there already is not written again, so that what an
    earlier run and this one have in common at their beginnings stays as it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, int] = {}
        self._begin()

    def _begin(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._bytes, self._digest = 0, hashlib.sha256()

    def add(self, row: dict[str, Any], text: bytes) -> None:
        """Take a row; ``text`` is what is hashed of it."""
        self._rows.append(row)
        self._digest.update(text)
        self._bytes += len(row[FRAMES])
        if len(self._rows) >= ROWS_PER_FILE or self._bytes >= BYTES_PER_FILE:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if not self._rows:
            return
        name = f"stickers-{len(self.files):05d}-{self._digest.hexdigest()[:12]}.arrow"
        if not self._is_there(name):
            with _in_place(self.folder / name) as sink, pa.ipc.new_file(sink, SCHEMA) as stream:
                faults.reach("prepare.mid_file")
                stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
        self.files[name] = len(self._rows)
        self._begin()

    def _is_there(self, name: str) -> bool:
        try:
            with pa.memory_map(str(self.folder / name)) as source:
                return pa.ipc.open_file(source).get_batch(0).num_rows == len(self._rows)
        except (OSError, pa.ArrowException):
            return False


@contextlib.contextmanager
def _in_place(path: Path) -> Iterator[BinaryIO]:
    """Write a file that is there whole or not at all, whatever happens meanwhile."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync(path.parent)


def _text(manifest: Manifest) -> bytes:
    return (manifest.model_dump_json(indent=1) + "\n").encode()


def _ledger_path(out: Path, manifest: Manifest) -> Path:
    return out / CACHE / LEDGER.format(hashlib.sha256(_text(manifest)).hexdigest()[:16])


def _sweep(out: Path, building: Path, manifest: Manifest) -> None:
    """Remove what belonged to an earlier dataset here, or to a run that was stopped."""
    for file in [*out.glob("stickers-*.arrow*"), *out.glob(INDEX.format("*") + "*")]:
        if file.name not in {*manifest.files, manifest.index}:
            file.unlink()
    for file in (out / CACHE).glob(LEDGER.format("*")):
        if file != _ledger_path(out, manifest):
            file.unlink()
    (out / f"{MANIFEST}.partial").unlink(missing_ok=True)
    shutil.rmtree(building)
