"""The studio in headless Chromium, from a picture to a messenger's file. Nothing may leave this machine."""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from rdtf.export.check import problems_of
from rdtf.export.target import load_target
from rdtf.io.metadata import note_of
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker
from rdtf.studio.library import Library
from rdtf.world import draw_sticker
from tests.studio.conftest import Running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WAIT = 300_000  # ms, for a slow and busy machine

playwright = pytest.importorskip("playwright.sync_api", reason="the browser's tests need playwright")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="the browser's tests need Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def page(studio: Running) -> Iterator:
    """The studio's page, opened once."""
    asked, failed = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=WAIT)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(WAIT)
        page.set_default_navigation_timeout(WAIT)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(studio.url)
        page.wait_for_selector("#make")
        yield page
        browser.close()
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(studio.url).netloc}, hosts
    assert not failed, failed


def opened(page, tab: str) -> None:
    page.get_by_role("tab", name=tab).click()


def newest(page, library: Library, known: list[str]) -> tuple[str, np.ndarray]:
    """The sticker that comes after the known ones, once the page shows it."""
    end = time.monotonic() + WAIT / 1000
    while (keys := library.listed()) == known:
        assert time.monotonic() < end
        page.wait_for_timeout(50)
    page.wait_for_selector(f"#line-result img[src='/stickers/{keys[0]}'] >> nth=0")
    return keys[0], library.read(keys[0]).frames


def test_a_timeline_is_filled_frame_by_frame_and_a_messengers_file_comes_down(page, studio: Running, tmp_path: Path):
    library = Library(studio.folder)
    drawn = draw_sticker(3, 0, size=16)
    save_sticker(drawn, tmp_path / "cat.webp")
    pinned = np.where(drawn.frames[0][..., 3:] > 0, drawn.frames[0], np.uint8(0))
    opened(page, "Timeline")
    page.set_input_files("#line-upload input[type=file]", str(tmp_path / "cat.webp"))
    page.wait_for_selector("#source .slot")
    page.click("#timeline [data-pick='2']")
    page.wait_for_selector("#timeline [data-pick='2'].at")
    page.click("#place")
    page.wait_for_selector("#timeline [data-pick='2'].pinned")
    page.fill("#line-caption textarea, #line-caption input", "a cat")
    known = library.listed()
    page.click("#fill")
    first, frames = newest(page, library, known)
    assert page.locator("#timeline .made").count() == 7 and page.locator("#timeline .pinned").count() == 1
    np.testing.assert_array_equal(frames[2], pinned)

    # A frame of the result is kept, another one is made anew: nothing else changes.
    page.click("#timeline [data-pick='5']")
    page.wait_for_selector("#timeline [data-pick='5'].at")
    page.click("#keep")
    page.wait_for_selector("#timeline [data-pick='5'].pinned")
    page.click("#timeline [data-pick='3']")
    page.wait_for_selector("#timeline [data-pick='3'].at")
    known = library.listed()
    page.click("#anew")
    _, other = newest(page, library, known)
    assert [i for i in range(8) if (other[i] != frames[i]).any()] == [3]

    # Longer at the front, in a circle, with a seed: what is pinned moves with its slot.
    page.click("#before")
    page.wait_for_selector("#timeline [data-pick='8']")
    page.fill("#line-seed input", "7")
    page.check("#line-loop input")
    known = library.listed()
    page.click("#fill")
    longer, circle = newest(page, library, known)
    assert len(circle) == 9
    np.testing.assert_array_equal(circle[[3, 6]], frames[[2, 5]])
    note = note_of(library.path(longer).read_bytes())
    assert note["settings"]["loop"] is True and note["settings"]["seed"] == 7

    page.click("#line-result .sticker")
    page.wait_for_selector("#picked p")
    page.click("#target input")
    page.get_by_role("option", name=load_target("discord-emoji").title).click()
    page.click("#export")
    page.wait_for_selector("#link a.download")
    with page.expect_download() as download:
        page.click("#link a.download")
    file = tmp_path / "down.gif"
    download.value.save_as(file)
    assert problems_of(file.read_bytes(), load_target("discord-emoji")) == []

    page.click("#pack > button")
    page.click("#add")
    page.wait_for_selector("#members :text('In the pack: 1')")
    page.click("#make-pack")
    page.wait_for_selector("#pack-link a.download")
    with page.expect_download() as download:
        page.click("#pack-link a.download")
    download.value.save_as(tmp_path / "pack.zip")
    with zipfile.ZipFile(tmp_path / "pack.zip") as archive:
        assert any(name.endswith(".gif") for name in archive.namelist())

    seen = page.evaluate(  # the pinned frame as the browser shows it
        """async address => {
          const image = new Image(); image.src = address; await image.decode();
          const canvas = new OffscreenCanvas(image.width, image.height), pen = canvas.getContext('2d');
          pen.drawImage(image, 0, 0);
          return [...pen.getImageData(0, 0, image.width, image.height).data];
        }""",
        f"/frames/{first}/2",
    )
    seen = np.array(seen, np.uint8).reshape(pinned.shape)
    np.testing.assert_array_equal(seen[..., 3], pinned[..., 3])
    solid = pinned[..., 3] == 255  # a canvas rounds the colours of half-transparent pixels
    np.testing.assert_array_equal(seen[solid], pinned[solid])


