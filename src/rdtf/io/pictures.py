"""GIF, PNG, APNG, JPEG, WebP and AVIF to frames."""

from __future__ import annotations

import base64
import io
import math
import struct
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import AvifImagePlugin, Image, ImageOps, features

from rdtf.io.compositor import Layers, apng_layers, compose, gif_layers
from rdtf.io.job import BROWSER_MS, STILL_MS, Frames, Job
from rdtf.io.png import decode_png, still_png

AVIF_READABLE = features.check("avif")
if AVIF_READABLE:
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a thread that cannot start would look like a damaged file
AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
OTHER_BRANDS = {b"mif2": "HEIF", b"miaf": "HEIF", b"avci": "HEIF", b"jp2 ": "JPEG 2000", b"jpx ": "JPEG 2000",
                b"jxl ": "JPEG XL", b"crx ": "Canon raw", b"M4A ": "sound"}  # fmt: skip


def brands(data: bytes) -> list[bytes]:
    """The major brand of an ISO media file, and then the compatible ones."""
    size = min(int.from_bytes(data[:4], "big"), len(data), 4096)
    return [data[8:12], *(data[at : at + 4] for at in range(16, size - 3, 4))]


def read_picture(job: Job, kind: str) -> Frames:
    """The frames of a picture; ``kind`` is Pillow's name of the format."""
    if len(job.data) > job.limits.image_bytes:
        raise job.refuse(f"{len(job.data) / 2**20:.0f} MiB is too large for a picture")
    if kind == "WEBP" and int.from_bytes(job.data[4:8], "little") + 8 > len(job.data):
        raise job.refuse("is cut short; fetch the file again")  # Pillow would read the complete frames silently
    if kind == "GIF":
        try:
            layers = gif_layers(job.data)
        except (IndexError, struct.error):
            raise job.refuse("is cut short; fetch the file again") from None
        return _composed(job, layers, 10.0)
    if kind == "PNG":
        if job.data[12:16] == b"CgBI":
            raise job.refuse("is a PNG in Apple's own form for apps, which is not read; export a usual PNG")
        width, height = struct.unpack_from(">II", job.data, 16) if len(job.data) > 24 else (0, 0)
        job.check(1, width, height)
        if (moving := apng_layers(job)) is not None:
            return _composed(job, moving, 0.0)
        try:
            return [job.fitted(decode_png(still_png(job)))], np.array([STILL_MS])
        except ValueError as error:
            raise job.refuse(f"{error}; fetch the file again") from error
    return _by_pillow(job, kind)


def _composed(job: Job, file: Layers, shortest: float) -> Frames:
    if not file.layers:
        raise job.refuse("has no picture in it")
    job.check(len(file.layers), file.width, file.height)
    for layer in file.layers:
        job.check(1, *layer.box[2:])
    delays = [layer.delay if layer.delay > shortest else BROWSER_MS for layer in file.layers]
    indices, durations = job.kept(np.array(delays if len(delays) > 1 else [STILL_MS]))
    wanted = set(indices.tolist())
    return [job.fitted(canvas) for index, canvas in enumerate(compose(job, file)) if index in wanted], durations


def _by_pillow(job: Job, kind: str) -> Frames:
    """JPEG (the first picture of a file that holds several), WebP and AVIF."""
    data = job.data
    if kind == "AVIF" and data[8:12] not in AVIF_BRANDS:  # Pillow and libavif check only the first brand
        data = data[:8] + (b"avis" if b"moov" in data else b"avif") + data[12:]
    if kind == "WEBP" and data[12:16] == b"VP8X":  # its flag of alpha is a hint; the frames say whether they have any
        data = data[:20] + bytes([data[20] | 0x10]) + data[21:]
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data), formats=(kind,))
    with image:
        count = 1 if kind == "JPEG" else getattr(image, "n_frames", 1)
        job.check(count, *image.size)
        if count == 1:
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGBA"))
            return [job.fitted(pixels)], np.array([STILL_MS])
        if job.max_frames is None or count <= job.max_frames:
            frames, delays = [], []
            for frame, delay in _frames(image, np.arange(count)):
                frames.append(job.fitted(frame))
                delays.append(delay)
            return frames, job.kept(np.array(delays))[1]
        # Choosing frames needs the times of all frames, which are known after decoding them.
        indices, durations = job.kept(np.array([delay for _, delay in _frames(image, np.arange(count))]))
        return [job.fitted(frame) for frame, _ in _frames(image, indices)], durations


def _frames(image: Image.Image, indices: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Pixels and milliseconds of frames."""
    orientation = image.getexif().get(0x0112, 1)
    for index in indices:
        image.seek(int(index))
        image.load()  # sets the duration
        ms = float(image.info.get("duration", 0))
        frame = image.convert("RGBA")
        frame.getexif()[0x0112] = orientation
        turned = ImageOps.exif_transpose(frame) if orientation != 1 else frame
        yield np.array(turned), ms if ms > 0 and math.isfinite(ms) else BROWSER_MS


def check_data_url(job: Job, source: str) -> None:
    """Check a picture that a vector file holds as a data URL, before a renderer decodes it.

    Raises:
        StickerError: it is damaged, no PNG, JPEG or WebP, or too large.
    """
    try:
        data = io.BytesIO(base64.b64decode(source.partition(",")[2]))
        with Image.open(data, formats=("PNG", "JPEG", "WEBP")) as image:
            size = image.size
    except (OSError, ValueError):  # also of a picture that Pillow cannot identify
        raise job.refuse("has a picture in it that is damaged, or no PNG, JPEG or WebP") from None
    job.check(1, *size)
