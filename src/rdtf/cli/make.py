"""Commands that make stickers: generate, animate, inbetween, extend; explain, which makes them again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rdtf.cli.common import STOPPED, check_given, say, takes
from rdtf.hub import SHIPPED
from rdtf.options import COUNTED_FRAMES, IMAGE_OPTIONS, MAX_FRAMES, WORDS_OPTIONS
from rdtf.progress import bars, printable

if TYPE_CHECKING:
    from rdtf.provenance import Task

Caption = Annotated[str, typer.Option(help="What it shows, in words.")]


def _make(task: Task, caption: str, places: Sequence[tuple[Any, ...]], given: dict[str, Any]) -> None:
    """Run the pipeline and write the files; with more than one sticker, each name gets a number.

    Args:
        places: where the given frames come from, as arguments of :class:`rdtf.provenance.Given`.
    """
    from rdtf.io.write import check_target, save_sticker
    from rdtf.provenance import Call, Given, load_frames, make_noted

    frames = [Given(*place) for place in places]
    model, out, strict = given.pop("model", SHIPPED), given.pop("out", "sticker.webp"), given.pop("strict", False)
    given.setdefault("loop", task in ("generate", "animate"))
    count = given.get("num_stickers_per_prompt", 1)
    paths = [out] if count == 1 else [_numbered(out, number) for number in range(1, count + 1)]
    for path in paths:
        check_target(path, [model, *(frame.path for frame in frames)])
    _check_length(given)
    pixels = load_frames(frames)
    if frames and not any(frame[..., 3].any() for frame in pixels.values()):
        raise ValueError("everything in the given frames is transparent; there is nothing to go on with")
    check_given(model=model)
    from rdtf.loading import load_pipeline  # it imports torch
    from rdtf.making import UNPAINTED, moved_remark, understand

    pipe = load_pipeline(model)
    fit, words = understand(pipe, caption, strict, given=[frame.position for frame in frames])
    caption, given = fit.caption, {**words, **given}
    if fit.note:
        say(printable(fit.note))
    if frames and model == SHIPPED and all(frame[..., 3].all() for frame in pixels.values()):
        say(
            "The picture has no transparent ground, as the model's stickers have; cut the thing out for a better result"
        )
    if cut := pipe.text_encoder.unread(caption):
        say(f"The model does not read the whole caption; left out: {printable(cut[:200])}")
    with bars() as progress:
        bar = progress.add_task("Generating", total=given.get("num_inference_steps", pipe.config.steps), note="")
        call = Call(task, model, caption, given, frames)
        stickers = make_noted(pipe, call, pixels, lambda done, total: progress.update(bar, completed=done, total=total))
    if moved := moved_remark(fit, given, stickers):
        say(moved)
    elif task == "animate" and model == SHIPPED and not given.get("motion"):
        say("If parts of the picture break: --motion dance (or jump, spin, ...) moves it as a whole")
    if any(UNPAINTED in sticker.attributes for sticker in stickers):
        say(f"It has no main colour, so {given['colour']!r} changed nothing")
    for path, sticker in zip(paths, stickers, strict=True):
        save_sticker(sticker, path)
        say(f"Wrote {path}")


def _check_length(given: dict[str, Any]) -> None:
    """Refuse a sticker of too many frames, or one that lasts longer than any that is read."""
    from rdtf.io.job import LIMITS

    frames = given.get("num_frames", 8)
    if frames > MAX_FRAMES:
        raise ValueError(f"that makes {frames} frames; at most {MAX_FRAMES} are possible")
    seconds = sum(given["durations"]) / 1000 if "durations" in given else frames / given.get("fps", 8.0)
    if frames > 1 and seconds > LIMITS.seconds:
        raise ValueError(
            f"the {frames} frames would last {seconds:.1f} s, and stickers of more than {LIMITS.seconds:g} s are not "
            "read again; give a higher --fps"
        )


def _numbered(out: str, number: int) -> str:
    """``a.sheet.png`` to ``a-1.sheet.png``, the folder ``v1.0/`` to ``v1.0-1/``."""
    from rdtf.io.write import SHEET_SUFFIX

    ending = "/" if out.endswith(("/", os.sep)) else Path(out).suffix
    if out.lower().endswith(SHEET_SUFFIX):
        ending = out[-len(SHEET_SUFFIX) :]
    return f"{out.removesuffix(ending)}-{number}{ending}" if ending else f"{out}-{number}"


@takes(WORDS_OPTIONS)
def generate(
    caption: Annotated[str | None, typer.Argument(help="What to show, in words.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="File of captions (.csv, .jsonl, .txt): a sticker each, into the folder -o."),
    ] = None,
    ending: Annotated[str, typer.Option("--format", help="With --from: webp, png, apng or gif.")] = "webp",
    engine: Annotated[str, typer.Option(help="With --from: local, or ray: a Ray cluster.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="With --engine ray: generators at a time.")] = None,
    *,
    given: dict[str, Any],
) -> None:
    """Make a sticker from words, or with --from one for each caption of a file.

    With --from the same command goes on where it was stopped; exit code 75: stopped by Ctrl-C.
    """
    if (caption is None) == (source is None):
        raise ValueError("give a caption, or a file of captions with --from")
    if caption is not None:
        _make("generate", caption, [], given)
    elif source is not None:
        _make_many(source, given, ending=f".{ending.lstrip('.')}", engine=engine, workers=workers)


def _make_many(source: Path, given: dict[str, Any], **options: Any) -> None:
    """Run the pipeline on a file of captions."""
    if "out" not in given:
        raise ValueError("--from writes many stickers; name their folder with -o")
    if given.get("num_stickers_per_prompt", 1) != 1:
        raise ValueError("--from makes one sticker a row; for more of a caption write its row again")
    model, out, strict = given.pop("model", SHIPPED), Path(given.pop("out")), given.pop("strict", False)
    from rdtf.many import MANIFEST, generate_many

    with bars() as progress:
        bar = progress.add_task("Generating", total=None, note="")
        try:
            outcome = generate_many(
                source,
                out,
                model,
                {"loop": True, **{name: value for name, value in given.items() if name != "num_stickers_per_prompt"}},
                strict=strict,
                **options,
                advance=lambda done, total: progress.update(bar, completed=done, total=total),
            )
        except KeyboardInterrupt:
            say(f"Stopped; the same command goes on in {out}")
            raise typer.Exit(STOPPED) from None
    say(f"Wrote {outcome.made} stickers into {out} ({outcome.kept} were there already)")
    if outcome.unknown:
        say(
            f"The model was not trained on {outcome.unknown} of the captions. Where {MANIFEST} has "
            '"made", it drew that instead'
        )


@takes(IMAGE_OPTIONS)
def animate(
    image: Annotated[Path, typer.Argument(help="The image (of an animation: its first frame).")],
    caption: Annotated[str, typer.Argument(help="What it does, in words.")] = "",
    at: Annotated[
        int, typer.Option(min=0, max=MAX_FRAMES - 1, help="Where the image stands in the sticker, from 0.")
    ] = 0,
    *,
    given: dict[str, Any],
) -> None:
    """Bring an image to life, with or without a caption."""
    _make("animate", caption, [(at, image)], given)


@takes(COUNTED_FRAMES)
def inbetween(
    images: Annotated[list[Path], typer.Argument(help="Key frames in order, at least two.")],
    caption: Caption = "",
    between: Annotated[int, typer.Option(min=1, max=14, help="New frames between two given ones.")] = 1,
    *,
    given: dict[str, Any],
) -> None:
    """Fill the gaps between key frames; with --loop also from the last back to the first."""
    if len(images) < 2:
        raise ValueError("in-betweening needs at least two images")
    total = len(images) * (between + 1) - (0 if given.get("loop") else between)
    places = [(i * (between + 1), path) for i, path in enumerate(images)]
    _make("inbetween", caption, places, {"num_frames": total, **given})


@takes(COUNTED_FRAMES)
def extend(
    sticker: Annotated[Path, typer.Argument(help="The sticker to go on with.")],
    caption: Caption = "",
    after: Annotated[int, typer.Option(min=0, max=15, help="New frames behind it.")] = 3,
    before: Annotated[int, typer.Option(min=0, max=15, help="New frames in front of it.")] = 0,
    context: Annotated[
        int | None, typer.Option(min=1, max=15, help="Frames kept of it, evenly spaced; default: to fill up 8.")
    ] = None,
    *,
    given: dict[str, Any],
) -> None:
    """Make a sticker longer, forwards or backwards.

    Its frames keep their times, and new ones are shown for the mean of them; --fps gives all frames one time.
    """
    from rdtf.io.wall import read_sticker

    if before + after == 0:
        raise ValueError("nothing to add: give --after or --before")
    most = context or max(2, 8 - before - after)
    source = read_sticker(sticker, max_frames=most)
    total = before + len(source) + after
    times, new = source.durations.tolist(), float(source.durations.mean())
    pace = {} if "fps" in given else {"durations": [new] * before + times + [new] * after}
    places = [(before + i, sticker, i, most) for i in range(len(source))]
    _make("extend", caption, places, {"num_frames": total, **pace, **given})
    if context is None and len(source) == most:
        say(f"Of {sticker} it has {most} evenly spaced frames; --context keeps more or fewer")


def explain(
    file: Annotated[Path, typer.Argument(help="A file that rdtf has written.")],
    out: Annotated[str | None, typer.Option("--out", "-o", help="Make the sticker again, and write it here.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model that made it; default: by the name in the note.")
    ] = None,
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", help="A file that it was made from; again for more.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the note as it stands in the file.")] = False,
) -> None:
    """Say how a sticker was made, from the note in its file; with -o make it again.

    On the same machine the pixels are the same. Inputs are known by the hash of their content; they are looked for
    beside the file, in the current folder, and among those named.
    """
    from rdtf.hub import find_pipeline
    from rdtf.io.write import check_target, save_sticker
    from rdtf.provenance import find_given, inputs_near, make_again, read_made

    made = read_made(file)
    if as_json:
        print(made.model_dump_json())
    else:
        facts: dict[str, Any] = {
            "made by": f"rdtf {made.rdtf}, torch {made.torch}, {made.device}",
            "command": made.task,
            "model": f"{made.model} (fingerprint {made.fingerprint})",
            "caption": made.caption,
            "seed": made.seed,
            **{name: value for name, value in made.settings.items() if name != "seed" and value is not None},
        }
        facts |= {f"frame {i.position}": f"{i.name}, frame {i.frame} (SHA-256 {i.sha256})" for i in made.inputs}
        for name, value in facts.items():
            say(f"{name}: {printable(str(value))}")
    if out is None:
        return
    try:
        folder = find_pipeline(model or Path(made.model).name)
    except ValueError as error:
        raise ValueError(f"{printable(str(error))}; name the model that made it with --model") from None
    files = [*(inputs or []), *inputs_near(made, file)]
    check_target(out, [file, folder, *files])
    try:
        given = find_given(made, files)
    except ValueError as error:
        raise ValueError(f"{printable(str(error))}; name the files with --input") from None
    from rdtf.loading import load_pipeline  # torch takes seconds, and what is wrong above is told before

    save_sticker(make_again(made, load_pipeline(folder), given), out)
    say(f"Wrote {out}")
