"""Stickers for all captions of a file, into one folder; stopped at any moment, the same call goes on.

Each file's note says how its sticker was made, so a later call knows what is there. Nothing is written over: a file of
another caption, seed, setting or model is an error. At the end the folder's manifest gets a line for each sticker.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rdtf.files import atomic_file, folder_lock
from rdtf.hub import SHIPPED
from rdtf.io.write import check_target, save_sticker
from rdtf.loading import load_pipeline
from rdtf.making import make, understand
from rdtf.pipeline import StickerPipeline
from rdtf.provenance import Call, Made, described, fingerprint, note_of_call, read_made
from rdtf.ray_cluster import CALLS_AHEAD, ray_cluster

MANIFEST = "manifest.jsonl"
ENGINES = ("local", "ray")
ENDINGS = (".webp", ".png", ".apng", ".gif")
_SOURCES = (".csv", ".jsonl", ".txt")
_NAME = r"^[^/\\:*?\"<>|\x00-\x1f]{1,200}$"  # no folders, and nothing that a system refuses


class Row(BaseModel):
    """A row of the file of captions.

    Attributes:
        caption: what to show, in words.
        name: of the sticker's file, without ending; by default the row's number with six digits.
        seed: by default the call's seed plus the row's number from 0.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    caption: str = Field(min_length=1, max_length=10_000)
    name: str | None = Field(None, pattern=_NAME)
    seed: int | None = None


