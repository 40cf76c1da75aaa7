"""The document of a draft as it is stored: bounded, in plain JSON values, told apart from another one place by place. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.catalog.reader import NAME_LENGTH_MAX, Reader, as_text
from core.errors import FieldError, Invalid

BYTES_MAX = 262_144
DEPTH_MAX = 12
VALUES_MAX = 20_000
CHANGES_MAX = 200


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what was, what is) at each place where two documents differ, by JSON pointer; at most CHANGES_MAX of them."""
    old, new = dict(_flat("", before)), dict(_flat("", after))
    places = [place for place in dict.fromkeys((*old, *new)) if old.get(place) != new.get(place)][:CHANGES_MAX]
    return {place: old.get(place) for place in places}, {place: new.get(place) for place in places}


def _flat(pointer: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [found for key, item in value.items() for found in _flat(f"{pointer}/{key}", item)]
    if isinstance(value, list):
        return [found for i, item in enumerate(value) for found in _flat(f"{pointer}/{i}", item)]
    return [(pointer, value)]


def storable(document: Mapping[str, object]) -> dict[str, Any]:
    """The document as it is kept. Invalid when it is no object of bounded size."""
    kept = as_text(document)
    reader = Reader()
    if not isinstance(kept, dict) or _depth(kept) > DEPTH_MAX or len(_flat("", kept)) > VALUES_MAX:
        raise Invalid("This is no plan.", errors=(FieldError("/document", "must be an object as a plan has it"),))
    stored = reader.object("/document", kept, most=BYTES_MAX)
    if reader.faults:
        raise Invalid("This cannot be stored.", errors=tuple(reader.faults))
    return stored


def _depth(value: Any, left: int = DEPTH_MAX + 1) -> int:
    items = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return 0 if left == 0 else 1 + max((_depth(item, left - 1) for item in items), default=0) if items else 0


def name_of(name: str, document: Mapping[str, Any]) -> str:
    """What people call the draft: `name`, else the plan's. Invalid for a name that cannot be stored."""
    reader = Reader()
    found = reader.text("/draft_name", name.strip() or _title(document))
    if reader.faults:
        raise Invalid("The draft needs a name.", errors=tuple(reader.faults))
    return found


def _title(document: Mapping[str, Any]) -> str:
    title = document.get("name")
    return title[:NAME_LENGTH_MAX] if isinstance(title, str) and title.strip() else "New plan"


def note_of(note: str) -> str:
    """A line or more of why; "" when it cannot be stored."""
    return Reader().text("/note", note, longest=2_000, needed=False)


def code_of(document: Mapping[str, Any]) -> str:
    """The plan's code, as far as it is one."""
    code = document.get("code")
    return code if isinstance(code, str) and len(code) <= 100 else ""
