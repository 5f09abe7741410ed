"""The parts of the page that are the studio's own, as HTML. Every text that is put in is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from rdtf.page import line_chart, smooth, thin
from rdtf.studio.library import Entry
from rdtf.studio.timeline import Timeline
from rdtf.studio.trainings import Status

_POINTS = 300
GROUNDS = ("light", "dark", "checker")
PICK = """
element.addEventListener('click', event => {
  const part = event.target.closest('[data-pick]');
  if (part) trigger('click', {pick: part.dataset.pick});
});
"""
"""Script of parts that are clicked: the event carries what the clicked element is for."""


def cards(entries: Sequence[Entry], picked: Sequence[str] = ()) -> str:
    """Stickers on the grounds of chats, moving, each with its caption and seed."""
    figure = Markup(
        '<figure class="sticker{picked}" data-pick="{key}" tabindex="0" title="{caption}">{bubbles}'
        "<figcaption><b>{caption}</b> {facts}</figcaption></figure>"
    )
    shown = []
    for entry in entries:
        image = Markup('<span class="bubble {ground}"><img src="/stickers/{key}" alt="{caption}"></span>')
        bubbles = Markup("").join(image.format(ground=g, key=entry.key, caption=entry.caption) for g in GROUNDS)
        facts = "" if entry.seed is None else f"seed {entry.seed}"
        chosen = " picked" if entry.key in picked else ""
        caption = entry.caption or "(no caption)"
        shown.append(figure.format(key=entry.key, caption=caption, facts=facts, bubbles=bubbles, picked=chosen))
    return str(Markup('<div class="cards">{}</div>').format(Markup("").join(shown))) if shown else ""


def bar(done: int, total: int, text: str) -> str:
    """A progress bar with a text."""
    share = round(100 * done / max(total, 1))
    return str(Markup('<div class="bar"><i style="width:{}%"></i><span>{}</span></div>').format(share, text))


def note(text: str) -> str:
    """A sentence."""
    return str(Markup('<p class="note">{}</p>').format(text))


def download(name: str, text: str) -> str:
    """A link to a file of the folder for exports, with what is to be said about it."""
    return str(
        Markup(
            '<p class="note"><a class="download" href="/exports/{0}" download="{0}">Download {0}</a> {1}</p>'
        ).format(name, text)
    )


def page_link(address: str, text: str) -> str:
    """A link to a page about a dataset or a training."""
    return str(Markup('<p class="note"><a href="/pages/{}" target="_blank">Open {}</a></p>').format(address, text))


def job(name: str, state: str, log: str) -> str:
    """How a job is, and what it has printed last."""
    return str(Markup('<p class="note">{}: {}</p><pre class="log">{}</pre>').format(name, state, log[-4000:]))


def strip(key: str, count: int, at: int) -> str:
    """The frames of a sticker, to choose one of them."""
    frame = Markup(
        '<button class="slot made{on}" data-pick="{i}" title="frame {n}">'
        '<img src="/frames/{key}/{i}"><b>{n}</b></button>'
    )
    frames = Markup("").join(frame.format(key=key, i=i, n=i + 1, on=" at" if i == at else "") for i in range(count))
    return str(Markup('<div class="slots">{}</div>').format(frames))


def training(name: str, status: Status) -> str:
    """How a training is: state, losses, newest preview, and what it has printed last."""
    share = f"step {status.step} of {status.steps}" if status.steps else "not begun"
    last = f", loss {status.losses['training'][-1][1]:.3f}" if status.losses["training"] else ""
    smoothed = {label: smooth(points, _POINTS) for label, points in status.losses.items() if points}
    raw = {label: thin(points, _POINTS) for label, points in status.losses.items() if points}
    chart = line_chart(smoothed, title="Loss", y_label="loss", raw=raw) if smoothed else Markup("")
    image = Markup("")
    if status.preview is not None:
        address = Markup(
            '<figure class="preview"><img src="/previews/{}?{}" alt="preview"><figcaption>{}</figcaption></figure>'
        )
        image = address.format(name, status.preview.stem, status.preview.stem)
    text = f"{name}: {status.state}, {share}{last}"
    log = Markup('<pre class="log">{}</pre>').format(status.log[-4000:]) if status.log else ""
    return bar(status.step, status.steps, text) + str(
        Markup('<div class="charts">{}{}</div>{}').format(chart, image, log)
    )


def timeline(line: Timeline) -> str:
    """The slots of a timeline; a slot is empty, holds a frame that was made, or a pinned one."""
    shown = []
    for i, slot in enumerate(line.slots):
        kind = "empty" if slot is None else "pinned" if slot.pinned else "made"
        inside = Markup("") if slot is None else Markup('<img src="/frames/{}/{}">').format(slot.key, slot.frame)
        on = " at" if i == line.at else ""
        shown.append(
            Markup('<button class="slot {}{}" data-pick="{}" title="slot {}: {}">{}<b>{}</b></button>').format(
                kind, on, i, i + 1, kind, inside, i + 1
            )
        )
    return str(Markup('<div class="slots">{}</div>').format(Markup("").join(shown)))