@dataclass(frozen=True)
class Entry:
    """A sticker, and its line in the manifest.

    Attributes:
        row: counts from 0.
        caption: of the row. made: the caption that the model was asked for, if that is another one.
        motion, colour: settings that other words of the caption stand for.
    """

    row: int
    file: str
    caption: str
    seed: int
    made: str | None = None
    motion: str | None = None
    colour: str | None = None

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those that were given, with the words of the caption where nothing was given."""
        return {"motion": self.motion, "colour": self.colour, **given}


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        made: stickers made by this call. kept: stickers that were there already.
        unknown: rows with captions that the model does not know.
    """

    made: int
    kept: int
    unknown: int = 0


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, one after the other.

    Args:
        path: ``.csv`` whose first line names the column ``caption`` and perhaps ``name`` and ``seed``, ``.jsonl`` with
            these keys, or ``.txt`` with one caption a line. UTF-8. Empty lines are skipped.

    Raises:
        ValueError: another ending, no such file, or a row that is not as it should be; the text names the row.
    """
    ending = path.suffix.lower()
    if ending not in _SOURCES:
        raise ValueError(f"{path}: captions are read from {', '.join(_SOURCES)}")
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = (text for line in file if (text := line.strip()))
            rows: Iterable[Any] = ({"caption": line} for line in lines)
            if ending == ".csv":
                rows = (row for row in csv.DictReader(file, skipinitialspace=True) if any(row.values()))
            elif ending == ".jsonl":
                rows = map(json.loads, lines)
            for number, row in enumerate(rows, 1):  # noqa: B007 (it is told in the errors below)
                given = {key: row[key] for key in row if row[key] not in (None, "")} if isinstance(row, dict) else row
                yield Row.model_validate(given)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 (near row {number + 1}); save it as UTF-8") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}, row {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (csv.Error, json.JSONDecodeError) as error:
        raise ValueError(f"{path}, row {number + 1} cannot be read ({error})") from None


def generate_many(
    source: Path,
    out: Path,
    model: str,
    settings: Mapping[str, Any],
    *,
    ending: str = ".webp",
    strict: bool = False,
    engine: str = "local",
    workers: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Make a sticker for each row of a file.

    Args:
        source: see :func:`read_rows`. All rows are checked before a sticker is made.
        out: the folder, new or one that this function has begun.
        model: folder of the model.
        settings: arguments of the pipeline but for the caption; ``seed`` is that of row 0.
        ending: of the files.
        strict: refuse captions that the model does not know; otherwise it makes the nearest that it knows.
        engine: ``local``, or ``ray`` for a Ray cluster.
        workers: with ``ray``, generators at a time; by default and at most one on each GPU, or else on each core.
        advance: called with the rows that are done, and with their number.

    Raises:
        ValueError: a row is bad, two rows have one name, or with ``strict`` the model does not know a caption; all this
            before the first sticker is made. Or a row's file is there and was made otherwise.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; one of {', '.join(ENGINES)}")
    if ending not in ENDINGS:
        raise ValueError(f"{ending!r}: stickers are written as {', '.join(ENDINGS)}")
    check_target(out / f"0{ending}", [source, model])
    given = {key: value for key, value in settings.items() if key != "seed" and value is not None}
    here = _Generator(model, out, given)
    entries, unknown = _entries(source, here.pipeline, int(settings.get("seed") or 0), ending, strict)
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out, "the folder"):
        missing = [entry for entry in entries if not here.is_made(entry)]
        batches = _batches(missing, given.get("batch_size") or here.pipeline.default_batch_size)
        done = kept = len(entries) - len(missing)
        for batch in map(here.make, batches) if engine == "local" else _run_ray(here, batches, workers):
            done += len(batch)
            advance(done, len(entries))
        with atomic_file(out / MANIFEST) as file:
            file.writelines(f"{json.dumps(asdict(entry), ensure_ascii=False)}\n".encode() for entry in entries)
    return Outcome(len(missing), kept, unknown)


def _entries(source: Path, pipeline: StickerPipeline, seed: int, ending: str, strict: bool) -> tuple[list[Entry], int]:
    """An entry for each row, and the number of rows with captions that the model does not know."""
    entries: dict[str, Entry] = {}
    unknown = 0
    for number, row in enumerate(read_rows(source)):
        fit, words = understand(pipeline, row.caption)
        if strict and fit.note:
            raise ValueError(f"{source}, row {number + 1}: {fit.note}")
        unknown += bool(fit.note)
        name = row.name or f"{number + 1:06}"
        if name.casefold() in entries:
            raise ValueError(f"{source}: two rows have the name {name.casefold()!r}; each needs one of its own")
        changed = None if fit.caption == row.caption else fit.caption
        own_seed = seed + number if row.seed is None else row.seed
        entries[name.casefold()] = Entry(number, f"{name}{ending}", row.caption, own_seed, changed, **words)
    if not entries:
        raise ValueError(f"{source} holds no captions")
    return list(entries.values()), unknown


def _batches(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    """Entries for one call of the pipeline each: at most ``size``, with seeds that count up and equal settings."""
    waiting: list[Entry] = []
    for entry in entries:
        if waiting and (
            len(waiting) == size or waiting[-1].seed + 1 != entry.seed or waiting[-1].settings({}) != entry.settings({})
        ):
            yield waiting
            waiting = []
        waiting.append(entry)
    if waiting:
        yield waiting


class _Generator:
    """Makes stickers and writes their files. With the engine ray, each actor has one."""

    def __init__(self, model: str, out: Path, settings: Mapping[str, Any], weights: str | None = None) -> None:
        self.model, self.out, self.settings = model, out, settings
        self.pipeline = load_pipeline(model)
        self.weights = fingerprint(self.pipeline)
        if weights not in (None, self.weights):
            raise ValueError(f"{model} is another model on this machine; all machines need the same one")

    def _note(self, entry: Entry) -> Made:
        settings = {**entry.settings(self.settings), "seed": entry.seed}
        call = Call("generate", self.model, entry.made or entry.caption, settings)
        return note_of_call(self.pipeline, call, self.weights)

    def is_made(self, entry: Entry) -> bool:
        """Whether a sticker is there.

        Raises:
            ValueError: its file is there, and was made otherwise.
        """
        path = self.out / entry.file
        if not path.exists():
            return False
        wanted, found = (made.compared() for made in (self._note(entry), read_made(path)))
        if different := [key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)]:
            key = min(different)
            raise ValueError(
                f"{path} is there and was made otherwise: {key} was {found.get(key)!r}, now {wanted.get(key)!r}; "
                "choose another folder"
            )
        return True

    def make(self, entries: list[Entry]) -> list[Entry]:
        """Write the stickers of a batch."""
        captions = [entry.made or entry.caption for entry in entries]
        drawn = make(self.pipeline, captions, seed=entries[0].seed, **entries[0].settings(self.settings))
        for entry, sticker in zip(entries, drawn, strict=True):
            [noted] = described([sticker], self._note(entry))
            save_sticker(noted, self.out / entry.file)
        return entries


def _run_ray(here: _Generator, batches: Iterator[list[Entry]], workers: int | None) -> Iterator[list[Entry]]:
    """Make the batches on a Ray cluster, see :func:`rdtf.ray_cluster.ray_cluster`. They end in any order.

    All machines need this package, the model and the output folder under the same paths. A cluster with GPUs has a
    generator on each; otherwise on each core.
    """
    with ray_cluster(workers) as ray:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        places = gpus or int(resources["CPU"])
        actor = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_Generator)
        is_folder = here.model != SHIPPED and Path(here.model).exists()  # actors have another current folder
        model = str(Path(here.model).resolve()) if is_folder else here.model
        count = min(workers or places, places)  # an actor without a core or GPU never starts
        actors = [actor.remote(model, here.out.resolve(), here.settings, here.weights) for _ in range(count)]
        running: dict[Any, Any] = {}
        try:
            for holder in actors:
                for batch in islice(batches, CALLS_AHEAD):
                    running[holder.make.remote(batch)] = holder
            while running:
                (first,), _ = ray.wait(list(running), num_returns=1)
                holder = running.pop(first)
                yield ray.get(first)
                if batch := next(batches, []):
                    running[holder.make.remote(batch)] = holder
        finally:
            for holder in actors:
                ray.kill(holder)
