"""Secrets that nobody may see, names that nobody should have, and all that may be shown of an error."""

import traceback
from html import escape
from typing import Any

from tests.migration.scene import domain
from vmcompat.migration.order import Order
from vmcompat.migration.preflight import preflight

SECRET = "hunter2"
URIS = [
    f"qemu+tls://root:{SECRET}@h1/system",
    f"qemu+ssh://u:p%40{SECRET}@h1/system?keyfile=/k&command=/bin/false",
    f"qemu+ssh://u:p@{SECRET}@h1/system?socket=/a@b",
    f"qemu+ssh://u:p/{SECRET}@h1/system",
    f"qemu+ssh://u:p?{SECRET}@h1/system",
    f"qemu+ssh://u:p#{SECRET}@h1/system",
    f"qemu+ssh://u:p:{SECRET}@h1:22/system",
    f"qemu+libssh2://:{SECRET}@h1/system",
    f"QEMU+TCP://u:{SECRET}@[::1]:16509/system",
]
HOSTILE = [
    "--config",
    "-c",
    "$(touch owned)",
    "`touch owned`",
    "a'; touch owned; echo '",
    'a"; touch owned; echo "',
    "a\ntouch owned\n",
    "a\u2028touch owned",
    "a && touch owned #",
    "../../etc/passwd",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '=HYPERLINK("http://example.org")',
    "\u009b2J",
    "web\u202e1",
    "7",
    "n" * 250,
]
DAY = "2026-11-24"


def told(error: BaseException) -> str:
    """All that anybody may be shown of an error: its text, its attributes, and whatever it leads to."""
    texts = traceback.format_exception(error)
    left: list[BaseException | None] = [error]
    while left:
        if (one := left.pop()) is not None:
            texts += [str(one), repr(one), repr(vars(one))]
            left += [one.__cause__, one.__context__]
    return "\n".join(texts)


def named(name: str) -> Any:
    """A guest that is called so."""
    return domain(name=escape(name))


def order(observation: Any, **details: Any) -> Order:
    given: dict[str, Any] = {"source": "qemu+ssh://h1/system", "target": "qemu+ssh://h2/system"}
    given |= {"peer_uri": observation.peer_uri}
    return Order(domain=observation.domain, seen=observation, findings=preflight(observation), **(given | details))
