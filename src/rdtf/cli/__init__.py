"""The ``rdtf`` command: parse, call, print. Each group of commands has a file of its own.

Heavy modules are imported inside the commands, so that help and wrong arguments are answered at once.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from rdtf.cli import data, export, make, research, studio, train
from rdtf.cli.common import plain_errors

app = typer.Typer(
    help="Train your own animated-sticker generator from scratch, and use it.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
_COMMANDS: list[Callable[..., None]] = [
    train.demo,
    data.world,
    data.move_stills,
    data.prepare,
    data.inspect,
    train.train,
    train.finetune,
    train.plan,
    train.report,
    train.card,
    train.train_codec,
    train.train_copy_decoder,
    make.generate,
    make.animate,
    make.inbetween,
    make.extend,
    make.explain,
    export.export,
    export.check,
    export.pack,
    studio.studio,
    research.evaluate,
    research.compare,
]
for _command in _COMMANDS:
    app.command()(plain_errors(_command))

_data = typer.Typer(help="Give a prepared dataset to others.", no_args_is_help=True)
app.add_typer(_data, name="data")
_data.command("export")(plain_errors(data.export))
