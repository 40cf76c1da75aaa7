"""Compiled code that is loaded when it is worth it, beside the work that goes on without it, where Numba (the extra `fast`) is there."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from types import ModuleType

import structlog


class Lazy:
    """A module of compiled functions. `run` calls them once, so that they are compiled (some seconds, once for an installation)."""

    def __init__(self, name: str, run: Callable[[ModuleType], object]) -> None:
        self._name, self._run = name, run
        self._module: ModuleType | None = None
        self._starting = threading.Lock()

    def get(self, *, wanted: bool) -> ModuleType | None:
        """The module once it is there; `wanted` has it loaded in a thread of its own."""
        if self._module is None and wanted and self._starting.acquire(blocking=False):
            threading.Thread(target=self.load, name=f"loads {self._name}", daemon=True).start()
        return self._module

    def load(self) -> bool:
        """Load the module now; whether it is there. Without Numba, or on a big-endian machine, it is not."""
        if self._module is None and sys.byteorder == "little":
            try:
                module = importlib.import_module(self._name)
                self._run(module)
                self._module = module
            except (ImportError, RuntimeError) as error:
                structlog.get_logger("valueverse.usage").info("works without compiled code", module=self._name, reason=str(error))
        return self._module is not None
