"""A model that is tiny and fast, and a studio that runs in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SIZE = 16


@pytest.fixture(scope="session")
def model(make_pipeline: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline of a tiny network of random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_pipeline(SIZE, steps=2, guidance=1.0).save_pretrained(folder)
    return folder


@dataclass
class Running:
    """A studio that answers."""

    url: str
    folder: Path


@contextmanager
def running(folder: Path, model: Path, token: str | None = None) -> Iterator[Running]:
    """A studio in a thread."""
    import uvicorn

    from rdtf.studio.server import build_server, free_port
    from rdtf.studio.state import Studio

    port = free_port("127.0.0.1", 0)
    app = build_server(Studio(folder, [model]), token=token, host="127.0.0.1", port=port)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in range(1200):
        if server.started:
            break
        time.sleep(0.05)
    assert server.started
    try:
        yield Running(f"http://127.0.0.1:{port}/", folder)
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(1)  # it may wait for an open page; as a daemon it ends with the tests


@pytest.fixture(scope="session")
def studio(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A studio with the tiny model and an empty folder."""
    pytest.importorskip("gradio", reason="the studio needs gradio: pip install 'rdtf[studio]'")
    with running(tmp_path_factory.mktemp("studio"), model) as started:
        yield started
