"""Does FD-sticker rise with every damage? ``python benchmarks/judge_proof.py [--real DATA] [--out DIR]``.

On stickers of the built-in world that no judge was trained on: the distance between one half and the other, whole and
damaged ever more; with a randomly initialised network as a cross-check; the floor of real against real; text agreement
under wrong captions. With ``--real``, a prepared dataset: the distance between its stickers and the same stickers
damaged. ``--out`` also gets pictures of the damages and a JSON file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from train_judge import DAMAGES, HELD_OUT_SEED, LEARNED_DAMAGES, damaged, drawn_clips

from rdtf.data.dataset import StickerDataset
from rdtf.evaluate.judge import Judge, agreement, load_judge
from rdtf.evaluate.sets import frechet_distance, unbiased_mmd
from rdtf.progress import console
from rdtf.sheets import contact_sheet
from rdtf.world import FULL

PROOF_SEED = HELD_OUT_SEED + 2
FRAMES = 8
LEVELS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
SHARES = LEVELS


def random_judge(like: Judge, clips: Sequence[np.ndarray], seed: int = 0) -> Judge:
    """The same network with random weights, its features normalised over clips."""
    torch.manual_seed(seed)
    other = Judge(like.config).eval().requires_grad_(False)
    for parameter in other.parameters():
        if parameter.ndim > 1:  # fresh residual layers end in zeros
            torch.nn.init.kaiming_normal_(parameter)
    features = torch.from_numpy(other.features(clips))
    other.mean.copy_(features.mean(0))
    other.deviation.copy_(features.std(0))
    return other


def distances(features: Callable[[Sequence[np.ndarray]], np.ndarray], sets: Sequence[Any], real: np.ndarray) -> Any:
    """Frechet distance and MMD of each set of clips to real features."""
    made = [features(clips) for clips in sets]
    return [frechet_distance(real, m) for m in made], [unbiased_mmd(real, m).value for m in made]


def rising(values: Sequence[float]) -> bool:
    return all(b > a for a, b in pairwise(values))


def dropped(
    attributes: Sequence[dict[str, Any]], key: str, names: Sequence[str], count: int, keep: float
) -> np.ndarray:
    """``keep * count`` places at random of clips whose attribute is among the first part of the names, or of all."""
    kept = set(names[: max(1, round(keep * len(names)))])
    places = [i for i, a in enumerate(attributes) if a[key] in kept]
    return np.array(places)[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", default="builtin")
    parser.add_argument("--count", type=int, default=1000, help="clips in each set")
    parser.add_argument("--real", type=Path, help="a prepared dataset")
    parser.add_argument("--out", type=Path, help="folder for pictures and JSON")
    parser.add_argument("--threads", type=int, default=1)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)

    judge = load_judge(settings.judge)
    n = settings.count
    clips, attributes = drawn_clips(4 * n, PROOF_SEED)
    reference, probe, told, rest = clips[:n], clips[n : 2 * n], attributes[n : 2 * n], attributes[n:]
    stranger = random_judge(judge, reference)
    result: dict[str, Any] = {"judge": judge.digest, "count": n, "frames": FRAMES, "levels": LEVELS}
    eyes = {"judge": judge.features, "random": stranger.features}
    homes = {name: see(reference) for name, see in eyes.items()}

    for kind in DAMAGES:
        sets = [damaged(probe, kind, level) for level in LEVELS]
        for name, see in eyes.items():
            result[f"{kind}/{name}"] = distances(see, sets, homes[name])

    # Class mix: the reference is one half of the bodies; ever more clips show the other half.
    pools = {name: see(clips[n:]) for name, see in eyes.items()}
    for name in eyes:
        pool = pools[name]
        first = np.array([a["body"] in FULL["body"][: len(FULL["body"]) // 2] for a in rest])
        ours, others = np.flatnonzero(first), np.flatnonzero(~first)
        half = min(len(ours) // 2, len(others))
        sets = [np.concatenate([ours[half : half + round((1 - s) * half)], others[: round(s * half)]]) for s in SHARES]
        result[f"other bodies/{name}"] = distances(lambda places, pool=pool: pool[places], sets, pool[ours[:half]])
        for key, names in (("body", FULL["body"]), ("colour", FULL["colour"]), ("action", FULL["action"])):
            sets = [dropped(rest, key, names, n // 2, 1 - s) for s in SHARES]
            result[f"drop {key}/{name}"] = distances(lambda places, pool=pool: pool[places], sets, homes[name])

    # Wrong captions: a share of the clips is held against the attributes of the next clip.
    wrong = []
    for share in SHARES:
        asked = list(told)
        count = round(share * n)
        asked[:count] = [*told[1:count], told[0]] if count else []
        wrong.append({key: a.value for key, a in agreement(judge, probe, asked).items()})
    result["wrong captions"] = wrong

    # Floor: real against real at several N.
    home, away = homes["judge"], pools["judge"]
    sizes = [k for k in (2 * judge.config.features, 160, 320, 640, 1000, 2000) if k <= min(n, len(away) - n)]
    result["floor"] = {str(k): frechet_distance(home[:k], away[-k:]) for k in sizes}
    mmd = unbiased_mmd(home, away[-n:])
    result["floor mmd"] = [mmd.value, mmd.low, mmd.high]

    if settings.real:
        real = []
        for split in ("train", "val", "test"):
            dataset = StickerDataset(settings.real, split)
            for i in range(len(dataset)):
                count = dataset.record(i).num_frames
                if count >= FRAMES:
                    real.append(dataset.frames(i)[np.arange(FRAMES) * count // FRAMES])
        result["real clips"] = len(real)
        for name, see in eyes.items():
            home = see(real)
            for kind in DAMAGES:
                sets = [damaged(real, kind, level) for level in LEVELS]
                result[f"{kind}/{name}, real"] = distances(see, sets, home)

    show(result)
    if settings.out:
        settings.out.mkdir(parents=True, exist_ok=True)
        (settings.out / "judge_proof.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        rows = [(kind, level) for kind in DAMAGES for level in (0.25, 1.0)]
        subjects = {"drawn": probe[0], **({"real": real[0]} if settings.real else {})}
        for name, clip in subjects.items():
            pictures = [clip, *(damaged([clip], kind, level)[0] for kind, level in rows)]
            labels = ["whole", *(f"{kind} {level}" for kind, level in rows)]
            contact_sheet(pictures, labels=labels, frames=FRAMES).save(settings.out / f"damages-{name}.png")


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    n = result["count"]
    table = Table(title=f"Frechet distance and MMD x 1000, {n} clips against {n} others; judge {result['judge']}")
    for column in ("damage", "features of", *map(str, LEVELS), "rises"):
        table.add_column(column)
    for key, value in result.items():
        if "/" in key:
            kind, who = key.split("/")
            unseen = " (unseen)" if kind in DAMAGES and kind not in LEARNED_DAMAGES else ""
            for measure, values, scale in zip(("FD", "MMD"), value, (1, 1000), strict=True):
                figures = [f"{scale * v:.3g}" for v in values]
                table.add_row(kind + unseen, f"{who}: {measure}", *figures, "yes" if rising(values) else "NO")
    console.print(table)
    table = Table(title="Text agreement with a share of wrong captions")
    for column in ("share", *result["wrong captions"][0]):
        table.add_column(column)
    for share, row in zip(SHARES, result["wrong captions"], strict=True):
        table.add_row(str(share), *(f"{v:.3f}" for v in row.values()))
    console.print(table)
    console.print("Floor, real against real, by clips:", {k: round(v, 3) for k, v in result["floor"].items()})
    console.print("MMD:", result["floor mmd"])


if __name__ == "__main__":
    main()
