"""How often lettering is told from other stickers: ``python benchmarks/lettering.py [STICKERS...]``.

Writing is rendered with Pillow: English, Russian and Greek words in the fonts of a folder, plain, outlined or on a
flat ground, level or turned, still or swaying. Not lettering are stickers of the built-in world, and the files of the
folders that are given, of which the ones that are flagged are named: some of them may be lettering after all. Prints a
table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from rdtf.data.find import find_items
from rdtf.data.lettering import is_lettering
from rdtf.pixels import composite, fit
from rdtf.progress import console
from rdtf.world import draw_sticker

WORDS = {
    "two letters": ["OK", "Hi", "NO"],
    "a word": ["HELLO", "LOL", "YES!", "WOW", "haha", "Monday", "what?", "2024", "Congrats!", "привет", "спасибо"],
    "two words in a row": ["omg no", "NO WAY", "Good night", "let's go", "ok boomer", "Γειά σου"],
    "two rows": ["good\nmorning", "Thank\nyou!", "see you\nlater", "I love\nyou", "Weekend\nvibes"],
    "three or four rows": ["happy\nbirthday\nto you", "Nice\nwork\nteam", "Come on\nand dance\nwith me\ntonight"],
}
TURNS = (0, 0, 0, 8, -12, 20)


def write(text: str, font: ImageFont.FreeTypeFont, size: int, rng: np.random.Generator) -> np.ndarray:
    """Frames ``(n, size, size, 4)`` with nothing but a text."""
    ink = tuple(rng.integers(0, 256, 3).tolist())
    outline = int(rng.integers(3, 9)) if rng.random() < 0.4 else 0
    picture = Image.new("RGBA", (800, 800))
    ImageDraw.Draw(picture).multiline_text(
        (400, 400),
        text,
        font=font,
        anchor="mm",
        align="center",
        fill=(*ink, 255),
        stroke_width=outline,
        stroke_fill=(255, 255, 255, 255) if sum(ink) < 500 else (20, 20, 20, 255),
    )
    picture = picture.crop(picture.getbbox())
    side = round(max(picture.size) * rng.uniform(1, 1.25))
    canvas = Image.new("RGBA", (side, side))
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    turn = int(rng.choice(TURNS))
    sway = (0,) if rng.random() < 0.5 else (-3, 0, 3, 0)
    frames = fit(np.stack([np.array(canvas.rotate(turn + more, Image.Resampling.BICUBIC)) for more in sway]), size)
    if rng.random() < 0.2:
        ground = (255, 255, 255) if sum(ink) < 380 else (30, 30, 60)
        frames = np.concatenate([composite(frames, ground), np.full_like(frames[..., 3:], 255)], axis=-1)
    return frames


def read_all(folder: Path, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and frames of all stickers of a folder."""
    for item in find_items(folder, folder.name).items:
        yield item.name, fit(item.read(size=size, max_frames=40).frames, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stickers", type=Path, nargs="*")
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"), help="folder of TTF and OTF files")
    parser.add_argument("--count", type=int, default=100, help="texts of each kind; four times as many of the world")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    files = sorted(file for file in options.fonts.rglob("*.[ot]tf") if "Math" not in file.name)
    fonts = [ImageFont.truetype(str(file), 60) for file in files]
    if not fonts:
        raise SystemExit(f"no fonts in {options.fonts}; name a folder of them with --fonts")
    table = Table("what", "stickers", "flagged", title=f"{len(fonts)} fonts, {options.size} px")
    result: dict[str, tuple[int, int]] = {}
    for kind, texts in WORDS.items():
        found = 0
        for _ in range(options.count):
            text, font = texts[rng.integers(len(texts))], fonts[rng.integers(len(fonts))]
            found += is_lettering(write(text, font, options.size, rng))
        result[kind] = options.count, found
    drawn = 4 * options.count
    flagged = sum(is_lettering(draw_sticker(3, i, size=options.size).frames) for i in range(drawn))
    result["the built-in world"] = drawn, flagged
    named = []
    for folder in options.stickers:
        answers = {name: is_lettering(frames) for name, frames in read_all(folder, options.size)}
        named += [name for name, found in answers.items() if found]
        result[folder.name] = len(answers), sum(answers.values())
    for kind, (count, found) in result.items():
        table.add_row(kind, f"{count:,}", f"{found:,} ({found / count:.1%})")
    console.print(table)
    console.print("flagged:", ", ".join(named) or "none", markup=False)
    print(json.dumps({"size": options.size, "fonts": len(fonts), "flagged": named, "result": result}))


if __name__ == "__main__":
    main()
