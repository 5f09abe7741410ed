"""The studio's endpoints as scripts call them, who may call, and many callers at once."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest

from rdtf.export.check import problems_of
from rdtf.export.target import load_target
from rdtf.io.read import read_sticker_bytes
from rdtf.io.write import save_sticker
from rdtf.world import draw_sticker
from tests.studio.conftest import Running, running

gradio_client = pytest.importorskip("gradio_client", reason="the studio needs gradio: pip install 'rdtf[studio]'")
FAST = {"num_frames": 2, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def client(studio: Running):
    return connected(studio.url)


def connected(url: str):
    return gradio_client.Client(url, verbose=False, httpx_kwargs={"timeout": 300})  # a busy machine is slow to answer


def fetched(url: str, headers: dict[str, str] | None = None, data: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_picture_is_given_animated_and_made_fit_for_a_messenger(client, studio: Running, tmp_path: Path):
    drawn = draw_sticker(2, 0, size=16)
    save_sticker(drawn, tmp_path / "cat.png")
    key = client.predict(gradio_client.handle_file(str(tmp_path / "cat.png")), api_name="/give")
    frames = [{"position": 1, "sticker": key, "frame": 0}]
    made = client.predict("a cat", "", 2, 7, frames, {**FAST, "num_frames": 3}, api_name="/make")
    assert [one["seed"] for one in made] == [7, 8] and {one["caption"] for one in made} == {"a cat"}
    status, data = fetched(studio.url.rstrip("/") + made[0]["url"])
    assert status == 200
    sticker = read_sticker_bytes(data, "made.webp")
    shown = np.where(drawn.frames[0][..., 3:] > 0, drawn.frames[0], np.uint8(0))
    np.testing.assert_array_equal(sticker.frames[1], shown)
    assert made[0]["sticker"] in {one["sticker"] for one in client.predict(api_name="/stickers")}
    file = client.predict(made[0]["sticker"], "discord-emoji", api_name="/export")
    status, data = fetched(studio.url.rstrip("/") + file["url"])
    assert status == 200 and len(data) == file["bytes"]
    assert problems_of(data, load_target("discord-emoji")) == []


@pytest.mark.parametrize(
    ("endpoint", "arguments", "message"),
    [
        ("/make", ["a cat", "nobody"], "no model"),
        ("/make", ["a cat", "", 1, 0, None, {"num_frames": 99}], "less than or equal to 16"),
        ("/make", ["a cat", "", 1, 0, None, {"steps": 1}], "no setting"),
        ("/export", ["made-../../x", "line"], "no sticker"),
    ],
)
def test_wrong_wishes_get_a_sentence(client, endpoint: str, arguments: list, message: str):
    with pytest.raises(gradio_client.exceptions.AppError, match=message):
        client.predict(*arguments, api_name=endpoint)


def test_endpoints_are_named_and_documented(studio: Running):
    info = json.loads(fetched(studio.url + "gradio_api/info")[1])
    endpoints = info["named_endpoints"]
    assert {*endpoints} == {
        "/give", "/make", "/models", "/stickers", "/export", "/pack"
    }  # fmt: skip
    assert all(endpoint["description"] for endpoint in endpoints.values())
    assert not info["unnamed_endpoints"]


def test_pages_of_others_may_not_use_it(studio: Running):
    assert fetched(studio.url)[0] == 200
    assert fetched(studio.url, {"Host": "evil.example"})[0] == 403  # a name of theirs that leads to this machine
    assert fetched(studio.url + "gradio_api/queue/join", {"Origin": "http://evil.example"}, b"{}")[0] == 403
    caller = http.client.HTTPConnection(urlsplit(studio.url).netloc, timeout=60)
    caller.request("POST", "/gradio_api/queue/join", headers={"Content-Length": str(2**21)})
    assert caller.getresponse().status == 413


def test_files_outside_of_its_folder_are_not_served(studio: Running, client, tmp_path: Path):
    secret = studio.folder.parent / "secret.webp"
    secret.write_bytes(b"secret")
    for path in (
        f"gradio_api/file={secret}", "stickers/..%2F..%2Fsecret", "exports/..%2F..%2Fsecret.webp",
        "pages/..%2F..%2Fsecret.webp", "frames/..%2F..%2Fsecret/0", "previews/..%2F..%2Fsecret",
        f"gradio_api/file={studio.folder}/stickers", "gradio_api/proxy=http://127.0.0.1:9/x",
    ):  # fmt: skip
        status, body = fetched(studio.url + path)
        assert status in (403, 404) and body != b"secret", path
    for path, message in ((str(secret), None), ("http://192.0.2.1/x.png", "a file, not an address")):
        handed = {"path": path, "meta": {"_type": "gradio.FileData"}}
        with pytest.raises(gradio_client.exceptions.AppError, match=message):
            client.predict(handed, api_name="/give")
    assert secret.is_file()


def test_damaged_and_foreign_files_are_refused(client, tmp_path: Path):
    for name, data in (("x.png", b"\x89PNG\r\n\x1a\n" + bytes(50)), ("x.webp", b"<html></html>"), ("x.exe", b"MZ")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(gradio_client.exceptions.AppError):
            client.predict(gradio_client.handle_file(str(tmp_path / name)), api_name="/give")


def test_a_token_is_asked_for(model: Path, tmp_path: Path):
    with running(tmp_path, model, token="let-me-in") as locked:
        assert fetched(locked.url)[0] == 403
        assert fetched(locked.url, {"Authorization": "Bearer wrong"})[0] == 403
        assert fetched(locked.url, {"Authorization": "Bearer let-me-in"})[0] == 200
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(locked.url + "?token=let-me-in", timeout=60) as answer:
            assert answer.status == 200 and "token" not in answer.url  # it moves on with a cookie


def test_any_other_address_than_the_loopback_gets_a_token(monkeypatch, model: Path, tmp_path: Path):
    from rdtf.studio import server
    from rdtf.studio.state import Studio

    tokens, said = [], []
    monkeypatch.setattr(server, "build_server", lambda studio, token, host, port: tokens.append(token))
    monkeypatch.setattr(server.uvicorn, "run", lambda *args, **options: None)
    monkeypatch.setattr(server, "free_port", lambda host, port: port)
    for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "192.0.2.1", "example.org"):
        server.serve(Studio(tmp_path, [model]), host=host, port=7860, token=None, say=said.append)
    assert tokens[:3] == [None] * 3 and all(len(token) > 30 for token in tokens[3:])
    assert f"?token={tokens[3]}" in said[3]


@pytest.mark.slow
def test_fifty_at_once_from_ten_callers_lose_nothing(model: Path, tmp_path: Path):
    process = psutil.Process()
    with running(tmp_path, model) as many:

        def five(number: int) -> list[str]:
            own = connected(many.url)
            jobs = [
                own.submit(f"cat {number}", "", 1, 100 * number + i, None, FAST, api_name="/make") for i in range(5)
            ]
            made = [job.result(timeout=900)[0] for job in jobs]
            assert [one["seed"] for one in made] == [100 * number + i for i in range(5)]
            return [one["sticker"] for one in made]

        five(99)
        before = process.memory_info().rss
        with ThreadPoolExecutor(10) as callers:
            keys = [key for made in callers.map(five, range(10)) for key in made]
        grown = process.memory_info().rss - before
    assert len({*keys}) == 50 and all((tmp_path / "stickers" / f"{key}.webp").is_file() for key in keys)
    print(f"memory grew by {grown / 2**20:.0f} MiB")
    assert grown < 500 * 2**20


@pytest.mark.slow
def test_killed_and_begun_again_it_has_its_stickers(model: Path, tmp_path: Path):
    command = [sys.executable, "-c", "from rdtf.cli import app; app()", "studio", "-m", str(model)]

    def begun() -> tuple[subprocess.Popen[str], gradio_client.Client]:
        process = subprocess.Popen([*command, "--folder", str(tmp_path)], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        address = next(word for line in process.stderr for word in line.split() if word.startswith("http"))
        for _ in range(1200):  # it says the address before it listens
            try:
                return process, connected(address)
            except (OSError, ValueError, httpx.HTTPError):
                time.sleep(0.25)
        raise AssertionError(address)

    process, client = begun()
    try:
        made = client.predict("a cat", "", 2, 0, None, FAST, api_name="/make")
        process.kill()  # no time to say goodbye
        process.wait()
        process, client = begun()
        there = client.predict(api_name="/stickers")
        assert {one["sticker"] for one in there} == {one["sticker"] for one in made}
        assert {one["caption"] for one in there} == {"a cat"}
    finally:
        process.kill()
        process.wait()
