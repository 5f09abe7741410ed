"""What holds on a GPU; all other tests stay on the processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from rdtf.codec import load_codec
from rdtf.device import best_device
from rdtf.loading import load_pipeline
from rdtf.model import DFGN
from rdtf.model.layers import attend
from rdtf.pixels import to_tensor
from rdtf.train.plan import make_plan
from rdtf.train.run import train
from tests.train.test_run import settings
from tests.train.test_tune import TUNES, tuning

ROOT = Path(__file__).parents[1]

TRAIN = """
import sys
from pathlib import Path
from rdtf.train.run import train
from tests.train.test_run import settings
train(Path(sys.argv[1]), Path(sys.argv[2]), settings(loss_on_known=True))
"""

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True, scope="module")
def _on_the_gpu() -> Iterator[None]:
    """On the GPU, in the precision of the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ACCELERATE_USE_CPU", raising=False)
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        AcceleratorState._reset_state(reset_partial_state=True)
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu") / "run"
    train(tiny_data, folder, settings(previews=2, preview_every=2, loss_on_known=True))
    return folder


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def elsewhere(code: str, *arguments: object) -> None:
    """Run code in a process that sees no GPU."""
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_training_is_that_of_the_processor_to_rounding(run: Path, tiny_data: Path, tmp_path: Path):
    assert best_device().type == "cuda"
    elsewhere(
        TRAIN,
        tiny_data,
        tmp_path / "there",
    )
    assert losses(run) == pytest.approx(losses(tmp_path / "there"), rel=2e-3)
    assert len(list((run / "previews").glob("*.webp"))) == 2


def test_the_same_stickers_come_out(run: Path, tmp_path: Path):
    pipe = load_pipeline(run)
    assert {module.device.type for module in (pipe.dfgn, pipe.codec)} == {"cuda"}
    frame = np.full((16, 16, 4), 200, np.uint8)
    here = pipe("a red cat", frames={0: frame}, num_frames=4, seed=3, num_inference_steps=3).stickers[0].frames
    elsewhere(
        "import sys, numpy as np; from rdtf.loading import load_pipeline; "
        "frame = np.full((16, 16, 4), 200, np.uint8); pipe = load_pipeline(sys.argv[1]); "
        "assert pipe.device.type == 'cpu'; "
        "made = pipe('a red cat', frames={0: frame}, num_frames=4, seed=3, num_inference_steps=3); "
        "np.save(sys.argv[2], made.stickers[0].frames)",
        run,
        tmp_path / "there.npy",
    )
    there = np.load(tmp_path / "there.npy")
    assert np.array_equal(here[0], frame)
    assert np.abs(here.astype(int) - there.astype(int)).mean() < 0.5


@pytest.mark.parametrize(
    "changed",
    [
        {"precision": "bf16"},
        {"cuda_graphs": False},
        {"gradient_checkpointing": True},
        {"gradient_accumulation_steps": 2},
    ],
)
def test_settings_that_change_little(run: Path, tiny_data: Path, tmp_path: Path, changed: dict[str, Any]):
    train(tiny_data, tmp_path / "run", settings(loss_on_known=True, **changed))
    near = 0.05 if "precision" in changed else 2e-3
    assert losses(tmp_path / "run") == pytest.approx(losses(run), rel=near)


@pytest.mark.parametrize("tune", TUNES)
def test_tuned_networks_train(run: Path, tiny_data: Path, tmp_path: Path, tune: str):
    train(tiny_data, tmp_path / "tuned", tuning(run, tune))
    sticker = load_pipeline(tmp_path / "tuned")("a red cat", num_frames=3).stickers[0]
    assert sticker.frames.shape == (3, 16, 16, 4)


@pytest.mark.parametrize("name", ["f4", "f8", "pixel2"])
def test_codecs_are_those_of_the_processor(name: str):
    codec = load_codec(name)
    frames = to_tensor(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 4), dtype=np.uint8))
    here = codec.encode(frames)
    assert here.is_cuda
    back = codec.decode(here).cpu()
    codec.to("cpu")
    there = codec.encode(frames)
    torch.testing.assert_close(here.cpu(), there, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(back, codec.decode(there), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("trains", [False, True])
def test_more_sequences_than_a_kernel_has_blocks(trains: bool):
    # Temporal attention has one short sequence for each place of each clip: 65,536 and more in a large batch.
    q, k, v = (torch.randn(66_000, 2, 4, 16, device="cuda", requires_grad=trains) for _ in range(3))
    bias = torch.randn(1, 2, 4, 4, device="cuda").repeat_interleave(66_000, 0)
    out = attend(q, k, v, bias)
    if trains:
        out.sum().backward()
        assert q.grad is not None and bool(q.grad.isfinite().all())
    last = slice(65_990, None)
    expected = ((q[last] @ k[last].mT) / 4 + bias[last]).softmax(-1) @ v[last]
    torch.testing.assert_close(out[last], expected, rtol=1e-3, atol=1e-3)


def test_a_plan_counts_the_memory_of_the_gpu(tiny_data: Path, tmp_path: Path):
    plan = make_plan(tiny_data, settings(batch_size=8, steps=10), tmp_path)
    assert "cuda" in plan.device
    assert plan.held < plan.peak < plan.free
    assert plan.free > 2**30


def test_one_process_of_torchrun(tiny_data: Path, run: Path, tmp_path: Path):
    (tmp_path / "one.py").write_text("import torch\ntorch.backends.cudnn.allow_tf32 = False\n" + TRAIN)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    done = subprocess.run(
        [*launch, str(tmp_path / "one.py"), str(tiny_data), str(tmp_path / "run")],
        env=environment, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == pytest.approx(losses(run), rel=2e-3)


def test_the_network_itself(make_network: Callable[..., DFGN]):
    network = make_network()
    masks = {"known": torch.tensor([[True, False, False]]), "valid": torch.tensor([[True, True, False]])}
    clip, states = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 5, 16)

    def output(device: str) -> torch.Tensor:
        network.to(device)
        on = {name: mask.to(device) for name, mask in masks.items()}
        text = network.text_context(states.to(device), torch.ones(1, 5, dtype=torch.bool, device=device))
        level, loop = torch.tensor([300.0], device=device), torch.tensor([True], device=device)
        return network(clip.to(device), level, clip.to(device), loop=loop, text=text, **on).detach().cpu()

    torch.testing.assert_close(output("cuda"), output("cpu"), rtol=1e-3, atol=1e-4)
