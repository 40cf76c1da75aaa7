"""OpenMeter's `POST /api/v1/events`: CloudEvents, answered with 204. https://openmeter.io/docs/metering/events"""

from __future__ import annotations

from api.drop_in import cloud_events
from api.drop_in.problem import SomeRefused
from api.drop_in.translation import Answer, Environ, Pipeline, shown_pointer
from core.metering import foreign
from core.metering.careful import Refused
from core.metering.directory import Principal

PATH = "/api/v1/events"


def record(pipeline: Pipeline, principal: Principal, environ: Environ, body: bytes) -> Answer:
    """Take the CloudEvents of `body`, all of them or none. Raises SomeRefused, Malformed, TooLarge or Unavailable."""
    events, single = cloud_events.translate(environ, body)
    verdict = foreign.whole(pipeline.judge(principal, events, single=single))
    pipeline.keep(principal, verdict)
    if verdict.refused:
        raise SomeRefused(verdict, lambda one: _pointer(one, single=single), 400)
    return 204, [], b""


def _pointer(one: Refused, *, single: bool) -> str:
    pointer = shown_pointer(one.pointer, cloud_events.POINTERS)
    return pointer if single else f"/{one.index}{pointer}"
