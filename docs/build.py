"""For mkdocs: the gallery is built from the notes in its pictures; docstrings lose the roles of reStructuredText."""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path
from typing import Any

import griffe

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "src"))

from rdtf.io.metadata import note_of  # noqa: E402

_GALLERY = re.compile(r"<!-- gallery (\w+) -->")
_ROLE = re.compile(r":\w+:`~?([^`]+)`")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The galleries' places in a page are filled."""
    return _GALLERY.sub(lambda place: gallery(place[1]), markdown)


def gallery(folder: str) -> str:
    """The pictures of a folder of images with captions, seeds and models; a picture without a note is an error."""
    figures = []
    for file in sorted((DOCS / "images" / folder).glob("*.webp")):
        note = note_of(file.read_bytes())
        if note is None:
            raise ValueError(f"{file.name} does not say how it was made; only pictures that rdtf wrote belong here")
        seed = note["settings"].get("seed", 0) + note.get("number", 0)
        facts = f"{note['task']}, seed {seed}, model {note['model']}"
        caption = escape(note["caption"] or "(no caption)")
        figures.append(
            '<figure markdown="span" style="display: inline-block; margin: .5em; width: 10em; vertical-align: top">'
            f'![{caption}](images/{folder}/{file.name}){{ width="128" }}'
            f"<figcaption><b>{caption}</b><br>{escape(facts)}</figcaption></figure>"
        )
    return "\n\n".join(figures)


class Roles(griffe.Extension):
    """A role is replaced by the last name in it, as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_last, obj.docstring.value)


def _last(role: re.Match[str]) -> str:
    return f"`{role[1].rpartition('.')[2]}`"
