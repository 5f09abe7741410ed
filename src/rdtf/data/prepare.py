"""Preparation of a dataset from sources of stickers, with a reason for every file that is left out.

A run has three parts: find the stickers, let workers process new stickers (decode them and describe their frames), and
write the rows. Each result goes into the store at once. The rows are written from the store in the order of the
stickers. So the same input gives the same bytes for any number of workers, and for runs that were stopped. The dataset
appears or changes when its manifest is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rdtf import faults
from rdtf.data.captions import Caption
from rdtf.data.dataset import (
    CACHE,
    FORMAT,
    FRAMES,
    MANIFEST,
    Manifest,
    Rejection,
    StickerDataset,
    is_dataset,
    read_manifest,
)
from rdtf.data.find import KNOWN, Found, find_items, source_labels
from rdtf.data.index import count_up, make_index
from rdtf.data.items import Item
from rdtf.data.process_file import Decoder, Kind, OneFile, code_versions, facts_of
from rdtf.data.ray_engine import run_ray
from rdtf.data.rows import RowWriter, readable_files, stored_facts, words_of
from rdtf.data.settings import PARTS, PrepareSettings
from rdtf.data.store import STORE, Store
from rdtf.data.workers import run_local
from rdtf.files import LOCK, atomic_file, disk_errors, folder_lock, mend
from rdtf.progress import bars, console
from rdtf.sticker import StickerError

INDEX = "index-{}.arrow"
_NO_CAPTION = Caption(("",))  # workers need no captions, which can be large
_CONSEQUENCES = {
    "frames": "all are read again",
    "rows": "no frames are needed for that",
    "limits": "what was stopped by it is tried again",
}
"""What a changed part of the settings means, by its name in :data:`~rdtf.data.settings.PARTS`."""


@dataclass(frozen=True)
class PrepareReport:
    """The result of :func:`prepare`.

    Attributes:
        folder: the dataset.
        manifest: the manifest of the dataset.
        seconds: wall-clock time.
        plan: a text about what was kept from an earlier run, and what was done.
    """

    folder: Path
    manifest: Manifest
    seconds: float
    plan: str

    @property
    def rejected(self) -> list[Rejection]:
        """Files that are not in the dataset, with the reasons."""
        return self.manifest.rejected

    def summary(self) -> str:
        """A few lines for the terminal."""
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

    Rows are in the order of the sources, then of the paths. Of stickers with equal frames (after scaling) only the
    first stays. The dataset appears atomically. Calling the function again continues a run that was stopped. With a
    finished dataset, only changed files are processed.

    Args:
        sources: folders and files, see :func:`~rdtf.data.find.find_items`. Links out of them are not followed.
        out: a new folder outside of the sources, or a dataset of the same sources.
        settings: settings; the defaults if None.
        overwrite: allow other settings or sources than those of the dataset at ``out``. Common results are kept. Only
            datasets are ever replaced.
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
    with disk_errors(out), _locked(out):
        manifest = _earlier(out, overwrite)
        there = "" if manifest is None else _hash((out / MANIFEST).read_bytes())
        with contextlib.closing(Store(out, about)) as store:
            made = store.about(there) or {}
            if manifest is not None and not overwrite:
                _check_same(out, manifest, made, settings, about)
            plan = _plan(store, found.items, out, made, about)
            console.print(f"{out}: {plan}", highlight=False, markup=False, soft_wrap=True)
            if manifest is None or store.todo() or store.about(there, finished=True) != about:
                _process(store, found.items, OneFile(decoder, settings))
                manifest = _put_together(store, out, found, settings)
            _sweep(out, manifest)
    return PrepareReport(out, manifest, time.monotonic() - started, plan)


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
    begun = MANIFEST in entries or (out / CACHE / STORE).is_file()
    if not begun and not entries <= {LOCK, f"{LOCK}.json", CACHE}:
        raise ValueError(f"{out} is not empty and holds no prepared dataset; choose another folder")


def _find(sources: Sequence[Path], captions: Sequence[str]) -> Found:
    together = Found()
    for source, label in zip(sources, source_labels(sources), strict=True):
        found = find_items(source, label, captions)
        if not found.items:
            reasons = "".join(f"; {problem.file}: {problem.reason}" for problem in found.problems[:3])
            raise ValueError(f"{source} holds no sticker (known endings: {', '.join(KNOWN)}){reasons}")
        together.items += found.items
        together.problems += found.problems
        together.passed_over += found.passed_over
    return together


def _about(sources: Sequence[Path], found: Found, settings: PrepareSettings) -> dict[str, Any]:
    """Everything that a dataset depends on, in the parts of :data:`~rdtf.data.settings.PARTS`, JSON-able."""
    parts = {name: settings.part(name) for name in PARTS if name != "running"}
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
        "frames": {**parts["frames"], **code_versions()},
        "rows": {**parts["rows"], "captions": words.hexdigest()},
        "sources": places.hexdigest()[:16],
    }


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Make the folder and lock it against other runs.

    The lock's file stays in the folder. Another run may wait for this file; if it were removed, that run would hold a
    lock that nobody else sees.
    """
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out, "this dataset"):
        try:
            yield
        except KeyboardInterrupt:
            console.print(f"{out}: what is done is kept; the same command goes on from here", soft_wrap=True)
            raise


def _earlier(out: Path, overwrite: bool) -> Manifest | None:
    """The manifest of the dataset at ``out``; None if there is none, or if it is damaged and may be replaced."""
    if not (out / MANIFEST).is_file():
        return None
    try:
        StickerDataset(out)
        return read_manifest(out)
    except ValueError as error:
        if not is_dataset(out):
            raise
        if not overwrite:
            raise ValueError(f"{error} with --overwrite") from None
        return None


