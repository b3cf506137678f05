"""Who somebody is: by a token, the link that the server printed, or the cookie that either has become.

A cookie says whose it is and until when, signed by a secret of the store: every server of the store knows it, and none
keeps a list. One that a token has become is worth nothing once the token is revoked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

from flowkit.model import Role
from flowkit.store import Store

#: Of a login in a browser.
LIFETIME = timedelta(hours=12)

#: So many logins may fail within so many seconds, of one address and of all.
FAILURES, ALL_FAILURES, WITHIN = 5, 100, 60.0


@dataclass(frozen=True, slots=True)
class Identity:
    name: str
    role: Role
    token: str | None = None  #: its id; None: the link, which ends with its server
    expires: datetime | None = None  #: UTC; of the token, or of the login made with it; None: with its server


class Sessions:
    def __init__(self, store: Store, *, link: bool) -> None:
        """*link*: whether this server prints a link that lets its reader in."""
        self._store = store
        self._key = store.secret("sessions")
        # Cookies know no ports: two stores' servers on one machine must not log each other out.
        self.cookie = f"flowkit-{hashlib.sha256(self._key).hexdigest()[:8]}"
        self.link = secrets.token_urlsafe(32) if link else None

    def known(self, secret: str, now: datetime) -> Identity | None:
        """Whose secret it is."""
        if self.link is not None and hmac.compare_digest(secret.encode(), self.link.encode()):
            return Identity("link", Role.ADMIN)
        token = self._store.token(secret, now=now)
        return None if token is None else Identity(token.name, token.role, token.id, token.expires)

    def cookie_for(self, identity: Identity, now: datetime) -> str:
        until = min(now + LIFETIME, identity.expires or now + LIFETIME)
        said = json.dumps([identity.name, identity.role.value, identity.token, until.timestamp()])
        payload = base64.urlsafe_b64encode(said.encode()).decode()
        return f"{payload}.{self._signature(payload)}"

    def resumed(self, value: str, now: datetime) -> Identity | None:
        payload, _, signature = value.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(payload).encode()):
            return None
        name, role, token, until = json.loads(base64.urlsafe_b64decode(payload))
        if now.timestamp() >= until:
            return None
        if token is not None and self._store.token_of(token, now=now) is None:
            return None
        return Identity(name, Role(role), token, datetime.fromtimestamp(until, UTC))

    def lasts(self, identity: Identity, now: datetime) -> bool:
        """Whether who has come in may stay."""
        if identity.expires is not None and now >= identity.expires:
            return False
        return identity.token is None or self._store.token_of(identity.token, now=now) is not None

    def _signature(self, payload: str) -> str:
        return hmac.new(self._key, payload.encode(), "sha256").hexdigest()


class Throttle:
    """Of logins that failed. In this process alone: what is guessed at has 256 random bits, this is against noise."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failed: deque[tuple[float, str]] = deque(maxlen=10 * ALL_FAILURES)

    def failed(self, address: str) -> None:
        self._failed.append((self._clock(), address))

    def wait(self, address: str) -> int:
        """Seconds until that address may try again; 0: now."""
        at = self._clock()
        while self._failed and at - self._failed[0][0] >= WITHIN:
            self._failed.popleft()
        mine = [when for when, whose in self._failed if whose == address]
        if len(mine) >= FAILURES:
            return int(mine[-FAILURES] + WITHIN - at) + 1
        if len(self._failed) >= ALL_FAILURES:
            return int(self._failed[-ALL_FAILURES][0] + WITHIN - at) + 1
        return 0
