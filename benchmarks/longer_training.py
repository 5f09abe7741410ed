"""What a comparison's reference reaches with more compute: ``python benchmarks/longer_training.py FOLDER``.

The comparison gives every method the same compute and counts nothing for the base that the tuned ones start from.
Here the reference trains for several times its steps on the same stickers and is measured on the same clips; beside it
stand the finished comparison's figures, and all compute, the base's too. Interrupted, it goes on. Ends in a JSON line.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from rich.table import Table

from rdtf.compare.place import BASE, Place
from rdtf.compare.run import check_folder
from rdtf.compare.suites import MEASURES, SUITES
from rdtf.compare.work import work
from rdtf.progress import console

SHOWN = ("it2v.fd", "it2v.mmd", "it2v.body", "it2v.action", "t2v.mmd", "t2v.body", "t2v.action", "interpolation.psnr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("comparison"), help="of a finished comparison")
    parser.add_argument("--times", type=int, default=5, help="of the reference's steps")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--judge", default="builtin", help="that of the comparison")
    arguments = parser.parse_args()
    folder = arguments.folder
    if not (folder / "results.json").is_file():
        console.print(f"{folder} holds no finished comparison; make one: rdtf compare --suite small -o {folder}")
        return
    about = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))["results"]
    suite = SUITES[about["suite"]]
    data = Path(about["data"]["folder"]) if about["data"] else None
    check_folder(folder, suite, data, arguments.judge)  # figures of other settings or judges do not compare
    whole = Place(folder, data or folder / "target", data or folder / "judged", arguments.judge)
    place = replace(whole, out=folder / f"longer-{arguments.times}")
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))["flop"]
    longer = replace(suite, steps=suite.steps * arguments.times)
    found = []
    for seed in suite.seeds[: arguments.seeds]:
        if not work(longer, place, suite.reference, seed, reference):
            raise SystemExit("stopped after saving; the same command goes on")
        found.append(json.loads((place.run(suite.reference, seed) / "result.json").read_text(encoding="utf-8")))

    costs = json.loads((whole.run(BASE, 0) / "cost.json").read_text(encoding="utf-8"))
    brought = costs["flop"] * costs["steps"] / 1e12
    rows = {
        suite.variants[name].title: (list(seeds.values()), brought if suite.variants[name].tune else 0.0)
        for name, seeds in results.items()
        if name == suite.reference or suite.variants[name].tune
    }
    rows[f"{suite.variants[suite.reference].title}, {longer.steps} steps"] = (found, 0.0)
    shown = [name for name in SHOWN if all(name in run for runs, _ in rows.values() for run in runs)]
    table = Table("", "seeds", "TFLOP, base and all", *(MEASURES[name] for name in shown))
    line = {}
    for title, (runs, before) in rows.items():
        spent = before + 1e3 * fmean(run["cost.petaflop"] for run in runs)
        figures = {name: fmean(run[name] for run in runs) for name in shown}
        table.add_row(title, str(len(runs)), f"{spent:.1f}", *(f"{figure:.1f}" for figure in figures.values()))
        line[title] = {"tflop": round(spent, 2), **{name: round(figure, 3) for name, figure in figures.items()}}
    console.print(table)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
