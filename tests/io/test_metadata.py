from __future__ import annotations

import io

import av
import numpy as np
import pytest
from PIL import Image

from rdtf.export import encode
from rdtf.export.encode import Clip
from rdtf.io.metadata import MAX_BYTES, note_of, with_note
from rdtf.io.read import read_sticker_bytes
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker

NOTE = {"caption": "a <cat> & \u732b \N{CAT FACE} ]]> \n", "seed": 2**60, "settings": {"fps": 8.0}}


def sticker(frames: int = 3) -> Sticker:
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 16, 22, 4), np.uint8)
    return Sticker(pixels, np.full(frames, 100.0))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("files")
    made = {}
    for name in ("a.webp", "a.png", "a.gif", "a.sheet.png"):
        for count in (1, 3):
            save_sticker(sticker(count), folder / f"{count}{name}")
            made[f"{count}{name}"] = (folder / f"{count}{name}").read_bytes()
    buffer = io.BytesIO()
    Image.new("RGB", (15, 9), "red").save(buffer, "WEBP", quality=50)
    made["opaque.webp"] = buffer.getvalue()
    clip = sticker().frames[:, :, :20]
    made["a.webm"] = encode.webm(Clip(clip, np.full(3, 100.0)), 30, 30.0)
    return made


def with_it(name: str, data: bytes) -> bytes:
    if name != "a.webm":
        return with_note(data, NOTE)
    return encode.webm(Clip(sticker().frames[:, :, :20], np.full(3, 100.0)), 30, 30.0, NOTE)


def test_a_note_comes_back_and_changes_no_pixel(files: dict[str, bytes]):
    for name, data in files.items():
        noted = with_it(name, data)
        assert note_of(noted) == NOTE and note_of(data) is None, name
        before, after = read_sticker_bytes(data, name), read_sticker_bytes(noted, name)
        np.testing.assert_array_equal(after.frames, before.frames)
        np.testing.assert_array_equal(after.durations, before.durations)


def test_other_programs_see_the_note(files: dict[str, bytes]):
    made = {name: with_it(name, data) for name, data in files.items()}
    with Image.open(io.BytesIO(made["3a.webp"])) as image:
        assert b"rdtf:made" in image.info["xmp"] and image.n_frames == 3
    with Image.open(io.BytesIO(made["opaque.webp"])) as image:
        assert image.mode == "RGB" and image.size == (15, 9)
    with Image.open(io.BytesIO(made["3a.png"])) as image:
        image.load()
        assert '"seed":1152921504606846976' in image.text["rdtf"]
    with Image.open(io.BytesIO(made["3a.gif"])) as image:
        image.seek(2)
    assert b"\x21\xfe" in made["3a.gif"]
    with av.open(io.BytesIO(made["a.webm"])) as container:
        assert '"seed"' in container.metadata["RDTF"]
        assert sum(1 for packet in container.demux() if packet.size) == 9


def test_damaged_and_foreign_notes_are_none():
    with pytest.raises(ValueError, match="too long"):
        with_note(b"", {"caption": "x" * MAX_BYTES})
    assert with_note(b"\xff\xd8\xff jpeg", NOTE) == b"\xff\xd8\xff jpeg"
    assert note_of(b"") is None and note_of(b"GIF89a") is None and note_of(b"\x1a\x45\xdf\xa3\x00") is None


def test_every_cut_of_a_file_is_survived(files: dict[str, bytes]):
    for name, data in files.items():
        noted = with_it(name, data)
        for end in range(0, len(noted), max(1, len(noted) // 200)):
            assert note_of(noted[:end]) in (None, NOTE), name
