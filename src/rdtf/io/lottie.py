"""Lottie JSON, dotLottie and TGS to frames, through ThorVG."""

from __future__ import annotations

import base64
import functools
import graphlib
import io
import json
import math
import re
import zipfile
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import thorvg_python as tvg

from rdtf.io.job import Frames, Job
from rdtf.io.lottie_missing import (
    give_fonts_own_names,
    has_expressions,
    leave_out_text,
    missing_features,
    plain_masks,
    take_out_expressions,
)
from rdtf.io.pictures import check_data_url
from rdtf.pixels import fit, unpremultiply

VECTOR_SIZE = 512
SOLID_ALPHA = 248
"""Vector rasterisers give the inside of shapes an alpha of 248 to 254. From this alpha on it becomes 255."""
_MOST_WRAPPINGS = 2
_SOUND = 6  # type of a layer
_ROOT = "\0"  # is no name of an asset


@functools.cache
def engine() -> tvg.Engine:
    """ThorVG, started once for each process."""
    return tvg.Engine(threads=0)


def inflated(job: Job) -> Job:
    """The job with gzip or zlib removed once or twice. The limit holds for all members together."""
    data, most = job.data, job.limits.lottie_bytes
    for _ in range(_MOST_WRAPPINGS):
        if not is_deflated(data):
            break
        rest, inflated = data, b""
        while is_deflated(rest):
            member = zlib.decompressobj(wbits=47)  # either header
            inflated += member.decompress(rest, most + 1 - len(inflated))
            if len(inflated) > most:
                raise job.refuse(f"unpacks to more than {most // 2**20} MiB")
            if not member.eof:
                raise job.refuse("is cut short; fetch the file again")
            rest = member.unused_data
        data = inflated
    return replace(job, data=data)


def is_deflated(data: bytes) -> bool:
    """Whether bytes begin with a header of gzip or zlib."""
    return data.startswith(b"\x1f\x8b") or (data[:1] == b"\x78" and int.from_bytes(data[:2], "big") % 31 == 0)


def read_dotlottie(job: Job) -> Frames:
    """Read the first animation of a ZIP of Lottie JSON and pictures (https://dotlottie.io/spec/1.0 and 2.0).

    Pictures are embedded first.
    """
    most = job.limits.lottie_bytes
    with zipfile.ZipFile(io.BytesIO(job.data)) as archive:
        names = set(archive.namelist())
        chosen, *others = [a["id"] for a in json.loads(_unpacked(archive, "manifest.json", 2**20))["animations"]]
        if others:
            job.left_out.append(f"{len(others)} further animations; save each as a file of its own")
        place = next((name for name in (f"animations/{chosen}.json", f"a/{chosen}.json") if name in names), None)
        if place is None:
            raise job.refuse(f"has no animation {chosen!r} in it")
        data = _unpacked(archive, place, most)
        most -= len(data)
        root = json.loads(data)
        for asset in root.get("assets") or []:
            picture = next(
                (name for folder in ("images", "i") if (name := f"{folder}/{asset.get('p')}") in names), None
            )
            if picture is not None:
                data = _unpacked(archive, picture, most)
                most -= len(data)
                kind = "jpeg" if data.startswith(b"\xff\xd8") else "webp" if data[8:12] == b"WEBP" else "png"
                asset |= {"p": f"data:image/{kind};base64,{base64.b64encode(data).decode()}", "u": "", "e": 1}
    return read_lottie(replace(job, data=json.dumps(root).encode()))


