"""The tab with the timeline: pin frames, let the model fill the rest, make single frames anew."""

from __future__ import annotations

import functools
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import gradio as gr

from rdtf.options import FRAMES_OPTIONS, MAX_FRAMES
from rdtf.studio import views
from rdtf.studio.forms import fields_of, values_of
from rdtf.studio.parts import HIDDEN, component, generation, given, plainly, progress, show, upload_field
from rdtf.studio.state import Studio
from rdtf.studio.timeline import Slot, Timeline

_SETTINGS = ("fps", "num_inference_steps", "guidance_scale", "image_guidance_scale", "output_size")


def timeline_tab(studio: Studio, model: gr.Dropdown, source: gr.State) -> tuple[gr.HTML, gr.State]:
    """Build the tab.

    Args:
        source: key of the sticker whose frames can be placed.

    Returns:
        the part that shows the sticker that was made, and its keys.
    """
    library = studio.library
    line, frame = gr.State(Timeline()), gr.State(0)
    fields = fields_of(FRAMES_OPTIONS, _SETTINGS)
    gr.Markdown("Choose a slot. Place a frame in it, or keep one that was made. The model fills the other slots.")
    slots = gr.HTML(views.timeline(Timeline()), js_on_load=views.PICK, elem_id="timeline")
    with gr.Row():
        clear = gr.Button("Empty this slot", elem_id="clear")
        keep = gr.Button("Keep this frame", elem_id="keep")
        keep_all = gr.Button("Keep all frames", elem_id="keep-all")
        before = gr.Button("Slot before", elem_id="before")
        after = gr.Button("Slot after", elem_id="after")
        count = gr.Slider(1, MAX_FRAMES, value=8, step=1, label="slots", elem_id="slots", min_width=240)
    with gr.Row():
        with gr.Column(scale=1):
            upload = upload_field("a picture or a sticker to take frames from", "line-upload")
        with gr.Column(scale=2):
            frames = gr.HTML(js_on_load=views.PICK, elem_id="source")
            with gr.Row():
                place = gr.Button("Place this frame", elem_id="place")
                place_all = gr.Button("Place all its frames", elem_id="place-all")
    with gr.Row():
        caption = gr.Textbox(label="caption", placeholder="may be empty", scale=3, elem_id="line-caption")
        seed = gr.Number(0, label="seed", precision=0, minimum=0, elem_id="line-seed")
        loop = gr.Checkbox(False, label="loop", info="The last frame leads back to the first.", elem_id="line-loop")
    with gr.Accordion("Settings", open=False), gr.Row():
        components = [component(field) for field in fields]
    with gr.Row():
        fill = gr.Button("Fill the slots", variant="primary", elem_id="fill")
        again = gr.Button("This frame anew", elem_id="anew")
        cancel = gr.Button("Cancel", variant="stop", interactive=False, elem_id="line-cancel")
    status = gr.HTML(elem_id="line-status")
    result = gr.HTML(js_on_load=views.PICK, elem_id="line-result")
    keys: gr.State = gr.State([])

    def changed(line: Timeline) -> tuple[Timeline, str]:
        return line, views.timeline(line)

    def on(button: gr.Button, change: Callable[[Timeline], Timeline]) -> None:
        button.click(plainly(lambda line: changed(change(line))), line, [line, slots], **HIDDEN)

    on(clear, Timeline.cleared)
    on(keep, lambda line: line.pinned(only=line.at))
    on(keep_all, Timeline.pinned)
    for button, sides in ((before, (1, 0)), (after, (0, 1))):

        def longer(line: Timeline, sides: tuple[int, int] = sides) -> tuple[Timeline, str, int]:
            line = line.longer(*sides)
            return *changed(line), len(line.slots)

        button.click(plainly(longer), line, [line, slots, count], **HIDDEN)
    count.release(lambda line, count: changed(line.resized(int(count))), [line, count], [line, slots], **HIDDEN)

    def choose(line: Timeline, event: gr.EventData) -> tuple[Timeline, str]:
        return changed(line.chosen(int(event.pick)))

    slots.click(plainly(choose), line, [line, slots], **HIDDEN)

    def take(file: str | None) -> str:
        return given(library, file)

    upload.upload(plainly(take), upload, source, **HIDDEN)

    def strip(key: str) -> tuple[str, int]:
        return (views.strip(key, len(library.read(key)), 0) if key else "", 0)

    source.change(plainly(strip), source, [frames, frame], **HIDDEN)

    def choose_frame(key: str, event: gr.EventData) -> tuple[str, int]:
        at = int(event.pick)
        return views.strip(key, len(library.read(key)), at), at

    frames.click(plainly(choose_frame), source, [frames, frame], **HIDDEN)

    def placed(line: Timeline, key: str, frame: int | None) -> tuple[Timeline, str]:
        if not key:
            raise ValueError("drop a picture or a sticker first, or pick one that was made")
        some = range(len(library.read(key))) if frame is None else [frame]
        return changed(line.placed([Slot(key, i) for i in some]))

    place.click(plainly(placed), [line, source, frame], [line, slots], **HIDDEN)
    place_all.click(plainly(lambda line, key: placed(line, key, None)), [line, source], [line, slots], **HIDDEN)

    async def run(
        line: Timeline, name: Any, words: Any, seed: Any, loop: bool, *settings: Any, anew: bool = False
    ) -> AsyncGenerator[tuple[Any, ...], None]:
        """Fill the slots; with ``anew`` only the chosen one, with another seed and around all other frames."""
        skip = gr.skip()
        yield views.bar(0, 1, "Waiting for the model"), skip, skip, skip, skip
        if anew and line.slots[line.at] is None:
            raise ValueError("there is no frame in the chosen slot yet; fill the slots first")
        seed = random.randrange(2**31) if anew else int(seed or 0)
        values = {**values_of(fields, settings), "seed": seed, "loop": bool(loop), "num_frames": len(line.slots)}
        pins = (line.pinned(but=line.at) if anew else line).pins()
        if len(pins) == len(line.slots):
            raise ValueError("every slot is pinned; empty one of them, or add a slot")
        made: tuple[str, ...] = ()
        note = ""
        work = studio.maker.make(name or "", words or "", pins=pins, settings=values)
        async with aclosing(work) as steps:
            async for step in steps:
                made, note = step.keys, step.note
                yield progress(step), skip, skip, skip, skip
        line = line.replaced(line.at, Slot(made[0], line.at, pinned=False)) if anew else line.filled(made[0])
        text = f"Seed {seed}. The sticker is in the history; click on it to download it. {note}"
        yield views.note(text), *changed(line), show(library, made), list(made)

    inputs = [line, model, caption, seed, loop, *components]
    outputs = [status, line, slots, result, keys]
    runs: list[tuple[Any, Any]] = [(fill.click, run), (again.click, functools.partial(run, anew=True))]
    changing = [clear, keep, keep_all, before, after, place, place_all]  # what they change would be lost
    generation(runs, inputs, outputs, [fill, again, *changing], cancel)
    return result, keys
