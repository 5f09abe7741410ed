"""What a command imports: help, mistakes and preparing data do without torch, making a sticker without diffusers.

Modules are counted, not seconds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

FROZEN = Path(__file__).parent / "frozen" / "format1"
SCRIPT = """
import sys
from pathlib import Path
from typer.testing import CliRunner
from rdtf import hub
from rdtf.cli import app

if __name__ == "__main__":
    folder, result = Path(sys.argv[1]), None
    hub.SHIPPED_FOLDER = folder / "none"
    out = str(folder / "out.webp")
    for code, words in (
        (0, ["--help"]),
        (0, ["generate", "--help"]),
        (2, ["generate"]),
        (2, ["generate", "a cat", "-o", out]),
        (2, ["generate", "a cat", "-o", out, "-m", str(folder / "nowhere")]),
        (2, ["animate", str(folder / "nowhere.png"), "-o", out, "-m", str(folder / "model")]),
        (2, ["inbetween", str(folder / "set" / "a.png"), "-o", out, "-m", str(folder / "model")]),
        (2, ["train", str(folder / "nowhere"), str(folder / "run")]),
        (2, ["plan", str(folder / "nowhere")]),
        (2, ["train-codec", str(folder / "nowhere"), str(folder / "codec")]),
        (2, ["train-copy-decoder", str(folder / "nowhere"), str(folder / "new"), "-m", str(folder / "model")]),
        (2, ["evaluate", str(folder / "nowhere"), "-m", str(folder / "model")]),
        (0, ["prepare", str(folder / "set"), str(folder / "data"), "--size", "16", "--workers", "1"]),
        (0, ["generate", "a cat", "-o", out, "-m", sys.argv[2]]),
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, (words, result.output, result.exception)
        heavy = {"torch", "diffusers", "transformers", "accelerate", "torch._dynamo"}
        print(*words[:1], *sorted(heavy & sys.modules.keys()))
"""


def test_a_command_imports_what_it_needs(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    Image.fromarray(np.full((16, 16, 4), 200, np.uint8), "RGBA").save(tmp_path / "set" / "a.png")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run([sys.executable, script, tmp_path, FROZEN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    *lines, last = done.stdout.split("\n")[:-1]
    assert len(lines) == 13
    assert [line for line in lines if " " in line] == []  # a command and no module
    assert last == "generate torch"