def _unpacked(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as stream:
        data = stream.read(max(0, most) + 1)
    if len(data) > most:
        raise ValueError(f"{name} unpacks to too much")
    return data


def read_lottie(job: Job) -> Frames:
    """Read Lottie JSON without sound and without pictures that no layer uses."""
    root, (width, height, fps, length) = _check_lottie(job)
    longer = max(width, height)
    scale = (job.size or min(VECTOR_SIZE, longer)) / longer
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    total = max(1, round(length))  # frame op equals frame ip of the next round
    count = total if job.max_frames is None else min(total, job.max_frames)
    job.check_seconds(total / fps)
    job.check(count, w, h)
    missing = missing_features(root) + plain_masks(root) + ([] if (text := leave_out_text(root)) is None else [text])
    unsteady = take_out_expressions(root, unsteady=True)
    give_fonts_own_names(root)
    drawn = _draw(job, root, (w, h), count, total)
    if not drawn[..., 3].any():
        raise job.refuse(f"draws nothing: it has {', '.join(missing)}" if missing else "draws nothing")
    lost = unsteady > 0
    if has_expressions(root):
        take_out_expressions(root, unsteady=False)
        lost |= bool((drawn == _draw(job, root, (w, h), count, total)).all())
    job.left_out.extend([*missing, *(["expressions that cannot be drawn; bake them into key frames"] if lost else [])])
    frames = unpremultiply(drawn)  # ThorVG's colours are premultiplied
    frames[..., 3][frames[..., 3] >= SOLID_ALPHA] = 255
    if job.size is not None:
        frames = fit(frames, job.size)
    return list(frames), np.full(count, total / fps * 1000 / count)


def _draw(job: Job, root: dict[str, Any], size: tuple[int, int], count: int, total: int) -> np.ndarray:
    """``(count, h, w, 4)`` frames with premultiplied colour, evenly spaced over ``total``."""
    w, h = size
    animation = tvg.LottieAnimation(engine())
    canvas = tvg.SwCanvas(engine())
    try:
        picture = animation.get_picture()
        if picture.load_data(json.dumps(root).encode(), "lottie", None, True) != tvg.Result.SUCCESS:
            raise job.refuse("is no Lottie animation that ThorVG can load")
        picture.set_size(w, h)
        canvas.set_target(w, h, cs=tvg.Colorspace.ABGR8888)
        buffer = canvas.buffer_arr
        assert buffer is not None
        canvas.add(picture)
        drawn = np.empty((count, h, w, 4), np.uint8)
        for index in range(count):
            animation.set_frame(index * total / count)
            canvas.update()
            canvas.draw(True)
            canvas.sync()
            drawn[index] = np.frombuffer(bytes(buffer), np.uint8).reshape(h, w, 4)
    finally:
        canvas.destroy()
        animation._del()
    return drawn


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _check_lottie(job: Job) -> tuple[dict[str, Any], tuple[float, float, float, float]]:
    """Check that a Lottie file is safe to draw; returns it with width, height, frames a second and length in frames."""
    data, limits = job.data, job.limits
    if len(data) > limits.lottie_bytes:
        raise job.refuse(f"{len(data) / 2**20:.0f} MiB is too large for a Lottie file")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    # Nesting is counted before parsing, because deep nesting overflows the stack of native parsers.
    marks = np.frombuffer(_STRING.sub(b"", data), np.uint8)
    steps = np.isin(marks, (ord("{"), ord("["))).astype(np.int32) - np.isin(marks, (ord("}"), ord("]")))
    if len(steps) and steps.cumsum().max() > limits.lottie_depth:
        raise job.refuse(f"is nested more than {limits.lottie_depth} deep")
    try:
        root = json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise job.refuse(f"is no valid JSON ({error})") from error
    if not isinstance(root, dict):
        raise job.refuse("is JSON, but no Lottie animation (it is not an object)")
    root |= {key: _number(root.get(key)) for key in ("w", "h", "fr", "ip", "op")}
    numbers = [root[key] for key in ("w", "h", "fr", "ip", "op")]
    if not isinstance(root.get("layers"), list) or None in numbers:
        raise job.refuse("is JSON, but no Lottie animation (it needs numbers w, h, fr, ip, op and a list of layers)")
    width, height, fps, start, end = numbers
    if not (1 <= width <= limits.lottie_side and 1 <= height <= limits.lottie_side):
        raise job.refuse(f"its canvas of {width} x {height} is outside 1 to {limits.lottie_side}")
    if not 0 < fps <= limits.lottie_fps:
        raise job.refuse(f"{fps} frames a second are outside 0 to {limits.lottie_fps:g}")
    if not end > start:
        raise job.refuse(f"its last frame ({end}) does not come after its first ({start})")
    _leave_out_sound(root)
    _check_layers(job, root)
    return root, (width, height, fps, end - start)


def _number(value: Any) -> float | None:
    """A finite number, which may be written as text; None for anything else."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if finite else None


def _leave_out_sound(root: dict[str, Any]) -> None:
    """Remove layers of sound, and assets (pictures, sounds, fonts) that no visible layer refers to."""
    assets = [asset for asset in root.get("assets") or [] if isinstance(asset, dict)]
    for owner in (root, *assets):
        if isinstance(owner.get("layers"), list):
            owner["layers"] = [x for x in owner["layers"] if not (isinstance(x, dict) and x.get("ty") == _SOUND)]
    used = {
        str(layer.get("refId"))
        for owner in (root, *assets)
        for layer in owner.get("layers") or []
        if isinstance(layer, dict) and not layer.get("hd")
    }
    root["assets"] = [asset for asset in assets if "layers" in asset or str(asset.get("id")) in used]


def _check_layers(job: Job, root: dict[str, Any]) -> None:
    """Refuse endless references, too many layers and pictures outside of the file."""
    assets = {str(asset.get("id")): asset for asset in root.get("assets") or []}
    for asset in assets.values():
        if "layers" not in asset and "p" in asset:
            source = str(asset["p"])
            if not source.startswith("data:image/"):
                raise job.refuse(f"needs the picture {source[:80]!r}, which lies outside the file; embed it")
            check_data_url(job, source)
    layers: dict[str, list[Any]] = {name: asset.get("layers") or [] for name, asset in assets.items()}
    layers[_ROOT] = root["layers"]
    if sum(map(len, layers.values())) > job.limits.lottie_layers:
        raise job.refuse(f"has more than {job.limits.lottie_layers} layers")
    for group in layers.values():
        parents = {layer.get("ind"): [layer["parent"]] for layer in group if "parent" in layer}
        try:
            graphlib.TopologicalSorter(parents).prepare()
        except graphlib.CycleError:
            raise job.refuse("a layer is a parent of itself") from None
    uses = {
        name: [str(layer["refId"]) for layer in group if str(layer.get("refId")) in layers]
        for name, group in layers.items()
    }
    job.check_unfolded({name: len(group) for name, group in layers.items()}, uses, _ROOT, "layers")
