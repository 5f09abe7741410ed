"""The card of a published dataset: a README with front matter for the Hub."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version

import numpy as np

from rdtf.data.dataset import Rejection, StickerDataset

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
    settings = {name: value for name, value in manifest.settings.items() if name != "licenses" and value != []}
    return f"""---
{front.to_yaml(line_break=chr(10))}
---

# {plain_text(title)}

{len(dataset):,} stickers of {dataset.size} x {dataset.size} px with transparency and captions: {moving:,} animated
ones of up to {frames.max(initial=1)} frames and {len(dataset) - moving:,} stills.

```python
from datasets import load_dataset

stickers = load_dataset("path/to/this/dataset", split="train")  # "image" is a Pillow image with n_frames
```

Each sticker is a PNG, an animated one (APNG) if it has several frames: every frame in RGBA without loss, each with its
time. Beside the files of a folder lies a `metadata.jsonl`:

| field | what |
|---|---|
| file_name | the file, in the same folder |
| captions | all captions, the best one first; an empty text where nothing is known |
| durations | milliseconds that each frame is shown |
| split | train, validation or test |
| source | the file that it was made from, below the name of its source |
| license | the licence that its source names, or an empty text |
| attributes | everything else that is known, as JSON |

## Splits

{_lines(table(("split", "stickers"), ((HUB_SPLITS[split], count) for split, count in manifest.counts.items())))}
{manifest.groups:,} groups of near-duplicates are left in; no group is in more than one split unless its metadata asks
for that.

## Sources and licences

{_lines(sources_and_licences(manifest.sources, given))}
## What was left out

{_left_out(manifest.rejected)}
## How it was prepared

With [RDTF](https://arxiv.org/abs/2503.17735) {version("rdtf")} (`rdtf prepare`): decoded, scaled into the square with
the aspect kept, equal stickers taken once, near-duplicates found, splits drawn by content.
Settings: {counted(settings)}.
Fingerprint of the prepared dataset: `{manifest.fingerprint}`.
"""


def _left_out(rejected: Sequence[Rejection]) -> str:
    if not rejected:
        return "Nothing.\n"
    reasons = Counter(re.sub(r"(duplicate of) .*", r"\1 another sticker", entry.reason) for entry in rejected)
    rest = sum(count for _, count in reasons.most_common()[SHOWN:])
    shown = [*reasons.most_common(SHOWN), *([("other reasons", rest)] if rest else [])]
    said = f"{len(rejected):,} files, or lines of metadata. Each is in `left_out.jsonl` with its reason."
    return _lines([said, "", *table(("reason", "files"), shown)])


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def sources_and_licences(sources: Mapping[str, int], licences: Mapping[str, int]) -> list[str]:
    """Tables of stickers by their source, and by their licence; ``""`` stands for stickers without one."""
    by_count = Counter({name: count for name, count in licences.items() if count})
    return [
        *table(("source", "stickers"), sources.items()),
        *table(("licence", "stickers"), ((name or "not known", n) for name, n in by_count.most_common())),
    ]


def counted(values: Mapping[str, object]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{plain_text(name)} {plain_text(value)}" for name, value in values.items())


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table, and an empty one."""
    first, *lines = (f"| {' | '.join(map(plain_text, cells))} |" for cells in (head, *rows))
    return [first, "|---" * len(head) + "|", *lines, ""]


def plain_text(value: object) -> str:
    """A value as plain text. It is escaped, because names come from anywhere."""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return re.sub(r"([\\`*_\[\]{}|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
