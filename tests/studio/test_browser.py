"""The studio in headless Chromium, from a picture to a messenger's file. Nothing may leave this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from rdtf.export.check import problems_of
from rdtf.export.target import load_target
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.studio.library import Library
from rdtf.world import draw_sticker
from tests.studio.conftest import Running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WAIT = 120_000  # ms

playwright = pytest.importorskip("playwright.sync_api", reason="the browser's tests need playwright")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="the browser's tests need Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, studio: Running) -> Iterator:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(WAIT)
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(studio.url)
    page.wait_for_selector("#make")
    yield page
    page.close()
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(studio.url).netloc}, hosts
    assert not failed, failed


def test_a_picture_is_pinned_the_rest_is_filled_and_a_messengers_file_comes_down(page, studio: Running, tmp_path: Path):
    drawn = draw_sticker(3, 0, size=16)
    save_sticker(drawn, tmp_path / "cat.webp")
    page.get_by_role("tab", name="Timeline").click()
    page.set_input_files("#line-upload input[type=file]", str(tmp_path / "cat.webp"))
    page.wait_for_selector("#source .slot")
    page.click("#timeline [data-pick='2']")
    page.wait_for_selector("#timeline [data-pick='2'].at")
    page.click("#place")
    page.wait_for_selector("#timeline [data-pick='2'].pinned")
    page.fill("#line-caption textarea, #line-caption input", "a cat")
    page.click("#fill")
    page.wait_for_selector("#line-result .sticker")
    assert page.locator("#timeline .made").count() == 7 and page.locator("#timeline .pinned").count() == 1
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
    # The sticker itself: the pinned frame is the picture's, to the pixel, in the file and as the browser shows it.
    key = Library(studio.folder).listed()[0]
    shown = np.where(drawn.frames[0][..., 3:] > 0, drawn.frames[0], np.uint8(0))
    np.testing.assert_array_equal(read_sticker(Library(studio.folder).path(key)).frames[2], shown)
    seen = page.evaluate(
        """async address => {
          const image = new Image(); image.src = address; await image.decode();
          const canvas = new OffscreenCanvas(image.width, image.height), pen = canvas.getContext('2d');
          pen.drawImage(image, 0, 0);
          return [...pen.getImageData(0, 0, image.width, image.height).data];
        }""",
        f"/frames/{key}/2",
    )
    seen = np.array(seen, np.uint8).reshape(shown.shape)
    np.testing.assert_array_equal(seen[..., 3], shown[..., 3])
    solid = shown[..., 3] == 255  # a canvas rounds the colours of half-transparent pixels
    np.testing.assert_array_equal(seen[solid], shown[solid])


def test_captions_are_shown_as_text_and_the_history_has_what_was_made(page):
    evil = "<img src=x onerror=\"document.title='broken'\"> ${document.title='broken'} {{value}}"
    page.fill("#caption textarea", evil)
    page.click("#make")
    page.wait_for_selector("#made .sticker >> nth=3")
    assert page.locator("#made figcaption b").first.inner_text() == evil
    assert page.title() == "RDTF studio" and page.locator("#made img[src=x]").count() == 0
    page.get_by_role("tab", name="History").click()
    page.click("#look")
    page.wait_for_selector("#history .sticker >> nth=3")
    assert evil in page.locator("#history").inner_text()


def test_a_cancelled_generation_keeps_nothing_more(page, studio: Running):
    page.click("#more > button")
    page.fill("#more label:has-text('steps') input", "3000")
    before = len(Library(studio.folder).listed())
    page.click("#make")
    page.wait_for_function("document.querySelector('#status').innerText.includes('Step')")
    page.click("#cancel")
    page.wait_for_function("document.querySelector('#status').innerText.includes('Cancelled')")
    page.fill("#more label:has-text('steps') input", "1")
    page.click("#make")  # the model is free again
    page.wait_for_selector("#made .sticker >> nth=3")
    assert len(Library(studio.folder).listed()) == before + 4


def test_errors_are_sentences(page):
    page.fill("#caption textarea", "x" * 1500)
    page.click("#make")
    page.wait_for_selector("text=a caption has at most 1000 characters")
