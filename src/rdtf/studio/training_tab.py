"""The tab for training: from a folder of stickers to a dataset, a plan, and trainings that can be watched."""

from __future__ import annotations

from typing import Any

import gradio as gr

from rdtf.studio import views
from rdtf.studio.forms import values_of
from rdtf.studio.jobs import RUNNING
from rdtf.studio.parts import HIDDEN, component, plainly
from rdtf.studio.state import Studio
from rdtf.studio.trainings import PREPARING, TRAINING

_SECONDS = 3
SCRATCH = "nothing: from scratch"


def training_tab(studio: Studio, tab: gr.Tab) -> None:
    """Build the tab."""
    trainings = studio.trainings
    with gr.Accordion("1. Data", open=True):
        with gr.Row():
            sources = list(trainings.sources)
            source = gr.Dropdown(sources, value=sources[0] if sources else None, label="stickers (--stickers)")
            name = gr.Textbox("stickers", label="name of the dataset", max_lines=1, elem_id="data-name")
            prepare = gr.Button("Prepare and inspect", variant="primary", elem_id="prepare")
        with gr.Row():
            preparing = [component(field) for field in PREPARING]
    with gr.Accordion("2. Training", open=True):
        with gr.Row():
            data = gr.Dropdown([], label="dataset", elem_id="data")
            run = gr.Textbox("mine", label="name of the training", max_lines=1, elem_id="run-name")
            start_from = gr.Dropdown([SCRATCH], value=SCRATCH, label="begin with (--from)", elem_id="from")
        with gr.Row():
            settings = [component(field) for field in TRAINING]
        with gr.Row():
            plan = gr.Button("Plan", elem_id="plan")
            start = gr.Button("Start", variant="primary", elem_id="start")
    with gr.Accordion("3. Watch", open=True):
        with gr.Row():
            watched = gr.Dropdown([], label="training", elem_id="watched")
            stop = gr.Button("Save and stop", variant="stop", elem_id="stop")
            resume = gr.Button("Resume", elem_id="resume")
            report = gr.Button("Report", elem_id="report")
        link = gr.HTML(elem_id="page-link")
        view = gr.HTML(elem_id="watch")
        log = gr.HTML(elem_id="job-log")
    job = gr.State("")
    timer = gr.Timer(_SECONDS, active=False)

    def lists() -> tuple[Any, ...]:
        names, there = trainings.names(), trainings.datasets()
        return (
            gr.update(choices=there, value=there[-1] if there else None),
            gr.update(choices=names, value=names[-1] if names else None),
            gr.update(choices=[SCRATCH, *studio.models.names()]),
            gr.update(active=True),
        )

    tab.select(lists, None, [data, watched, start_from, timer], **HIDDEN)

    def do_prepare(source: str | None, name: str | None, *values: Any) -> tuple[str, str]:
        return trainings.prepare(source or "", name or "", values_of(PREPARING, values)), ""

    prepare.click(plainly(do_prepare), [source, name, *preparing], [job, link], **HIDDEN)

    def do_plan(data: str | None, model: str | None, *values: Any) -> tuple[str, str]:
        return trainings.plan(data or "", values_of(TRAINING, values), _model(model)), ""

    plan.click(plainly(do_plan), [data, start_from, *settings], [job, link], **HIDDEN)

    def do_start(data: str | None, name: str | None, model: str | None, *values: Any) -> Any:
        trainings.train(data or "", name or "", values_of(TRAINING, values), _model(model))
        return "", gr.update(choices=trainings.names(), value=name)

    start.click(plainly(do_start), [data, run, start_from, *settings], [job, watched], **HIDDEN)

    def do_stop(name: str | None) -> str:
        trainings.stop(name or "")
        return views.note("It saves after this step, and stops.")

    stop.click(plainly(do_stop), watched, link, **HIDDEN)

    def do_resume(name: str | None) -> str:
        trainings.resume(name or "")
        return views.note("It goes on from its newest checkpoint.")

    resume.click(plainly(do_resume), watched, link, **HIDDEN)

    def do_report(name: str | None) -> str:
        return views.page_link(trainings.report(name or "").name, "the report")

    report.click(plainly(do_report), watched, link, **HIDDEN)

    def look(name: str | None, job: str) -> tuple[Any, ...]:
        shown = views.training(name, trainings.status(name)) if name in trainings.names() else ""
        said, page, there = "", gr.skip(), gr.skip()
        if job:
            state = trainings.jobs.state(job)
            said = views.job(job, state, trainings.jobs.log(job))
            if job.startswith("data-") and state != RUNNING:
                name = job.removeprefix("data-")
                there = gr.update(choices=trainings.datasets(), value=name if name in trainings.datasets() else None)
                if (trainings.pages / name / "index.html").is_file():
                    page = views.page_link(f"{name}/index.html", "the page about this dataset")
                return shown, said, page, there, ""
        return shown, said or gr.skip(), page, there, job

    timer.tick(plainly(look), [watched, job], [view, log, link, data, job], show_progress="hidden", **HIDDEN)


def _model(choice: str | None) -> str:
    return "" if choice in (None, SCRATCH) else str(choice)
