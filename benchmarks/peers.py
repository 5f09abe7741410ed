"""The network of the paper's size beside diffusers' video networks: ``python benchmarks/peers.py``.

Equal widths (320/640/1024/1280), equal inputs (one clip of 8 frames, 4 x 32 x 32 latents, 77 text states of width
1024). Each network and precision has a process of its own; FLOPs are counted by torch, peaks are the process's resident
memory, or what it has taken on the GPU, where there is one. What that or the processor can do is measured first: a
matrix product and a 3x3 convolution of sizes that these networks have. bf16 is left out, unless it is asked for, where
the processor has no instructions for it, which is some seventy times slower. Prints a table and ends in one JSON line.
Needs about 16 GB; ``--widths 64,128 --cells 16`` for a look, ``--clips 8`` for more work at a time, ``--compile`` for
each network through torch.compile too, which takes minutes for each on a processor.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import I2VGenXLUNet, UNet3DConditionModel, UNetMotionModel
from rich.table import Table
from torch import Tensor, nn

from rdtf.device import best_device
from rdtf.flops import flop_counter
from rdtf.model import DFGN
from rdtf.presets import size_config
from rdtf.progress import bars, console
from rdtf.train.hardware import has_bf16, keep_freed_memory

FRAMES, CHANNELS, WORDS, TEXT_WIDTH = 8, 4, 77, 1024
Made = tuple[nn.Module, Callable[[], Tensor]]  # a network, and a pass of it
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def dfgn(widths: tuple[int, ...], cells: int, clips: int, dtype: torch.dtype) -> Made:
    config = size_config("paper") | {"widths": widths, "latent_channels": CHANNELS}
    config |= {name: config[name][: len(widths) - 1] + config[name][-1:] for name in ("attention", "sti_pool")}
    network = DFGN(**config).to(dtype)
    clip, text = _inputs(cells, clips, dtype)
    known = torch.zeros(clips, FRAMES, dtype=torch.bool)
    known[:, 0] = True
    masks = {"known": known, "valid": torch.ones_like(known), "loop": torch.zeros(clips, dtype=torch.bool)}
    words = torch.ones(clips, WORDS, dtype=torch.bool)

    def call() -> Tensor:
        return network(clip, torch.full((clips,), 500.0), clip, text=network.text_context(text, words), **masks)

    return network, call


def unet_3d(widths: tuple[int, ...], cells: int, clips: int, dtype: torch.dtype) -> Made:
    network = UNet3DConditionModel(
        **_blocks(widths, "CrossAttnDownBlock3D", "DownBlock3D", "UpBlock3D", "CrossAttnUpBlock3D"),
        attention_head_dim=64,
    ).to(dtype)
    clip, text = _inputs(cells, clips, dtype)
    return network, lambda: network(clip, 500, text).sample


def i2vgen_xl(widths: tuple[int, ...], cells: int, clips: int, dtype: torch.dtype) -> Made:
    network = I2VGenXLUNet(
        **_blocks(widths, "CrossAttnDownBlock3D", "DownBlock3D", "UpBlock3D", "CrossAttnUpBlock3D"),
        num_attention_heads=64,  # the width of a head: the class reads it so
    ).to(dtype)
    clip, text = _inputs(cells, clips, dtype)
    image, fps = torch.randn(clips, 1, TEXT_WIDTH, dtype=dtype), torch.full((clips,), 8)
    return network, lambda: network(clip, 500, fps, clip, image, text).sample


def unet_motion(widths: tuple[int, ...], cells: int, clips: int, dtype: torch.dtype) -> Made:
    network = UNetMotionModel(
        **_blocks(widths, "CrossAttnDownBlockMotion", "DownBlockMotion", "UpBlockMotion", "CrossAttnUpBlockMotion"),
        num_attention_heads=tuple(width // 64 for width in widths),
        motion_num_attention_heads=tuple(width // 64 for width in widths),
    ).to(dtype)
    clip, text = _inputs(cells, clips, dtype)
    states = text.repeat_interleave(FRAMES, 0)
    return network, lambda: network(clip, 500, states).sample


def _blocks(widths: tuple[int, ...], down: str, down_last: str, up_first: str, up: str) -> dict[str, Any]:
    more = len(widths) - 1
    return {
        "block_out_channels": widths,
        "down_block_types": (down,) * more + (down_last,),
        "up_block_types": (up_first,) + (up,) * more,
        "cross_attention_dim": TEXT_WIDTH,
    }


def _inputs(cells: int, clips: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    video = torch.randn(clips, CHANNELS, FRAMES, cells, cells, dtype=dtype)
    return video, torch.randn(clips, WORDS, TEXT_WIDTH, dtype=dtype)


NETWORKS = {
    "DFGN": dfgn,
    "UNet3DConditionModel": unet_3d,
    "I2VGenXLUNet": i2vgen_xl,
    "UNetMotionModel": unet_motion,
}


def measure(
    name: str, precision: str, compiled: bool, widths: tuple[int, ...], cells: int, clips: int, repeats: int
) -> dict[str, Any]:
    """One network in this process: the best of ``repeats`` after one call to warm up, or to compile."""
    keep_freed_memory()
    torch.set_default_device(best_device())
    network, call = NETWORKS[name](widths, cells, clips, PRECISIONS[precision])

    def both() -> None:
        call().float().square().mean().backward()
        network.zero_grad()  # as after a step: no gradient is added to an older one

    with torch.no_grad(), flop_counter() as counter:
        call()
    began = time.perf_counter()
    if compiled:
        network.compile(dynamic=False)
    with torch.no_grad():
        call()
        first = time.perf_counter() - began
        forward = _best(call, repeats)
    peak_forward = _peak_gb()
    began = time.perf_counter()
    both()
    first += time.perf_counter() - began
    return {
        "network": f"{name}, compiled" if compiled else name,
        "precision": precision,
        "first_calls_s": first,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "tflop": counter.get_total_flops() / 1e12,
        "forward_s": forward,
        "forward_peak_gb": peak_forward,
        "both_s": _best(both, repeats),
        "both_peak_gb": _peak_gb(),
    }


def _best(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        if best_device().type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)


def _peak_gb() -> float:
    if best_device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def processor_rates(precisions: Sequence[str]) -> dict[str, dict[str, float]]:
    """GFLOP/s of a matrix product (8192 x 640 by 640 x 640) and of a 3x3 convolution (8 maps of 320 x 32 x 32)."""
    rates = {}
    torch.set_default_device(best_device())
    for precision in precisions:
        dtype = PRECISIONS[precision]
        a, b = torch.randn(8192, 640, dtype=dtype), torch.randn(640, 640, dtype=dtype)
        maps = torch.randn(8, 320, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
        kernel = torch.randn(320, 320, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
        product = 2 * 8192 * 640 * 640 / _best(lambda a=a, b=b: a @ b, 20)
        conv = (
            2 * 8 * 32 * 32 * 320 * 320 * 9 / _best(lambda m=maps, k=kernel: nn.functional.conv2d(m, k, padding=1), 20)
        )
        rates[precision] = {"matrix_product": product / 1e9, "convolution": conv / 1e9}
    return rates


def _device_name() -> str:
    return torch.cuda.get_device_name() if best_device().type == "cuda" else f"{torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default="320,640,1024,1280", help="channels of the levels")
    parser.add_argument("--cells", type=int, default=32, help="height and width of the latents")
    parser.add_argument("--clips", type=int, default=1, help="clips at a time")
    parser.add_argument("--repeats", type=int, default=2, help="timed calls, of which the best counts")
    parser.add_argument("--precisions", nargs="+", choices=[*PRECISIONS], help="default: what the device has")
    parser.add_argument("--networks", nargs="+", choices=[*NETWORKS], default=[*NETWORKS])
    parser.add_argument("--compile", action="store_true", help="rows with torch.compile too")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a single network, in a process of its own
    options = parser.parse_args()
    widths = tuple(int(width) for width in options.widths.split(","))
    if options.one:
        sizes = widths, options.cells, options.clips, options.repeats
        print(json.dumps(measure(options.one, options.precisions[0], options.compile, *sizes)))
        return

    precisions = options.precisions or (["fp32", "bf16"] if has_bf16(best_device()) else ["fp32"])
    rates = processor_rates(precisions)
    jobs = [
        (name, precision, compiled)
        for precision in precisions
        for name in options.networks
        for compiled in ((False, True) if options.compile else (False,))
    ]
    results, failed = [], []
    with bars() as progress:
        task = progress.add_task("Networks", total=len(jobs), note="")
        for name, precision, compiled in jobs:
            progress.update(task, note=f"{name}, {precision}{', compiled' if compiled else ''}")
            command = [sys.executable, __file__, "--one", name, "--precisions", precision, "--widths", options.widths]
            command += ["--cells", str(options.cells), "--clips", str(options.clips)]
            command += ["--repeats", str(options.repeats), *(["--compile"] if compiled else [])]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:  # the others have taken long enough to be kept
                failed.append(f"{name} in {precision} failed ({done.returncode}):\n{done.stderr[-2000:]}")
            else:
                results.append(json.loads(done.stdout.splitlines()[-1]))
            progress.advance(task)

    table = Table(
        title=f"{options.clips} x {FRAMES} frames of {options.cells} x {options.cells} latents, {_device_name()}"
    )
    for column in (
        "network",
        "precision",
        "parameters",
        "TFLOP",
        "forward",
        "GFLOP/s",
        "peak",
        "with backward",
        "GFLOP/s",
        "peak",
        "first calls",
    ):
        table.add_column(column, justify="left" if column in ("network", "precision") else "right")
    for r in results:
        table.add_row(
            r["network"],
            r["precision"],
            f"{r['parameters'] / 1e6:.0f} M",
            f"{r['tflop']:.2f}",
            f"{r['forward_s']:.3f} s",
            f"{1e3 * r['tflop'] / r['forward_s']:.0f}",
            f"{r['forward_peak_gb']:.1f} GB",
            f"{r['both_s']:.3f} s",
            f"{3e3 * r['tflop'] / r['both_s']:.0f}",
            f"{r['both_peak_gb']:.1f} GB",
            f"{r['first_calls_s']:.0f} s",
        )
    console.print(table)
    for precision, rate in rates.items():
        console.print(
            f"{precision}: {rate['matrix_product']:.0f} GFLOP/s matrix product, {rate['convolution']:.0f} convolution"
        )
    print(json.dumps({"device": _device_name(), "clips": options.clips, "rates": rates, "networks": results}))
    if failed:
        raise SystemExit("\n\n".join(failed))


if __name__ == "__main__":
    main()
