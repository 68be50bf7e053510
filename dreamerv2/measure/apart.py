"""Measures in a process of its own, so that no figure depends on what was measured before it."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any


class MeasurementLostError(Exception):
    """The process that measured has died."""


def apart(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` in a new process; what it raises is raised here.

    MeasurementLostError, which names `what`, where the process dies, of a full memory for one.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool:
            raise MeasurementLostError(
                f"{what}: the process that measured died; the machine may be out of memory"
            ) from None
