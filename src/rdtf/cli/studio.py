"""The command that opens the studio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdtf.cli.common import say


def studio(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A run's or saved pipeline's folder; again for more.",
            show_default="shipped",
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="For stickers, datasets and trainings.")] = Path("studio"),
    stickers: Annotated[
        list[Path] | None, typer.Option(help="Folder or archive that may be trained on; again for more.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but the loopback needs the token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Taken? Then another one is.")] = 7860,
    token: Annotated[
        str | None, typer.Option(help="Asked of everybody; default: none on the loopback, else a new one.")
    ] = None,
) -> None:
    """Open a page in the browser to make stickers, to download them for messengers, and to train.

    Trainings go on when the page is closed and when the studio is stopped.
    """
    try:
        from rdtf.studio.server import serve
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(("gradio", "fastapi", "uvicorn", "starlette")):
            raise
        raise ImportError("the studio needs gradio: pip install 'rdtf[studio]'") from None
    from rdtf.hub import SHIPPED, find_pipeline
    from rdtf.studio.state import Studio

    if SHIPPED in (model or ()):
        find_pipeline(SHIPPED)  # it is in the list whenever it is there
    models = [Path(name) for name in model or () if name != SHIPPED]
    serve(Studio(folder, models, stickers or []), host=host, port=port, token=token, say=say)
