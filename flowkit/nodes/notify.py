"""Tell people: by e-mail, Slack, Teams, a webhook, and what else Apprise knows by a URL."""

from __future__ import annotations

from typing import Any, Literal

from flowkit.errors import Unavailable, UsageError
from flowkit.nodes import addresses

try:
    import apprise
except ImportError as missing:  # told by whoever opens the palette, too
    raise UsageError('notify needs Apprise; pip install "flowkit[notify]"') from missing

__all__ = ["send"]


def send(
    to: list[str], body: str, *, title: str = "", kind: Literal["info", "success", "warning", "failure"] = "info"
) -> int:
    """Send a message to each of these, and return to how many.

    Args:
        to: URLs of Apprise, as in ``mailtos://user:password@host?to=anna@example.com`` or ``slack://…``. They hold
            credentials, so give them to the run as a parameter or from the environment rather than writing them down.
        body: the message, as plain text.
        title: a subject, where there is one.
        kind: how it is marked, where it is.

    Raises:
        UsageError: one of them is no URL that Apprise knows, before anything is sent.
        AddressRefused: one of them is a host that is not public and that this worker does not allow.
        Unavailable: one or more could not be reached; the others have it.
    """
    if not to:
        raise UsageError("notify has nobody to send to; give to= a list of Apprise's URLs")
    places: list[Any] = []
    for number, url in enumerate(to, 1):
        place: Any = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if place is None:
            scheme = f"{url.partition('://')[0]}://" if "://" in url else "a text without a scheme"
            raise UsageError(f"number {number} of to= is {scheme}, of which Apprise makes nothing; see its services")
        _judge(place)
        places.append(place)
    marked = apprise.NotifyType(kind)
    failed = [place for place in places if not place.notify(body=body, title=title, notify_type=marked)]
    if failed:
        names = ", ".join(place.url(privacy=True).split("?")[0] for place in failed)
        raise Unavailable(f"{len(failed)} of {len(places)} could not be told: {names}")
    return len(places)


def _judge(place: Any) -> None:
    """Refuse a host of somebody's choice to which an HTTP node could not connect either.

    Only of services that anybody can run: of others, what stands there is a token, which no resolver may see.
    """
    allowed = addresses.allowed()
    if allowed and any("{host}" in template for template in place.templates):
        try:
            addresses.resolve(place.host, place.port or 443, allowed)
        except OSError as error:
            raise Unavailable(f"{place.host} has no address: {error.strerror or error}") from error
