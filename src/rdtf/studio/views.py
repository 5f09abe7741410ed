"""The parts of the page that are the studio's own, as HTML: the macros of ``templates/studio.html``.

Every text that is put in is escaped.
"""

from __future__ import annotations

from rdtf.page import line_chart, macros, smooth, thin
from rdtf.studio.trainings import Status

_POINTS = 300
PICK = """
element.addEventListener('click', event => {
  const part = event.target.closest('[data-pick]');
  if (part) trigger('click', {pick: part.dataset.pick});
});
"""
"""Script of parts that are clicked: the event carries what the clicked element is for."""

_parts = macros("studio.html")
cards, bar, note, download = _parts.cards, _parts.bar, _parts.note, _parts.download
page_link, job, strip, timeline = _parts.page_link, _parts.job, _parts.strip, _parts.timeline


def training(name: str, status: Status) -> str:
    """How a training is: state, losses, newest preview, and what it has printed last."""
    lines = {label: points for label, points in status.losses.items() if points}
    smoothed = {label: smooth(points, _POINTS) for label, points in lines.items()}
    raw = {label: thin(points, _POINTS) for label, points in lines.items()}
    return _parts.training(name, status, line_chart(smoothed, title="Loss", y_label="loss", raw=raw))
