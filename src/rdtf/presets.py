"""Named sizes of the network. Each is one dial from which the widths, the text width and the codec follow."""

from __future__ import annotations

from typing import Any

_SMALL_KNOBS: dict[str, Any] = {"norm": "channel", "ff_multiple": 2, "head_dim": 48, "layers": 1, "pooled_text": True}

# Columns compare by eye: widths, which levels attend, how far the STI layers pool.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        **_SMALL_KNOBS,
        "widths": (48, 96, 144),
        "attention": (False, False, True),
        "sti_pool": (4, 2, 1),
        "sti_heads": 4,
        "text_width": 192,
        "condition_width": 32,
        "condition_out": 16,
    },
    "small": {
        **_SMALL_KNOBS,
        "widths": (96, 192, 288),
        "attention": (False, True, True),
        "sti_pool": (4, 2, 1),
        "sti_heads": 6,
        "text_width": 256,
        "condition_width": 64,
        "condition_out": 32,
    },
    "base": {
        **_SMALL_KNOBS,
        "widths": (128, 256, 384, 384),
        "attention": (False, True, True, True),
        "sti_pool": (4, 2, 1, 1),
        "sti_heads": 8,
        "head_dim": 64,
        "layers": 2,
        "text_width": 384,
        "condition_width": 96,
        "condition_out": 48,
    },
    # The paper's widths (Table 6): 0.96 B parameters within 3 %.
    "paper": {
        "widths": (320, 640, 1024, 1280),
        "attention": (True, True, True, False),
        "sti_pool": (2, 2, 2, 2),
        "sti_heads": 8,
        "head_dim": 64,
        "layers": 2,
        "ff_multiple": 4,
        "norm": "group",
        "text_width": 1024,
        "condition_width": 16,
        "condition_out": 4,
        "temporal_encoders": True,
    },
}


def size_config(name: str) -> dict[str, Any]:
    """Keyword arguments of :class:`rdtf.model.DFGN` for a named size.

    Raises:
        ValueError: no such size.
    """
    if name not in SIZES:
        raise ValueError(f"unknown size {name!r}; choose one of {', '.join(SIZES)}")
    return dict(SIZES[name])
