"""The package where the system has less than Linux: without Unix's modules, and with workers that are spawned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rdtf.device import best_device

SCRIPT = """
import builtins, multiprocessing, os, signal, sys
from pathlib import Path

HIDDEN = {"fcntl", "resource", "pwd", "grp", "termios"}
real = builtins.__import__

def without(name, globals=None, *rest, **options):
    if name in HIDDEN and str((globals or {}).get("__name__")).startswith("rdtf"):
        raise ImportError(f"{name} is not on this system")
    return real(name, globals, *rest, **options)

builtins.__import__ = without
for module, name in (
    (os, "pread"), (os, "sched_getaffinity"), (os, "posix_fadvise"), (signal, "SIGXCPU"), (os, "fork")
):
    if hasattr(module, name):
        delattr(module, name)
multiprocessing.get_all_start_methods = lambda: ["spawn"]

if __name__ == "__main__":
    import importlib, pkgutil

    import rdtf

    for module in pkgutil.walk_packages(rdtf.__path__, "rdtf."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    from rdtf.data.prepare import PrepareSettings, prepare
    from rdtf.io.write import save_sticker
    from rdtf.loading import load_pipeline
    from rdtf.train.run import resume, train
    from rdtf.train.settings import recipe_settings
    from rdtf.world import write_world

    folder = Path(sys.argv[1])
    write_world(folder / "world", 6, 0, size=16)
    prepare([folder / "world"], folder / "data", PrepareSettings(size=16, splits=(1.0, 0.0, 0.0), workers=1))
    tiny = {"widths": (16, 32), "attention": (False, True), "sti_pool": (2, 1), "sti_heads": 1, "head_dim": 16}
    tiny |= {"text_width": 16, "condition_width": 8, "condition_out": 8}
    few = {"steps": 1, "batch_size": 2, "frames": 2, "num_augmented": 1, "threads": 1, "previews": 0}
    train(folder / "data", folder / "run", recipe_settings("fast", model=tiny, codec="pixel2", **few))
    assert resume(folder / "data", folder / "run", steps=2).steps == 2
    sticker = load_pipeline(folder / "run")("a cat", num_frames=2, num_inference_steps=1).stickers[0]
    save_sticker(sticker, folder / "cat.webp")
"""


def test_imports_prepares_trains_and_generates_without_unix(tmp_path: Path):
    """Once, in a process of its own: modules and functions of Unix are hidden, also from the worker that it spawns."""
    script = tmp_path / "less.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run([sys.executable, script, tmp_path / "out"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out/cat.webp").stat().st_size > 0


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_gpu_that_torch_has_is_taken(cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device().type == "cpu"  # ACCELERATE_USE_CPU, as in all tests
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    assert best_device().type == expected
