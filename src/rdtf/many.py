"""Stickers for all captions of a file, into one folder; stopped at any moment, the same call goes on.

The folder's manifest has a line for each sticker. Nothing is written over: a row whose caption or seed changed since
its sticker was made is an error, and so are other settings or another model.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rdtf import __version__
from rdtf.files import folder_lock, write_text
from rdtf.hub import SHIPPED
from rdtf.io.write import check_target, save_sticker
from rdtf.loading import load_pipeline
from rdtf.provenance import described, fingerprint
from rdtf.ray_cluster import CALLS_AHEAD, ray_cluster

MANIFEST = "manifest.jsonl"
ENGINES = ("local", "ray")
ENDINGS = (".webp", ".png", ".apng", ".gif")
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


class Entry(BaseModel):
    """A line of the manifest: a sticker that was made.

    Attributes:
        row: counts from 0.
        caption: of the row. made: the caption that the model was asked for, if that is another one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    row: int
    file: str
    caption: str
    seed: int
    made: str | None = None


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
        ValueError: another ending, no such file, or a row that is not as it should be; the text names the line.
    """
    ending = path.suffix.lower()
    readers: dict[str, Callable[[Any], Iterator[tuple[int, Mapping[str, Any]]]]] = {
        ".csv": _csv_rows,
        ".jsonl": _json_rows,
        ".txt": lambda file: ((n, {"caption": text}) for n, line in enumerate(file, 1) if (text := line.strip())),
    }
    if ending not in readers:
        raise ValueError(f"{path}: captions are read from {', '.join(readers)}")
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, values in readers[ending](file):  # noqa: B007 (it is told in the errors below)
                yield Row.model_validate({key: value for key, value in values.items() if value not in (None, "")})
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 (near line {line + 1}); save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path}, line {line + 1}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = first["loc"][0] if first["loc"] else "row"
        raise ValueError(f"{path}, line {line}: {field}: {first['msg']}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {line + 1} is not JSON ({error.msg})") from None


def _csv_rows(file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(file, skipinitialspace=True)
    if "caption" not in (reader.fieldnames or ()):
        raise csv.Error("the first line must name the columns, one of them 'caption'")
    for values in reader:
        if any(value for key, value in values.items() if key):
            yield reader.line_num, values


def _json_rows(file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            values = json.loads(line)
            yield number, values if isinstance(values, dict) else {}


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
        source: see :func:`read_rows`. It is read twice: all rows are checked before the first sticker is made.
        out: the folder; new, empty, or one that this function has begun.
        model: folder of the model.
        settings: arguments of the pipeline but for the caption; ``seed`` is that of row 0.
        ending: of the files.
        strict: refuse captions that the model does not know; otherwise it makes the nearest that it knows.
        engine: ``local``, or ``ray`` for a Ray cluster.
        workers: with ``ray``, generators at a time; None for one on each GPU, or without GPUs on each core.
        advance: called with the rows that are done, and with their number.

    Raises:
        ValueError: a row is bad, two rows have one name, or with ``strict`` the model does not know a caption; all this
            before the first sticker is made. Or the folder holds other things, or stickers of another model, of other
            settings or of other captions.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; one of {', '.join(ENGINES)}")
    if ending not in ENDINGS:
        raise ValueError(f"{ending!r}: stickers are written as {', '.join(ENDINGS)}")
    check_target(out / f"0{ending}", [source, model])
    base = int(settings.get("seed") or 0)
    names: set[str] = set()
    total = 0
    for number, row in enumerate(read_rows(source)):
        name = _file(row, number, "").casefold()
        if name in names:
            raise ValueError(f"{source}: two rows have the name {name!r}; each needs one of its own")
        names.add(name)
        total += 1
    del names
    if not total:
        raise ValueError(f"{source} holds no captions")
    others = {name: value for name, value in settings.items() if value is not None and name != "seed"}
    here = _Generator(model, out, others)
    pipeline = here.pipeline
    head: dict[str, Any] = {"rdtf": __version__, "model": here.weights, "seed": base, "settings": others}
    together = settings.get("batch_size") or pipeline.default_batch_size
    if strict:
        for number, row in enumerate(read_rows(source)):
            try:
                pipeline.fit(row.caption, strict=True)
            except ValueError as error:
                raise ValueError(f"{source}, row {number + 1}: {error}") from None
    kept = made = unknown = 0
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out, "the folder"):
        done = _begun(out, head)

        def batches() -> Iterator[list[Entry]]:
            """The stickers to make, in batches for a call of the pipeline: their seeds count up."""
            nonlocal kept, unknown
            waiting: list[Entry] = []
            for number, row in enumerate(read_rows(source)):
                seed = base + number if row.seed is None else row.seed
                fit = pipeline.fit(row.caption)
                unknown += bool(fit.note)
                asked = None if fit.caption == row.caption else fit.caption
                entry = Entry(row=number, file=_file(row, number, ending), caption=row.caption, seed=seed, made=asked)
                if (before := done.get(number, entry)) != entry:
                    raise ValueError(
                        f"{out}: row {number + 1} was made as {before.file} from {before.caption!r} with seed "
                        f"{before.seed}, and {source} has another there; choose another folder"
                    )
                if number in done and (out / entry.file).is_file():
                    kept += 1
                    continue
                if waiting and (len(waiting) == together or waiting[-1].seed + 1 != seed):
                    yield waiting
                    waiting = []
                waiting.append(entry)
            if waiting:
                yield waiting

        with (out / MANIFEST).open("a", encoding="utf-8") as manifest:
            done_batches = map(here.make, batches()) if engine == "local" else _run_ray(here, batches(), workers)
            for entries in done_batches:
                for entry in entries:
                    if entry.row not in done:
                        manifest.write(entry.model_dump_json() + "\n")
                        manifest.flush()
                made += len(entries)
                advance(made + kept, total)
    return Outcome(made, kept, unknown)


class _Generator:
    """Makes stickers and writes their files. With the engine ray, each actor has one."""

    def __init__(self, model: str, out: Path, settings: Mapping[str, Any], weights: str | None = None) -> None:
        self.model, self.out, self.settings = model, out, settings
        self.pipeline = load_pipeline(model)
        self.weights = fingerprint(self.pipeline)
        if weights not in (None, self.weights):
            raise ValueError(f"{model} is another model on this machine; all machines need the same one")

    def make(self, entries: list[Entry]) -> list[Entry]:
        """Write the stickers of a batch."""
        captions = [entry.made or entry.caption for entry in entries]
        drawn = self.pipeline(captions, seed=entries[0].seed, **self.settings).stickers
        for entry, sticker in zip(entries, drawn, strict=True):
            used = {**self.settings, "seed": entry.seed}
            [noted] = described(
                [sticker], self.pipeline, task="generate", model=self.model, settings=used, weights=self.weights
            )
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
        actor = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_Generator)
        is_folder = here.model != SHIPPED and Path(here.model).exists()  # actors have another current folder
        model = str(Path(here.model).resolve()) if is_folder else here.model
        count = workers or gpus or int(resources["CPU"])
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


def _file(row: Row, number: int, ending: str) -> str:
    return f"{row.name or f'{number + 1:06}'}{ending}"


def _begun(out: Path, head: dict[str, Any]) -> dict[int, Entry]:
    """What the folder's manifest says was made, by row. A folder without one gets one.

    Raises:
        ValueError: the folder holds other things, or was begun otherwise.
    """
    path = out / MANIFEST
    if not path.exists():
        if strange := sorted(entry.name for entry in out.iterdir() if not entry.name.startswith(".lock")):
            raise ValueError(f"{out} holds other things ({strange[0]}); choose a new folder")
        write_text(path, json.dumps(head) + "\n")
        return {}
    whole, _, torn = path.read_text(encoding="utf-8").rpartition("\n")
    lines = whole.split("\n")
    try:
        begun = json.loads(lines[0])
        entries = [Entry.model_validate_json(line) for line in lines[1:]]
    except (json.JSONDecodeError, ValidationError, IndexError):
        raise ValueError(f"{path} is damaged; choose a new folder") from None
    for key, what in (("model", "another model"), ("seed", "another seed"), ("settings", "other settings")):
        if begun.get(key) != head[key]:
            raise ValueError(f"{out} was begun with {what} ({begun.get(key)}, now {head[key]}); choose another folder")
    if torn:  # the last line was not written to its end
        write_text(path, whole + "\n")
    return {entry.row: entry for entry in entries}
