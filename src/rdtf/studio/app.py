"""The page of the studio."""

from __future__ import annotations

import functools
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from importlib import resources
from typing import Any

import gradio as gr

from rdtf.export.target import load_target, target_names
from rdtf.options import WORDS_OPTIONS
from rdtf.studio import views
from rdtf.studio.endpoints import endpoints
from rdtf.studio.forms import fields_of, values_of
from rdtf.studio.maker import Progress
from rdtf.studio.parts import (
    EXPORTING,
    FOUR,
    HIDDEN,
    component,
    generation,
    given,
    plainly,
    progress,
    show,
    upload_field,
)
from rdtf.studio.state import Studio
from rdtf.studio.timeline_tab import timeline_tab
from rdtf.studio.training_tab import training_tab
from rdtf.whole_figure import ANY_MOTION, LOOPING, NO_MOTION

STYLE = (resources.files("rdtf.studio") / "studio.css").read_text("utf-8")
QUEUE = 100
"""Requests that wait at most; more are refused with a sentence."""
A_PAGE = 12
_SETTINGS = ("num_frames", "fps", "num_inference_steps", "guidance_scale", "output_size")
_SIZES = [("Discord, 160 px", "160px"), ("Telegram Desktop, 256 px", "256px"), ("small, 96 px", "96px")]


def theme() -> gr.themes.Base:
    """Fonts of the system only: no other ones are fetched."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build_page(studio: Studio) -> gr.Blocks:
    """The page and its endpoints."""
    with gr.Blocks(title="RDTF studio", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)) as page:
        names = studio.models.names()
        with gr.Row():
            gr.Markdown("# RDTF studio")
            model = gr.Dropdown(names, value=studio.models.preferred, label="model", elem_id="model", scale=1)
            size = gr.Radio(_SIZES, value=_SIZES[0][1], label="size in a chat", elem_id="size", scale=2)
        size_style = gr.HTML()
        picked, source = gr.State(""), gr.State("")
        with gr.Tab("Make") as making:
            parts = [_make_tab(studio, model)]
        with gr.Tab("Timeline") as timeline:
            parts.append(timeline_tab(studio, model, source))
        with gr.Tab("History") as history:
            parts.append(_history_tab(studio, history))
        with gr.Tab("Train") as training:
            training_tab(studio, training)
        with gr.Column() as panels:
            _picked_panel(studio, picked, source, parts)
        for tab in (making, timeline, history, training):
            tab.select(functools.partial(gr.update, visible=tab is not training), None, panels, **HIDDEN)
        size.change(_size_style, size, size_style, **HIDDEN)
        page.load(lambda: gr.update(choices=studio.models.names()), None, model, **HIDDEN)
        model.focus(lambda: gr.update(choices=studio.models.names()), None, model, **HIDDEN)
        for endpoint, options in endpoints(studio).items():
            gr.api(endpoint, **options)
    return page.queue(max_size=QUEUE, default_concurrency_limit=4)


def _size_style(size: str) -> str:
    known = dict(_SIZES).values()
    return f"<style>.gradio-container {{ --chat: {size if size in known else _SIZES[0][1]} !important; }}</style>"


def _make_tab(studio: Studio, model: gr.Dropdown) -> tuple[gr.HTML, gr.State]:
    fields = fields_of(WORDS_OPTIONS, _SETTINGS)
    with gr.Row():
        with gr.Column(scale=2):
            caption = gr.Textbox(
                label="what it shows, in words (with a picture: may be empty)",
                placeholder="rocket",
                max_lines=2,
                elem_id="caption",
            )
            with gr.Row():
                seed = gr.Number(0, label="seed", precision=0, minimum=0, elem_id="seed")
                loop = gr.Checkbox(True, label="loop", info="The last frame leads back to the first.", elem_id="loop")
                motion = gr.Dropdown(
                    [("the model's", ""), *((name, name) for name in (NO_MOTION, ANY_MOTION, *LOOPING))],
                    value="",
                    label="motion",
                    elem_id="motion",
                )
        with gr.Column(scale=1):
            upload = upload_field("a picture to animate", "upload")
            image = gr.Textbox(visible=False, label="sticker")
            image_shown = gr.HTML(elem_id="image")
    with gr.Row():
        make = gr.Button("Make four", variant="primary", elem_id="make")
        again = gr.Button("Four others", elem_id="again")
        cancel = gr.Button("Cancel", variant="stop", interactive=False, elem_id="cancel")
    with gr.Accordion("Settings", open=False, elem_id="more"), gr.Row():
        components = [component(field) for field in fields]
    status = gr.HTML(elem_id="status")
    cards = gr.HTML(js_on_load=views.PICK, elem_id="made")
    made: gr.State = gr.State([])

    def give(file: str | None) -> str:
        """Keep a picture or a sticker in the studio's folder. Returns its key, by which other endpoints take it."""
        return given(studio.library, file)

    upload.change(plainly(give), upload, image, api_name="give")
    image.change(lambda key: show(studio.library, [key] if key else []), image, image_shown, **HIDDEN)

    async def run(
        name: str | None,
        words: str | None,
        first: int | None,
        loop: bool,
        how: str | None,
        pinned: str | None,
        *settings: Any,
    ) -> AsyncGenerator[tuple[Any, ...], None]:
        if not ((words or "").strip() or pinned):
            raise ValueError("write what the sticker shows, or drop a picture to animate")
        yield views.bar(0, 1, "Waiting for the model"), "", []
        step = Progress(0, 1)
        values = {**values_of(fields, settings), "seed": int(first or 0), "loop": bool(loop), "motion": how or None}
        pins = [(0, pinned, 0)] if pinned else []
        work = studio.maker.make(name or "", words or "", pins=pins, count=FOUR, settings=values)
        async with aclosing(work) as steps:
            async for now in steps:
                shown = gr.skip() if now.keys == step.keys else show(studio.library, now.keys)
                step = now
                yield progress(step), shown, list(step.keys)
        text = "Ready, and kept in the history. Click on a sticker to download it."
        yield views.note(f"{text} {step.note}." if step.note else text), gr.skip(), gr.skip()

    other = again.click(lambda: random.randrange(2**31), None, seed, **HIDDEN)
    runs = [(trigger, run) for trigger in (make.click, caption.submit, other.then)]
    inputs, outputs = [model, caption, seed, loop, motion, image, *components], [status, cards, made]
    generation(runs, inputs, outputs, [make, again], cancel)
    return cards, made


