"""Files of strangers are decoded in a process of their own, with limits on time and memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.pixels import fit
from rdtf.sticker import Sticker, StickerError

MOST_FRAMES = 16
MOST_SIDE = 512
_SECONDS, _BYTES = 30, 3 << 30


def decode(file: Path) -> Sticker:
    """At most 16 frames of a file, at most 512 px a side.

    Raises:
        StickerError: it cannot be read, or takes too long or too much memory.
    """
    with tempfile.TemporaryDirectory() as place:
        clean = Path(place, "clean.webp")
        command = [sys.executable, "-m", "rdtf.studio.decode", str(file), str(clean)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=2 * _SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise StickerError(file.name, "takes too long to decode") from None
        if done.returncode == 2:
            raise StickerError(file.name, done.stdout.strip())
        if done.returncode or not clean.is_file():
            raise StickerError(file.name, "crashed its decoder, or took too much time or memory")
        return read_sticker(clean)


def _main(source: str, target: str) -> int:
    with suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        sticker = read_sticker(source, max_frames=MOST_FRAMES)
    except StickerError as error:
        print(error.reason)
        return 2
    if max(sticker.size) > MOST_SIDE:
        sticker = Sticker(fit(sticker.frames, MOST_SIDE), sticker.durations)
    save_sticker(sticker, target, durable=False)
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
