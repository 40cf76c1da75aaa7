"""Actor of keeping: the daily run that archives and purges usage."""

from __future__ import annotations

import os
import threading

import dramatiq
from flask import Flask, current_app

from core import clock, config
from core.db import only_one
from core.metering import keeping

LOCK = 7_710_003
NICE = 10
LOOK_SECONDS = 1.0


@dramatiq.actor(time_limit=float("inf"), max_retries=0)
def keep_usage() -> None:
    """Do today's run, or go on with one that was killed; one that another worker is at is left to it."""
    thread = threading.Thread(target=_keep, args=(current_app._get_current_object(),), name="keeping", daemon=True)  # type: ignore[attr-defined]
    thread.start()
    while thread.is_alive():  # in between, this thread can be told to stop; the run is found open and goes on elsewhere
        thread.join(LOOK_SECONDS)


def _keep(application: Flask) -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)  # on Linux it is the thread's own: counting goes first
    with application.app_context(), only_one(LOCK) as mine:
        if mine:
            keeping.keep(config.current(), at=clock.now())  # what it raises ends this thread, with its traceback in the log
