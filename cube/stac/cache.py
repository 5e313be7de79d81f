"""A question to an API and its items in, the same items out a while later: no secret on the disk."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from cube.durable import replace_text
from cube.errors import InputError
from cube.ledger import fingerprint
from cube.stac.href import is_remote, resolved_href, without_query

_FORMAT = "canopycube search 1"
"""First field of every entry; others are not read."""

_DAY = 24 * 3600.0

_log = logging.getLogger(__name__)

FoundItem = tuple[dict[str, Any], str]
"""An item and the address it was read from."""


@dataclass(frozen=True, kw_only=True)
class SearchCache:
    """Answers of searches in a folder, one file each, as long as they are fresh."""

    folder: Path
    """Where; made when the first answer is kept."""
    longest: float = _DAY
    """Seconds after which an answer is stale."""
    clock: Callable[[], float] = field(default=time.time, repr=False)
    """Seconds since 1970."""

    def find(self, question: Mapping[str, Any]) -> list[FoundItem] | None:
        """Return the items kept for `question`, None if there are none or they are stale.

        An entry that cannot be read counts as none, and the log says so.
        """
        path = self._path(question)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] != _FORMAT or record["question"] != path.stem:
                raise ValueError("it is another's")
            if not 0 <= self.clock() - float(record["time"]) <= self.longest:
                return None
            return [(dict(item), str(base)) for item, base in record["items"]]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning("search answer %s is damaged and not used: %r", path, error)
            return None

    def keep(self, question: Mapping[str, Any], items: Iterable[FoundItem]) -> None:
        """Keep the items of `question`, which come from `clean_item`.

        A folder that cannot be written stops nothing: the log says so.
        """
        path = self._path(question)
        record = {
            "format": _FORMAT,
            "question": path.stem,
            "time": self.clock(),
            "items": list(items),
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_text(path, json.dumps(record))
        except OSError as error:
            _log.warning("search answer is not kept: %s", error)

    def forget(self, question: Mapping[str, Any]) -> None:
        """Take out what is kept for `question`, if anything is."""
        try:
            self._path(question).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("search answer is not forgotten: %s", error)

    def _path(self, question: Mapping[str, Any]) -> Path:
        return self.folder / f"{fingerprint(question)}.json"


def clean_item(item: Mapping[str, Any], base: str) -> FoundItem:
    """Return an item and its address as they may lie on a disk: no signature, no user name.

    Every text that is an address loses the signature in its query, wherever in the item it stands;
    links go. What `scene_from_item` makes of the item, or why it refuses it, stays the same.
    """
    kept = {name: value for name, value in item.items() if name != "links"}
    return _cleaned(kept), _cleaned(base)


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _cleaned(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_cleaned(part) for part in value]
    if not isinstance(value, str):
        return value
    try:
        return _address(value) if is_remote(value) else value
    except ValueError:  # "http://[": no address, and refused as none
        return value.partition("?")[0]


def _address(href: str) -> str:
    parts = urlsplit(href)
    # an empty user stays: the address is refused again, for the same reason
    user = "@" if "@" in parts.netloc else ""
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    try:
        bare = resolved_href(bare, base=None, owner="an address")
    except InputError:  # it is none; then its query says nothing either
        bare = without_query(bare)
    clean = urlsplit(bare)
    return urlunsplit(clean._replace(netloc=f"{user}{clean.netloc}"))
