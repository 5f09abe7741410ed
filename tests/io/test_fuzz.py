"""Mutated sticker files: the run ends, and every file is in the dataset or in the manifest with its reason."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdtf.data.dataset import StickerDataset
from rdtf.data.prepare import PrepareSettings, prepare
from rdtf.io.write import save_sticker
from rdtf.world import draw_sticker
from tests.data.test_prepare import reasons
from tests.io.test_read import moving_square, write_lottie, write_video

Rng = np.random.Generator


def flip(data: bytes, other: bytes, rng: Rng) -> bytes:
    """Some bits the other way, most of them near the beginning, where headers are."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 17))):
        reach = len(out) if rng.random() < 0.5 else min(len(out), 128)
        out[int(rng.integers(reach))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def cut(data: bytes, other: bytes, rng: Rng) -> bytes:
    """The end is missing, or a piece in the middle."""
    start, end = sorted(rng.integers(0, len(data), 2).tolist())
    return data[:start] if rng.random() < 0.5 else data[:start] + data[end:]


def splice(data: bytes, other: bytes, rng: Rng) -> bytes:
    """It ends as another file does, or has a piece of it inside."""
    at, there = int(rng.integers(len(data))), int(rng.integers(len(other)))
    return data[:at] + other[there:] if rng.random() < 0.5 else data[:at] + other[there : there + 64] + data[at:]


def repeat(data: bytes, other: bytes, rng: Rng) -> bytes:
    """A piece comes many times."""
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 200))
    return data[:at] + data[at : at + length] * int(rng.integers(2, 50)) + data[at + length :]


def lengthen(data: bytes, other: bytes, rng: Rng) -> bytes:
    """A length, or what may be one, says something extreme."""
    width, order = int(rng.choice([1, 2, 4, 8])), str(rng.choice(["big", "little"]))
    top = 2 ** (8 * width)
    value = int(rng.choice([0, 1, top // 2 - 1, top // 2, top - 1], shuffle=False)) if width < 8 else top - 1
    at = int(rng.integers(min(len(data), 300 if rng.random() < 0.7 else len(data))))
    return data[:at] + value.to_bytes(width, order) + data[at + width :]


def renumber(data: bytes, other: bytes, rng: Rng) -> bytes:
    """A number of a text is another one; in files that are no texts this hits digits by chance."""
    numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", data))
    if not numbers:
        return flip(data, other, rng)
    number = numbers[int(rng.integers(min(len(numbers), 60 if rng.random() < 0.5 else len(numbers))))]
    values = [b"0", b"-1", b"1e9", b"-1e308", b"99999", b"65536", b"1e-300", b'"x"', b"null", b"[]", b"{}", b"1" * 400]
    return data[: number.start()] + values[int(rng.integers(len(values)))] + data[number.end() :]


MUTATIONS: list[Callable[[bytes, bytes, Rng], bytes]] = [flip, cut, splice, repeat, lengthen, renumber]


def mutate(data: bytes, other: bytes, rng: Rng) -> bytes:
    """One to three mutations, of what is inside where that is compressed."""
    packed = data.startswith(b"\x1f\x8b") and rng.random() < 0.7
    if packed:
        data = gzip.decompress(data)
    for _ in range(int(rng.integers(1, 4))):
        if data:
            data = MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, other, rng)
    return gzip.compress(data, mtime=0) if packed else data


def small_files(folder: Path) -> list[Path]:
    """One whole file of every kind, a few kB each."""
    folder.mkdir()
    sticker = draw_sticker(3, 1, size=32)
    for ending in ("gif", "webp", "png"):
        save_sticker(sticker, folder / f"a.{ending}")
    write_lottie(folder / "a.json")
    (folder / "a.tgs").write_bytes(gzip.compress((folder / "a.json").read_bytes(), mtime=0))
    write_video(folder / "a.webm", moving_square())
    write_video(folder / "a.mp4", moving_square(), codec="libx264", pix_fmt="yuv420p")
    image = Image.fromarray(moving_square(1)[0])
    image.convert("RGB").save(folder / "a.jpg")
    image.save(folder / "a.avif")
    return sorted(folder.iterdir())


def fuzz(files: list[Path], root: Path, count: int, seed: int, **values: Any) -> Counter[str]:
    """Prepare ``count`` mutants of files beside the files themselves; returns the reasons, numbers taken out."""
    rng = np.random.default_rng(seed)
    contents = [file.read_bytes() for file in files]
    (root / "set").mkdir()
    for number, (file, data) in enumerate(zip(files, contents, strict=True)):
        (root / "set" / f"a_whole_{number}{file.suffix}").write_bytes(data)
    for number in range(count):
        index, other = rng.integers(len(files), size=2)
        mutant = mutate(contents[index], contents[other], rng)
        (root / "set" / f"mutant_{number:05d}{files[index].suffix}").write_bytes(mutant)
    settings = PrepareSettings.model_validate({"size": 32, "max_frames": 16, **values})
    report = prepare([root / "set"], root / "data", settings)
    used, refused = set(StickerDataset(root / "data").column("source")), reasons(report)
    assert used.isdisjoint(refused)
    assert used | set(refused) == {f"set/{file.name}" for file in (root / "set").iterdir()}
    assert all(why.startswith("duplicate of") for name, why in refused.items() if "whole" in name)
    assert all(refused.values())
    for frames in (StickerDataset(root / "data").frames(i) for i in range(len(used))):
        assert frames[..., 3].any()
    return Counter(re.sub(r"duplicate of .*", "duplicate", re.sub(r"\d+", "N", why))[:60] for why in refused.values())


def test_mutants_of_every_kind(tmp_path: Path) -> None:
    why = fuzz(small_files(tmp_path / "whole"), tmp_path, 200, seed=0, workers=1, time_limit=2, memory_limit=256)
    print(json.dumps(dict(why.most_common()), indent=1))
    assert 60 < sum(why.values()) < 200, why  # that many are refused; a fuzzer that harms nothing tests nothing
    assert not any("not done after" in reason for reason in why)


@pytest.mark.slow
@pytest.mark.stickers
def test_many_mutants_of_real_files(real_stickers: Path, tmp_path: Path) -> None:
    files = small_files(tmp_path / "whole")
    for folder, ending in (("animated", "json"), ("static", "png"), ("gif", "gif")):
        files += sorted((real_stickers / folder).glob(f"*.{ending}"), key=lambda file: file.stat().st_size)[:6]
    why = fuzz(files, tmp_path, int(os.environ.get("RDTF_MUTANTS", "3000")), seed=1, time_limit=20)
    print(json.dumps(dict(why.most_common()), indent=1))
    assert not any("not done after" in reason for reason in why)
