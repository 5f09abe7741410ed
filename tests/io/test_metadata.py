from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rdtf.export import encode
from rdtf.io.encode import Clip
from rdtf.io.metadata import MAX_BYTES, note_of, note_text
from rdtf.io.metadata import NOTE as KEY
from rdtf.io.read import read_sticker_bytes
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker

NOTE = {"caption": "a <cat> & \u732b \N{CAT FACE} ]]> \n", "seed": 2**60, "settings": {"fps": 8.0}}


def written(folder: Path, note: dict | None) -> dict[str, bytes]:
    """Files of every kind, still and moving, with a note or without."""
    made = {}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 22, 4), np.uint8)
    for name in ("a.webp", "a.png", "a.gif", "a.sheet.png"):
        for count in (1, 3):
            sticker = Sticker(pixels[:count], np.full(count, 100.0), "", {KEY: note} if note else {})
            save_sticker(sticker, folder / f"{count}{name}")
            made[f"{count}{name}"] = (folder / f"{count}{name}").read_bytes()
    made["a.webm"] = encode.webm(Clip(pixels, np.full(3, 100.0)), 30, 30.0, note)
    made["lossy.webp"] = encode.webp(Clip(pixels, np.full(3, 100.0)), 50, note)
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, bytes]]:
    """Each file without a note, and with it."""
    plain, noted = (written(tmp_path_factory.mktemp("files"), note) for note in (None, NOTE))
    return {name: (plain[name], noted[name]) for name in plain}


def test_a_note_comes_back_and_changes_no_pixel(files: dict[str, tuple[bytes, bytes]]):
    for name, (data, noted) in files.items():
        assert note_of(noted) == NOTE and note_of(data) is None, name
        before, after = read_sticker_bytes(data, name), read_sticker_bytes(noted, name)
        np.testing.assert_array_equal(after.frames, before.frames)
        np.testing.assert_array_equal(after.durations, before.durations)


def test_other_programs_see_the_note(files: dict[str, tuple[bytes, bytes]]):
    made = {name: noted for name, (_, noted) in files.items()}
    with Image.open(io.BytesIO(made["3a.webp"])) as image:
        assert b"rdtf:made" in image.info["xmp"] and image.n_frames == 3
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
        note_text({"caption": "x" * MAX_BYTES})
    assert note_of(b"") is None and note_of(b"GIF89a") is None and note_of(b"\x1a\x45\xdf\xa3\x00") is None
    assert note_of(b"\xff\xd8\xff jpeg") is None


def test_every_cut_of_a_file_is_survived(files: dict[str, tuple[bytes, bytes]]):
    for name, (_, noted) in files.items():
        for end in range(0, len(noted), max(1, len(noted) // 200)):
            assert note_of(noted[:end]) in (None, NOTE), name
