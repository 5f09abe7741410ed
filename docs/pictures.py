"""Makes the pictures of the studio and the gallery with the model of the package: ``python docs/pictures.py STICKERS``.

STICKERS has ``animated/`` (Noto animated emoji, Lottie) and ``stills/twemoji.zip`` (SVG). The studio is started as by a
user, and used in headless Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from rdtf.export.check import problems_of
from rdtf.export.target import load_target
from rdtf.io.write import save_sticker
from rdtf.loading import load_pipeline
from rdtf.provenance import Call, Given, load_frames, make_noted

IMAGES = Path(__file__).parent / "images"
GHOST, PENGUIN = "1f47b", "1f427"
KEY_FRAMES = {GHOST: "ghost", "1f9ad": "seal", "1f640": "weary cat", "1f47d": "alien", "1f64a": "speak-no-evil monkey"}
PICTURES = {PENGUIN: "penguin", "1f99e": "lobster", "1f6a2": "ship", "1f994": "hedgehog", "1f69c": "tractor"}
"""Emoji that the model was not trained on, in any style."""
MOVED = {"penguin": "dance", "lobster": "jump", "ship": "fly", "hedgehog": "spin", "tractor": "bounce"}
"""The same pictures, moved as a whole."""
WAIT = 1800_000  # ms, for a slow and busy machine


def gallery(stickers: Path, place: Path) -> None:
    """Stickers between key frames, and from one picture, by the model and by a motion."""
    pipe = load_pipeline("shipped")
    given = {
        **{("gallery", name): key_frames(stickers / f"animated/{code}.json") for code, name in KEY_FRAMES.items()},
        **{("animated", name): [Given(0, still(stickers, code, place))] for code, name in PICTURES.items()},
        **{("moved", name): [Given(0, still(stickers, code, place))] for code, name in PICTURES.items()},
    }
    for folder in ("gallery", "animated", "moved"):
        shutil.rmtree(IMAGES / folder, ignore_errors=True)
        (IMAGES / folder).mkdir()
    for (folder, name), frames in given.items():
        task: Any = "inbetween" if len(frames) > 1 else "animate"
        settings: dict[str, Any] = {"num_frames": 8, "loop": True, "guidance_scale": 0.0, "seed": 0}  # unknown words
        if folder != "gallery":
            settings["motion"] = MOVED[name] if folder == "moved" else "none"
        call = Call(task, "shipped", name, settings, frames)
        [sticker] = make_noted(pipe, call, load_frames(frames))
        save_sticker(sticker, IMAGES / folder / f"{name.replace(' ', '-')}.webp")


def key_frames(file: Path) -> list[Given]:
    """Three of eight frames of an animation."""
    return [Given(at, file, at, 8) for at in (0, 3, 6)]


def still(stickers: Path, code: str, place: Path) -> Path:
    """A picture of Twemoji as a file."""
    path = place / f"{PICTURES[code]}.svg"
    path.write_bytes(zipfile.ZipFile(stickers / "stills/twemoji.zip").read(f"{code}.svg"))
    return path


@contextmanager
def studio(folder: Path, stickers: Path) -> Iterator[Page]:
    """The page of a studio that is started as a process."""
    command = ["rdtf", "studio", "--folder", str(folder), "--stickers", str(stickers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(word for line in process.stderr for word in line.split() if word.startswith("http"))
        with sync_playwright() as driver:
            flags = ["--headless", "--no-sandbox", "--disable-gpu"]
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags, timeout=WAIT)
            page = browser.new_page(viewport={"width": 1280, "height": 760})
            page.set_default_timeout(WAIT)
            while True:  # it says the address before it listens
                try:
                    page.goto(address)
                    break
                except Exception:
                    time.sleep(0.2)
            page.wait_for_selector("#make")
            yield page
            browser.close()
    finally:
        process.kill()
        process.wait()


def shoot(page: Page, name: str) -> None:
    """The page as a PNG of 256 colours."""
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth)")
    page.wait_for_timeout(1500)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(IMAGES / f"studio-{name}.png", optimize=True)


def make(page: Page, picture: Path, begun: float) -> None:
    """From a picture of one's own to a file for a messenger."""
    page.set_input_files("#upload input[type=file]", picture)
    page.wait_for_selector("#image .sticker")
    page.click("#make")
    page.wait_for_selector("#status :text('in the history')")
    page.click("#made .sticker >> nth=0")
    page.wait_for_selector("#picked p")
    page.click("#export")
    with page.expect_download() as download:
        page.click("#link a.download")
    problems = problems_of(Path(download.value.path()).read_bytes(), load_target("telegram"))
    print(f"{time.time() - begun:.0f} s from the start to a file for Telegram; {problems or 'accepted'}")
    shoot(page, "make")
    page.click("#upload button[aria-label='Clear']")