def _check_same(
    out: Path, earlier: Manifest, made: Mapping[str, Any], settings: PrepareSettings, about: Mapping[str, Any]
) -> None:
    """Raise if this run has other sources or settings than the existing dataset."""
    # Settings that are newer than the dataset had their defaults.
    before, now = {**PrepareSettings().shaping(), **earlier.settings}, settings.shaping()
    changed = [f"{name} {before.get(name)!r} to {now[name]!r}" for name in now if before.get(name) != now[name]]
    if made.get("sources") != about["sources"]:
        changed.append("other sources, or not known which")
    if changed:
        raise ValueError(
            f"{out} holds another dataset ({', '.join(changed)}); choose another folder, or let it become this one "
            "by --overwrite: what the two have in common is not done again"
        )


def _plan(store: Store, items: Sequence[Item], out: Path, made: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Compare the stickers with the store; returns a text about what is kept and what will be done."""
    counts = store.take_items(((item.name, _stamp(item)) for item in items), readable_files(out))
    notes = [", ".join(f"{count:,} {name}" for name, count in counts.items() if count)]
    for part, consequence in _CONSEQUENCES.items():
        differs = [name for name in about[part] if made and made[part].get(name) != about[part][name]]
        if differs and not (differs == ["captions"] and (counts["new or changed"] or counts["gone"])):
            notes.append(f"{', '.join(differs)} changed: {consequence}")
    return "; ".join(notes)


def _stamp(item: Item) -> str:
    try:
        return item.stamp()
    except StickerError:  # the file is gone; its worker will report it
        return ""


def _process(store: Store, items: Sequence[Item], one_file: OneFile) -> None:
    """Let workers process items, and store each result at once."""

    def item_of(position: int) -> Item:
        return replace(items[position], caption=_NO_CAPTION)

    engine = run_ray if one_file.settings.engine == "ray" else run_local
    with bars() as progress:
        while todo := store.todo():  # again if the original of a duplicate fails now
            task = progress.add_task("preparing", total=len(todo), note="")
            refused = 0
            with contextlib.closing(engine(todo, item_of, one_file, one_file.settings.workers)) as results:
                for position, result in results:
                    store.add(position, result)
                    refused += result.kind != Kind.USED
                    progress.update(task, advance=1, note=f"{refused} rejected")


def _put_together(store: Store, out: Path, found: Found, settings: PrepareSettings) -> Manifest:
    """Write the rows of all used stickers in order, then the manifest."""
    rejected = list(found.problems)
    used, others = array("q"), array("q")  # ids of results with a row (in the order of the rows), and without
    writer, digest = RowWriter(out), hashlib.sha256()
    for position, (item, known) in enumerate(zip(found.items, store.known(), strict=True)):
        result, content, owner, file, stored = known
        if owner != position:
            others.append(result)
            reason = store.payload(result).decode() if owner is None else f"duplicate of {found.items[owner].name}"
            rejected.append(Rejection(file=item.name, reason=reason))
            continue
        used.append(result)
        facts = facts_of(store.payload(result)) if file is None or stored is None else stored_facts(out / file, stored)
        words, complaint = words_of(item, content, settings)
        if complaint:
            rejected.append(Rejection(file=item.name, reason=complaint))
        row = {**facts, **words}
        # Everything except frames, which the id stands for. Caches of anything in a row may rely on the digest.
        text = json.dumps({**row, FRAMES: None, "content": None, "signature": None}, sort_keys=True).encode()
        digest.update(text)
        writer.add(row, text)
    writer.flush()
    if not writer.files:
        shown = "".join(f"\n  {rejection.file}: {rejection.reason}" for rejection in rejected[:5])
        raise ValueError(f"none of the {len(found.items)} stickers could be used:{shown}")
    index = make_index(out, writer.files, settings)
    digest.update(index.digest())
    totals, copies = count_up(out, writer.files, index)
    rejected += [Rejection(file=file, reason=f"near-duplicate of {kept}") for file, kept in copies]
    index_name = INDEX.format(index.digest().hex()[:12])
    with atomic_file(out / index_name) as stream:
        index.write(stream)
    manifest = Manifest(
        format=FORMAT,
        settings=settings.shaping(),
        files=writer.files,
        index=index_name,
        fingerprint=digest.hexdigest()[:16],
        rejected=sorted(rejected, key=lambda rejection: (rejection.file, rejection.reason)),
        passed_over=found.passed_over,
        **totals,
    )
    text = _text(manifest)
    store.announce(_hash(text))
    faults.reach("prepare.before_manifest")
    with atomic_file(out / MANIFEST) as stream:
        stream.write(text)
    faults.reach("prepare.after_manifest")
    store.finish(_hash(text), _places(used, others, writer.files))
    return manifest


def _places(
    used: Iterable[int], others: Iterable[int], files: Mapping[str, int]
) -> Iterator[tuple[int, str | None, int | None]]:
    """The Arrow file and the row of each result's frames, for :meth:`Store.finish`."""
    places = ((file, row) for file, count in files.items() for row in range(count))
    yield from ((result, *place) for result, place in zip(used, places, strict=True))
    yield from ((result, None, None) for result in others)


def _text(manifest: Manifest) -> bytes:
    return (manifest.model_dump_json(indent=1) + "\n").encode()


def _hash(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:16]


def _sweep(out: Path, manifest: Manifest) -> None:
    """Remove files of an earlier dataset or of a run that was stopped."""
    for file in [*out.glob("stickers-*.arrow"), *out.glob(INDEX.format("*"))]:
        if file.name not in {*manifest.files, manifest.index}:
            file.unlink()
    mend(out, MANIFEST)
