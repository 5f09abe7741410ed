"""``python -m rdtf.cli.several COMMANDS END``: some commands of ``rdtf``, one after the other, until one fails.

``COMMANDS`` is a JSON file: for each command the list of its arguments. The JSON file ``END`` gets the exit code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rdtf.cli import app
from rdtf.files import write_text


def _run(commands: Path, end: Path) -> int:
    code = 1
    try:
        for command in json.loads(commands.read_text("utf-8")):
            try:
                app(command)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            if code:
                break
    finally:
        write_text(end, json.dumps({"code": code}))
    return code


if __name__ == "__main__":
    sys.exit(_run(*map(Path, sys.argv[1:])))
