"""Commands of ``rdtf`` that run as processes of their own: they outlive the page and the studio."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from rdtf.files import write_text

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", re.ASCII)
_COMMANDS, _PROCESS, _LOG, _END = "commands.json", "process.json", "log.txt", "end.json"
_LOG_BYTES = 20_000
RUNNING, FINISHED, STOPPED, FAILED, KILLED = "running", "finished", "stopped", "failed", "killed"


def checked_name(name: str) -> str:
    """A name for a folder in the studio's folder.

    Raises:
        ValueError: it has other characters than letters, digits, ``-`` and ``_``, or it is too long.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a name has 1 to 60 letters, digits, - and _, and {str(name)[:70]!r} is no such name")
    return name


class Jobs:
    """Processes by their names, each with a folder for its commands, its output and how it ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, commands: Sequence[Sequence[str]]) -> None:
        """Run commands of ``rdtf`` in the background.

        Raises:
            ValueError: a job of this name is running.
        """
        folder = self.folder / checked_name(name)
        if self.state(name) == RUNNING:
            raise ValueError(f"{name} is running already")
        folder.mkdir(parents=True, exist_ok=True)
        for old in (_PROCESS, _END):
            (folder / old).unlink(missing_ok=True)
        write_text(folder / _COMMANDS, json.dumps([list(command) for command in commands], indent=1))
        files = [str(folder.resolve() / name) for name in (_COMMANDS, _END)]
        with (folder / _LOG).open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "rdtf.cli.several", *files],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the studio's terminal is not for it
                env={**os.environ, "COLUMNS": "100"},
            )
        self._children[name] = child
        born = psutil.Process(child.pid).create_time()
        write_text(folder / _PROCESS, json.dumps({"pid": child.pid, "born": born}))

    def names(self) -> list[str]:
        """All jobs there have been."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{_COMMANDS}"))

    def state(self, name: str) -> str:
        """How a job is: running, finished, stopped (it has saved), failed, killed; empty if there was none."""
        folder = self.folder / checked_name(name)
        if not (folder / _COMMANDS).is_file():
            return ""
        if child := self._children.get(name):
            child.poll()  # takes note of its end
        if self._process(name) is not None:
            return RUNNING
        try:
            code = json.loads((folder / _END).read_text("utf-8"))["code"]
        except (OSError, ValueError, KeyError):
            return KILLED
        return {0: FINISHED, 75: STOPPED}.get(code, FAILED)

    def _process(self, name: str) -> psutil.Process | None:
        try:
            known = json.loads((self.folder / name / _PROCESS).read_text("utf-8"))
            process = psutil.Process(known["pid"])
            if process.create_time() == known["born"] and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except (OSError, ValueError, KeyError, psutil.Error):
            pass
        return None

    def stop(self, name: str) -> None:
        """Ask a job to stop (SIGTERM); a training saves first.

        Raises:
            ValueError: it is not running.
        """
        checked_name(name)
        if (process := self._process(name)) is None:
            raise ValueError(f"{name} is not running")
        process.terminate()

    def log(self, name: str) -> str:
        """The end of what a job has printed."""
        path = self.folder / checked_name(name) / _LOG
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            return file.read().decode("utf-8", "replace").replace("\r", "\n")