def _history_tab(studio: Studio, tab: gr.Tab) -> tuple[gr.HTML, gr.State]:
    with gr.Row():
        look = gr.Button("Look again", elem_id="look")
        newer, older = gr.Button("Newer"), gr.Button("Older", elem_id="older")
    count = gr.HTML(elem_id="count")
    cards = gr.HTML(js_on_load=views.PICK, elem_id="history")
    shown: gr.State = gr.State([])
    at = gr.State(0)

    def page(start: int, by: int) -> tuple[int, str, str, list[str]]:
        keys = studio.library.listed()
        last = (max(len(keys), 1) - 1) // A_PAGE * A_PAGE
        start = min(max(start + by, 0), last)
        part = keys[start : start + A_PAGE]
        text = f"{len(keys)} stickers in {studio.library.folder}" + (f", from {start + 1} on" if part else "")
        return start, views.note(text), show(studio.library, part), part

    for asked, by in ((newer.click, -A_PAGE), (older.click, A_PAGE), (look.click, 0), (tab.select, 0)):
        asked(functools.partial(page, by=by), at, [at, count, cards, shown], **HIDDEN)
    return cards, shown


def _picked_panel(
    studio: Studio, picked: gr.State, source: gr.State, parts: Sequence[tuple[gr.HTML, gr.State]]
) -> None:
    """The sticker that was clicked: its files for messengers, and the packs it goes into."""
    library = studio.library
    targets = sorted((load_target(name).pack is None, load_target(name).title, name) for name in target_names())
    choices = [(title, name) for _, title, name in targets]  # messengers first
    chosen: gr.State = gr.State([])
    with gr.Column(visible=False, elem_id="panel") as panel:
        about = gr.HTML(elem_id="picked")
        with gr.Row():
            target = gr.Dropdown(choices, value="telegram", label="for", elem_id="target", min_width=280)
            export = gr.Button("Make the file", variant="primary", elem_id="export")
            use = gr.Button("Frames to the timeline", elem_id="use")
            add = gr.Button("Into the pack", elem_id="add")
            delete = gr.Button("Delete", variant="stop", elem_id="delete")
        link = gr.HTML(elem_id="link")
    with gr.Accordion("Pack", open=False, elem_id="pack"):
        members = gr.HTML(views.note("Nothing is in the pack yet."), elem_id="members")
        with gr.Row():
            title = gr.Textbox("My stickers", label="name", max_lines=1)
            author = gr.Textbox("RDTF", label="author", max_lines=1)
            pack = gr.Button("Make the pack", variant="primary", elem_id="make-pack")
            empty = gr.Button("Empty the pack")
        pack_link = gr.HTML(elem_id="pack-link")

    def pick(keys: list[str], event: gr.EventData) -> tuple[Any, ...]:
        entry = library.entry(event.pick)
        facts = f"Picked: {entry.caption or '(no caption)'}, seed {entry.seed}, model {entry.model}"
        return entry.key, show(library, keys, entry.key), gr.update(visible=True), views.note(facts), ""

    for part, state in parts:
        part.click(plainly(pick), state, [picked, part, panel, about, link], **HIDDEN)

    def make_file(key: str, name: str) -> str:
        path, made = library.export(key, name)
        changes = "".join(f"; {change}" for change in made.changes)
        return views.download(path.name, f"{len(made.data):,} bytes, {made.frames} frames, {made.quality}{changes}")

    export.click(plainly(make_file), [picked, target], link, **EXPORTING, **HIDDEN)
    use.click(lambda key: key, picked, source, **HIDDEN)

    def remove(key: str) -> tuple[Any, ...]:
        library.delete([key])
        return "", gr.update(visible=False), views.note("Deleted.")

    delete.click(plainly(remove), picked, [picked, panel, link], **HIDDEN)

    def put(keys: list[str], key: str) -> tuple[list[str], str]:
        keys = list(dict.fromkeys([*keys, library.entry(key).key]))
        return keys, views.note(f"In the pack: {len(keys)}.")

    add.click(plainly(put), [chosen, picked], [chosen, members], **HIDDEN)
    empty.click(lambda: ([], views.note("Nothing is in the pack yet.")), None, [chosen, members], **HIDDEN)

    def make_pack(keys: list[str], name: str, title: str, author: str) -> str:
        path, left_out = library.pack(keys, name, title, author)
        return views.download(path.name, "".join(f"Left out {key}: {why}. " for key, why in left_out.items()))

    pack.click(plainly(make_pack), [chosen, target, title, author], pack_link, **EXPORTING, **HIDDEN)
