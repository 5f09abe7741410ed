"""The card of a published dataset: a README with front matter for the Hub."""

from __future__ import annotations

import html
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from rdtf.data.dataset import StickerDataset

HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""The Hub's names of our splits."""
SHOWN = 20
"""Most rows of a table. Other rows are counted."""

_LICENCES = """
    apache-2.0 mit cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
    cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
    bsd-2-clause bsd-3-clause gpl-2.0 gpl-3.0 lgpl-3.0 agpl-3.0 mpl-2.0 ofl-1.1 odbl pddl unlicense wtfpl zlib
"""
"""Licences that the Hub knows by these names."""


def _plain(name: str) -> str:
    return re.sub("licen[cs]ed?|version|[^a-z0-9]", "", name.casefold())


_HUB_LICENCES = {_plain(name): name for name in _LICENCES.split()} | {"cc0": "cc0-1.0", "apache2": "apache-2.0"}


def hub_licence(name: str) -> str:
    """The Hub's name of a licence; ``other`` for other licences, ``unknown`` without a name."""
    return _HUB_LICENCES.get(_plain(name), "other") if name else "unknown"


def make_card(title: str, dataset: StickerDataset) -> str:
    """The text of ``README.md`` of an exported dataset with all its splits."""
    from huggingface_hub import DatasetCardData  # takes a moment

    manifest, frames = dataset.manifest, np.array(dataset.column("num_frames"))
    given = Counter(licence or "" for licence in dataset.column("license"))
    licences = sorted({hub_licence(name) for name in given})
    splits = [
        {"split": name, "path": f"{name}/*/*"} for split, name in HUB_SPLITS.items() if manifest.counts.get(split)
    ]
    moving = int((frames > 1).sum())
    front = DatasetCardData(
        pretty_name=title,
        license=licences[0] if len(licences) == 1 else licences,
        task_categories=["text-to-video", "image-to-video", "text-to-image"] if moving else ["text-to-image"],
        tags=["stickers", "animated", "rgba", "imagefolder"],
        configs=[{"config_name": "default", "data_files": splits}],
    )
    reasons = Counter(re.sub(r"(duplicate of) .*", r"\1 another sticker", one.reason) for one in manifest.rejected)
    rest = sum(count for _, count in reasons.most_common()[SHOWN:])
    settings = {name: value for name, value in manifest.settings.items() if name != "licenses" and value != []}
    return render_card(
        "dataset_card.md",
        front=front.to_yaml(line_break="\n"),
        title=title,
        total=len(dataset),
        size=dataset.size,
        moving=moving,
        longest=int(frames.max(initial=1)),
        splits=table(("split", "stickers"), ((HUB_SPLITS[name], count) for name, count in manifest.counts.items())),
        groups=manifest.groups,
        sources=sources_and_licences(manifest.sources, given),
        rejected=len(manifest.rejected),
        reasons=table(("reason", "files"), reasons.most_common(SHOWN) + [("other reasons", rest)] * (rest > 0)),
        version=version("rdtf"),
        settings=counted(settings),
        fingerprint=manifest.fingerprint,
    )


def render_card(template: str, **values: Any) -> str:
    """The text of a card's template in ``templates``. Its filter ``plain`` is :func:`plain_text`."""
    environment = Environment(
        loader=PackageLoader("rdtf"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"plain": plain_text, "quote": shlex.quote}
    return environment.get_template(template).render(**values)


def sources_and_licences(sources: Mapping[str, int], licences: Mapping[str, int]) -> str:
    """Tables of stickers by their source, and by their licence; ``""`` stands for stickers without one."""
    by_count = Counter({name: count for name, count in licences.items() if count}).most_common()
    of_licences = table(("licence", "stickers"), ((name or "not known", count) for name, count in by_count))
    return table(("source", "stickers"), sources.items()) + "\n" + of_licences


def counted(values: Mapping[str, object]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{plain_text(name)} {plain_text(value)}" for name, value in values.items())


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown, with a line break at its end."""
    first, *lines = (f"| {' | '.join(map(plain_text, cells))} |" for cells in (head, *rows))
    return "\n".join([first, "|---" * len(head) + "|", *lines, ""])


def plain_text(value: object) -> str:
    """A value as plain text. It is escaped, because names come from anywhere."""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return re.sub(r"([\\`*_\[\]{}|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