def test_a_picture_without_a_word_becomes_a_sticker_that_repeats(page, studio: Running, tmp_path: Path):
    opened(page, "Make")
    page.click("#make")
    page.wait_for_selector("text=drop a picture to animate")
    drawn = Sticker.at_fps(draw_sticker(3, 0, size=16).frames[:1])
    save_sticker(drawn, tmp_path / "mine.png")
    page.set_input_files("#upload input[type=file]", str(tmp_path / "mine.png"))
    page.wait_for_selector("#image :text('given')")
    assert page.is_disabled("#cancel")  # nothing runs
    page.click("#make")
    page.wait_for_selector("#made .sticker >> nth=3")
    library = Library(studio.folder)
    [key, *_] = library.listed()
    shown = np.where(drawn.frames[0][..., 3:] > 0, drawn.frames[0], np.uint8(0))
    np.testing.assert_array_equal(library.read(key).frames[0], shown)
    assert note_of(library.path(key).read_bytes())["settings"]["loop"] is True
    page.click("#upload button[aria-label='Clear']")
    page.wait_for_selector("#image .sticker", state="detached")


def test_a_motion_is_chosen_beside_the_words(page, studio: Running):
    opened(page, "Make")
    library = Library(studio.folder)
    known = library.listed()
    page.fill("#caption textarea", "a hat")
    page.click("#motion input")
    page.get_by_role("option", name="jump").click()
    page.click("#make")
    page.wait_for_selector("#made figcaption b:text('a hat') >> nth=3")
    note = note_of(library.path(library.listed()[0]).read_bytes())
    assert (note["caption"], note["settings"]["motion"]) == ("a hat", "jump")
    assert len(library.listed()) == len(known) + 4
    page.click("#motion input")
    page.get_by_role("option", name="the model's").click()


def test_captions_are_shown_as_text_on_every_ground_and_the_history_has_them(page):
    opened(page, "Make")
    evil = "<img src=x onerror=\"document.title='broken'\"> ${document.title='broken'} {{value}}"
    page.fill("#caption textarea", evil)
    page.click("#make")
    page.wait_for_selector("#made figcaption b:text('{{value}}') >> nth=3")
    assert page.locator("#made figcaption b").first.inner_text() == evil
    assert page.title() == "RDTF studio" and page.locator("#made img[src=x]").count() == 0
    widths = page.eval_on_selector_all("#made .bubble img", "images => images.map(image => image.offsetWidth)")
    assert widths == [160] * 12  # of Discord; four stickers on three grounds
    opened(page, "History")
    page.wait_for_selector("#history .sticker >> nth=3")
    assert evil in page.locator("#history").inner_text()


def test_a_cancelled_generation_keeps_nothing_more(page, studio: Running):
    opened(page, "Make")
    if not page.is_visible("#more label:has-text('steps') input"):
        page.click("#more > button")
    page.fill("#more label:has-text('steps') input", "3000")
    page.fill("#caption textarea", "never ready")
    page.click("#make")
    page.wait_for_selector("#status :text('Step')")
    page.wait_for_function("document.querySelector('#make').disabled")  # a click would do nothing
    page.click("#cancel")
    page.wait_for_selector("#status :text('Cancelled')")
    before = len(Library(studio.folder).listed())  # on a fast machine one may have been ready
    page.fill("#more label:has-text('steps') input", "1")
    page.fill("#caption textarea", "ready")
    page.click("#make")  # the model is free again
    page.wait_for_selector("#made figcaption b:text-is('ready') >> nth=3")
    assert len(Library(studio.folder).listed()) == before + 4
    page.fill("#caption textarea", "x" * 1500)
    page.click("#make")
    page.wait_for_selector("text=a caption has at most 1000 characters")


def test_packs_are_no_part_of_the_training_tab(page):
    opened(page, "Train")
    page.wait_for_selector("#pack", state="hidden")
    page.wait_for_selector("#prepare")
    opened(page, "Make")
    page.wait_for_selector("#pack")
