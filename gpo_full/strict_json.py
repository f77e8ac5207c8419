"""JSON that is read strictly: no key twice, no NaN or infinity, and one reason for whatever else cannot be read."""

__all__ = ["NotJson", "parse_json"]

import json
from typing import Any


class NotJson(ValueError):
    """A text is not strict JSON; the message is the reason, and where it is."""


def parse_json(data: bytes, *, finite: bool = True) -> Any:
    """Return the value of one JSON document in UTF-8; with `finite=False`, NaN and infinities are read too.

    Raises NotJson, also for an object that has a key twice, for a document that is nested too deeply, and for an
    integer of more digits than Python converts.

    >>> parse_json(b'{"beta": 0.1}')
    {'beta': 0.1}
    """

    def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            names = [name for name, _ in items]
            raise NotJson(f"key {next(name for name in names if names.count(name) > 1)!r} appears twice")
        return found

    def constant(text: str) -> float:
        if finite:
            raise NotJson(f"not JSON ({text})")
        return float(text)

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except NotJson:
        raise
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8 (byte {error.start + 1})") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if b"\n" in data else ""
        raise NotJson(f"not JSON ({error.msg}, {line}column {error.colno})") from None
    except (RecursionError, ValueError):
        raise NotJson("not JSON of a reasonable size (nested too deeply, or a number of too many digits)") from None