def words(page: Page) -> None:
    """Four stickers from a word."""
    page.fill("#caption textarea", "rocket")
    page.fill("#seed input", "1")
    page.click("#make")
    page.wait_for_selector("#made figcaption:has-text('seed 4')")
    page.wait_for_selector("#make:enabled")
    shoot(page, "words")


def timeline(page: Page, sticker: Path) -> None:
    """Two pinned frames, and six that the model makes."""
    page.get_by_role("tab", name="Timeline").click()
    page.set_input_files("#line-upload input[type=file]", sticker)
    for frame, slot in ((0, 0), (8, 6)):
        page.click(f"#source [data-pick='{frame}']")
        page.wait_for_selector(f"#source [data-pick='{frame}'].at")
        page.click(f"#timeline [data-pick='{slot}']")
        page.wait_for_selector(f"#timeline [data-pick='{slot}'].at")
        page.click("#place")
        page.wait_for_selector(f"#timeline [data-pick='{slot}'].pinned")
    page.fill("#line-caption textarea, #line-caption input", "ghost")
    page.click("#fill")
    page.wait_for_selector("#line-result .sticker")
    page.wait_for_selector("#fill:enabled")
    shoot(page, "timeline")


def training(page: Page) -> None:
    """A fine-tuning of the model of the package, after twenty steps."""
    page.get_by_role("tab", name="Train").click()
    page.fill("label:has-text('Height and width of the frames') input", "128")
    page.click("#prepare")
    page.wait_for_selector("#job-log :text('data-stickers: finished')")
    page.click("#from input")
    page.get_by_role("option", name="shipped").click()
    for field, value in (("Optimiser steps", "20"), ("Stickers a step", "4"), ("Steps between previews", "10")):
        page.fill(f"label:has-text('{field}') input", value)
    page.click("#start")
    page.wait_for_selector("#watch :text('mine: finished')")  # it would outlive the studio
    shoot(page, "train")


def main() -> None:
    """Make all pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stickers", type=Path)
    parser.add_argument("--only", nargs="*", default=["gallery", "make", "words", "timeline", "train"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        few = place / "hearts"
        few.mkdir()
        for file in sorted((options.stickers / "animated").glob("1f49*.json")):
            shutil.copy(file, few)
        rows = (options.stickers / "animated/metadata.jsonl").read_text("utf-8").splitlines(keepends=True)
        (few / "metadata.jsonl").write_text("".join(row for row in rows if '"1f49' in row), encoding="utf-8")
        if "gallery" in options.only:
            gallery(options.stickers, place)
        if options.only == ["gallery"]:
            return
        begun = time.time()
        with studio(place / "studio", few) as page:
            if "make" in options.only:
                make(page, still(options.stickers, PENGUIN, place), begun)
            if "words" in options.only:
                words(page)
            if "timeline" in options.only:
                timeline(page, options.stickers / f"animated/{GHOST}.json")
            if "train" in options.only:
                training(page)


if __name__ == "__main__":
    main()
