"""``python -m rdtf.cli``, which launchers of several processes need."""

from rdtf.cli import app

app()
