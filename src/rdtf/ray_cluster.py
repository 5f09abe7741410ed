"""The connection to a Ray cluster, for preparing and for generating on many machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rdtf.device import usable_cores

CALLS_AHEAD = 2
"""Calls in an actor's queue, with the current one."""


@contextmanager
def ray_cluster(workers: int | None) -> Iterator[Any]:
    """The module ``ray``, connected to a cluster.

    Ray is started on this machine, unless it runs in this process already or ``RAY_ADDRESS`` names a cluster (``auto``:
    the one on this machine).

    Args:
        workers: cores of a cluster that is started here; None for all.

    Raises:
        ValueError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("the engine ray needs Ray: pip install 'rdtf[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        here: dict[str, Any] = {"address": "local", "num_cpus": workers or usable_cores(), "include_dashboard": False}
        ray.init(**({} if "RAY_ADDRESS" in os.environ else here), log_to_driver=False, logging_level="error")
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
