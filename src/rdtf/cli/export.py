"""Commands that make files for messengers: export, check, pack."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdtf.cli.common import say
from rdtf.progress import bars

if TYPE_CHECKING:
    from rdtf.export.batch import Source
    from rdtf.export.search import Export

To = Annotated[list[str], typer.Option("--to", help="telegram, whatsapp, line, ... or a JSON file; again for more.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Draws generated stickers anew where they are too small; default: by their notes."
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")]


def _export(
    sources: list[Source], targets: list[str], workers: int | None, max_bytes: int | None, model: str | None
) -> dict[tuple[str, Source], Export | str]:
    from rdtf.export.batch import export_all
    from rdtf.export.larger import loader, with_larger
    from rdtf.export.target import load_target

    made: dict[tuple[str, str], Export | str] = {}
    rules, load = [load_target(target) for target in targets], loader(model)
    with bars() as progress, tempfile.TemporaryDirectory() as folder:
        task = progress.add_task("Exporting", total=len(sources) * (1 + len(targets)), note="")
        drawn = []
        for source in sources:
            progress.update(task, note=source.name)
            drawn.append(with_larger(source, rules, Path(folder), load))
            progress.update(task, advance=1)
        for source, target, result in export_all(drawn, targets, workers, max_bytes):
            made[target, source.name] = result
            progress.update(task, advance=1, note=f"{source.name} for {target}")
    return {(target, source): made[target, source.name] for target in targets for source in sources}


def export(
    stickers: Annotated[list[Path], typer.Argument(help="Sticker files, or folders of them.")],
    to: To,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; each target gets a folder in it.")] = Path("export"),
    max_bytes: Annotated[int | None, typer.Option(min=1000, help="A lower limit than the target's.")] = None,
    model: Model = None,
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of the same names.")] = False,
    no_metadata: Annotated[bool, typer.Option("--no-metadata", help="Leave out how the sticker was made.")] = False,
) -> None:
    """Make files that messengers accept: the best quality below each one's limits, at the sticker's own speed.

    Exit code 1: some stickers cannot be made to fit; the lines say why.
    """
    from rdtf.export.batch import find_sources
    from rdtf.export.target import load_target
    from rdtf.files import atomic_file, write_text

    suffixes = {target: load_target(target).suffix for target in to}
    sources = [replace(source, keep_note=not no_metadata) for source in find_sources(stickers)]
    files = {(t, s): out / Path(t).stem / f"{s.name}{suffix}" for t, suffix in suffixes.items() for s in sources}
    for (_, source), file in files.items():
        if file.exists() and (not overwrite or file.samefile(source.path)):
            raise ValueError(f"{file} is there already; choose another folder with -o, or add --overwrite")
    report, failed = [], 0
    for (target, source), result in _export(sources, list(suffixes), workers, max_bytes, model).items():
        facts: dict[str, Any] = {"source": str(source.path), "target": target}
        if isinstance(result, str):
            failed += 1
            say(f"{source.path} for {target}: {result}")
            report.append({**facts, "reason": result})
            continue
        file = files[target, source]
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as stream:
            stream.write(result.data)
        changes = "".join(f"; {change}" for change in result.changes)
        say(f"Wrote {file}: {len(result.data):,} bytes, {result.frames} frames, {result.quality}{changes}")
        report.append({**facts, "file": str(file.relative_to(out)), **result.facts()})
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "export.json", json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    if failed:
        raise typer.Exit(1)


def check(
    files: Annotated[list[Path], typer.Argument(help="Sticker files.")],
    target: Annotated[str, typer.Option("--for", help="telegram, whatsapp, line, ... or a JSON file.")],
) -> None:
    """Say why a messenger would refuse a file. Exit code 1: at least one would be refused."""
    from rdtf.export.check import problems_of
    from rdtf.export.target import load_target
    from rdtf.io.read import load_file
    from rdtf.io.wall import read_bytes
    from rdtf.sticker import StickerError

    rules, refused = load_target(target), 0
    for file in files:
        data = load_file(file)
        try:
            read_bytes(data, file)  # behind the wall first; what comes through is decoded here once more
            problems = problems_of(data, rules, str(file))
        except StickerError as error:
            problems = [f"It cannot be read: {error.reason}"]
        refused += bool(problems)
        say(f"{file}: {' '.join(problems) or f'keeps every rule of a {rules.title} (read {rules.checked_on})'}")
    if refused:
        raise typer.Exit(1)


def pack(
    folder: Annotated[Path, typer.Argument(help="Folder of stickers; captions and emoji come from its metadata.")],
    to: Annotated[str, typer.Option("--to", help="telegram, whatsapp, signal, line, ...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New or empty folder.")] = Path("packs"),
    name: Annotated[str, typer.Option(help="The pack's name.")] = "My stickers",
    author: Annotated[str, typer.Option(help="Who made it.")] = "RDTF",
    model: Model = None,
    workers: Workers = None,
) -> None:
    """Make sticker packs: files, emoji, texts, and the pictures that a messenger asks for beside them."""
    from rdtf.export.batch import find_sources
    from rdtf.export.pack import check_texts, write_packs
    from rdtf.export.target import load_target
    from rdtf.files import check_new_folder

    target = load_target(to)
    check_texts(target, name, author)
    check_new_folder(out)
    made = _export(find_sources([folder]), [to], workers, None, model)
    results = [(source, result) for (_, source), result in made.items()]
    report = write_packs(results, target, to, out, name=name, author=author)
    for sticker, reason in report.left_out.items():
        say(f"Left out {sticker}: {reason}")
    for pack in report.packs:
        say(f"Wrote {pack}")
