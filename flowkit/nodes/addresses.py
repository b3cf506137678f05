"""To which addresses a node may connect: public ones, and what ``FLOWKIT_HTTP_ALLOW`` names.

A URL often comes from data: a parameter, a row, a redirect. Whoever wrote it may mean a service that only this machine
can reach, such as the one that hands out a cloud machine's credentials. What counts is the address that is connected
to, so a name is resolved once, every address it has is judged, and the connection goes to one of those.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from flowkit.config import http_allowed
from flowkit.errors import AddressRefused
from flowkit.flow.current import current_run

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

WORKER, DEPLOYMENT = "worker", "deployment"

_REFUSED = {
    WORKER: "an HTTP node of a worker does not connect to; if it is meant, add it to the worker's FLOWKIT_HTTP_ALLOW",
    DEPLOYMENT: "is not among the hosts that this deployment was given; if it is meant, deploy it with --allow-host",
}

_NAT64 = [ipaddress.ip_network(block) for block in ("64:ff9b::/96", "64:ff9b:1::/48")]
_COMPATIBLE = ipaddress.ip_network("::/96")

#: Public by its number, but a cloud's own: Azure's machines ask it for their settings.
_CLOUD = {ipaddress.ip_address("168.63.129.16")}

#: Of which all public IPv6 addresses are, and what of IPv4 not every supported Python knows to be reserved.
_GLOBAL = ipaddress.ip_network("2000::/3")
_RESERVED = [ipaddress.ip_network(block) for block in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")]


#: What may be reached although it is not public: ``crm.internal``, ``*.internal``, ``10.1.0.0/16``, each also with
#: ``:8080`` behind it, an IPv6 address then in brackets; ``*``: everything.
Allowed = Sequence[str]


def allowed() -> dict[str, Allowed]:
    """Whose list -> what it allows. All of them have to name an address; without any, nothing is judged."""
    run = current_run()
    own = run.hosts.split(",") if run is not None and run.hosts is not None else None
    found = {WORKER: http_allowed(), DEPLOYMENT: own}
    return {whose: one for whose, one in found.items() if one is not None}


def resolve(host: str, port: int, allowed: Mapping[str, Allowed]) -> list[str]:
    """The addresses of *host*, each of which may be connected to.

    Args:
        allowed: as ``allowed()`` gives it.

    Raises:
        AddressRefused: one of its addresses is neither public nor allowed.
        OSError: it has no address, or none can be asked for now.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    given = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for whose, one in allowed.items():
        for address in () if _named(host, port, one) else given:
            # One is enough: whoever answers for the name chooses which of them is tried first.
            if (kind := _kind(address)) and not _listed(address, port, one):
                what = address if address == host else f"{host} is {address}, and that"
                raise AddressRefused(f"{what} is {kind}, which {_REFUSED[whose]}")
    return given


def _named(host: str, port: int, allowed: Iterable[str]) -> bool:
    host = host.rstrip(".").lower()
    return any(fnmatchcase(host, name.lower()) for name, at in map(_split, allowed) if at in (None, port))


def _listed(address: str, port: int, allowed: Iterable[str]) -> bool:
    """Whether a network on the list has it, as it was written or as what it stands for."""
    every = {*_meanings(ipaddress.ip_address(address))}
    for name, at in map(_split, allowed):
        try:
            network = ipaddress.ip_network(name, strict=False)
        except ValueError:
            continue  # a name
        if at in (None, port) and all(one.version == network.version and one in network for one in every):
            return True
    return False


def _split(entry: str) -> tuple[str, int | None]:
    host, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and (":" not in host or host.endswith("]")):
        return host.strip("[]"), int(port)
    return entry.strip("[]"), None


def _kind(address: str) -> str:
    """What makes it one that is not connected to; empty if nothing does."""
    return next((kind for one in _meanings(ipaddress.ip_address(address)) if (kind := _why(one))), "")


def _why(address: Address) -> str:
    if address.is_loopback:
        return "this machine itself"
    if address.is_unspecified:
        return "no address of another machine"
    if address.is_link_local or address in _CLOUD:
        return "an address of this network segment, where clouds keep a machine's credentials"
    if address.is_multicast:
        return "a multicast address"
    public = address.is_global and (address.version == 4 or address in _GLOBAL)
    return "" if public and not any(address in block for block in _RESERVED) else "a private or reserved address"


def _meanings(address: Address) -> Iterator[Address]:
    """The address, or what IPv4 it is written for: mapped, 6to4, Teredo, NAT64, ISATAP, or compatible."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    plain = ipaddress.IPv6Address(int(address))  # without its zone
    inside = ipaddress.IPv4Address(int(plain) & 0xFFFF_FFFF)
    if plain.ipv4_mapped is not None:
        yield plain.ipv4_mapped
    elif any(plain in block for block in _NAT64) or (plain in _COMPATIBLE and int(plain) > 0xFFFF):
        yield inside
    elif plain.sixtofour is not None:
        yield plain.sixtofour
    elif plain.teredo is not None:
        yield from plain.teredo
    elif (int(plain) >> 32) & 0xFCFF_FFFF == 0x0000_5EFE:
        yield plain
        yield inside
    else:
        yield plain
