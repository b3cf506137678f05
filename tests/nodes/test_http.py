"""The HTTP nodes, against real servers that fail, throttle, hang, and lead astray."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import socket
import ssl
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import flowkit as fk
from flowkit.client import Client
from flowkit.config import Config, http_allowed, kernel_environment
from flowkit.errors import AddressRefused, Unavailable, UsageError
from flowkit.model import CurrentRun, Policy, now
from flowkit.nodes import addresses, http
from tests.notebooks_made import write
from tests.processes import answer, flowkit, worker
from tests.web import Answer, Asked, web
from tests.worker.execution import current

#: A worker whose setting names nothing.
NONE: dict[str, addresses.Allowed] = {addresses.WORKER: ()}

SOON = {"Retry-After": "0"}


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a laptop: nobody has said which addresses are allowed."""
    monkeypatch.delenv("FLOWKIT_HTTP_ALLOW", raising=False)
    monkeypatch.delenv("FLOWKIT_RUN_FOLDER", raising=False)


def failing(times: int, how: Answer, then: Any) -> Any:
    return lambda asked: how if asked.number <= times else (200, {}, then)


# -- patience ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status):
    with web(failing(2, (status, SOON, None), {"ok": True})) as server:
        assert http.get(f"{server.url}/orders", params={"day": "2013-07-01"}) == {"ok": True}

    assert [asked.query for asked in server.asked] == [{"day": "2013-07-01"}] * 3


def test_a_refusal_that_stays_one_is_not_tried_again_and_its_reason_is_told():
    with (
        web(lambda asked: (422, {}, {"detail": "no such day"})) as server,
        pytest.raises(Unavailable) as caught,
    ):
        http.get(f"http://anna:s3cret@127.0.0.1:{server.port}/orders?token=s3cret")

    assert str(caught.value) == (
        f'GET {server.url}/orders was answered with 422 Unprocessable Entity: {{"detail": "no such day"}}'
    )
    assert len(server.asked) == 1


def test_it_gives_up_after_the_last_attempt_and_says_how_often_it_tried():
    with (
        web(lambda asked: (503, SOON, None)) as server,
        pytest.raises(Unavailable, match=r"was answered with 503 Service Unavailable; it was tried 2 times$"),
    ):
        http.get(server.url, attempts=2)

    assert len(server.asked) == 2


def test_it_waits_as_long_as_the_server_asks_by_seconds_or_by_date_and_no_longer_than_a_minute():
    times = []

    def answer(asked: Asked) -> Answer:
        times.append(time.monotonic())
        date = format_datetime(now() + datetime.timedelta(seconds=2), usegmt=True)  # whole seconds: 1 to 2 from now
        return [(429, {"Retry-After": "1"}, None), (503, {"Retry-After": date}, None), (200, {}, "done")][
            asked.number - 1
        ]

    with web(answer) as server:
        assert http.get(server.url) == "done"
    assert times[1] - times[0] >= 1
    assert times[2] - times[1] >= 0.9

    with web(lambda asked: (429, {"Retry-After": "3600"}, None)) as server, pytest.raises(Unavailable) as caught:
        http.get(server.url)
    assert "is to be tried again in 3600 s, which is more than the 60 s that a node waits" in str(caught.value)
    assert len(server.asked) == 1


def test_a_connection_that_is_refused_or_breaks_is_tried_again():
    def answer(asked: Asked) -> Answer:
        if asked.number == 1:
            asked.handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
            return None
        return 200, {}, "whole"

    with web(answer) as server:
        assert http.get(server.url, attempts=2) == "whole"
    with pytest.raises(Unavailable, match=r"failed: .*refused.*tried once"):
        http.get(server.url, attempts=1)


def test_a_server_that_is_silent_or_sends_a_byte_now_and_then_is_given_up_in_time():
    def answer(asked: Asked) -> Answer:
        if asked.path == "/drips":
            asked.handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            for _ in range(400):
                asked.handler.wfile.write(b"x")
                if server.closing.wait(0.05):
                    break
        server.closing.wait(20)
        return None

    with web(answer) as server:
        for path in ("/silent", "/drips"):
            began = time.monotonic()
            with pytest.raises(Unavailable, match=f"{path} failed: no answer within 0.5 s; it was tried once"):
                http.get(server.url + path, within=0.5, attempts=1)
            assert time.monotonic() - began < 10


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_every_attempt_carries_the_same_key_and_rows_of_a_data_frame_become_json():
    row = {"n": np.int64(3), "at": pd.Timestamp("2013-07-01T06:00"), "none": pd.NaT, "na": pd.NA, "x": 0.5}
    with web(failing(2, (409, SOON, None), None)) as server:
        assert http.post(server.url, row) is None
        http.post(server.url, "plain text", key="order-1")

    keys = [asked.headers["Idempotency-Key"] for asked in server.asked]
    assert keys[0] == keys[1] == keys[2]
    assert keys[3] == "order-1"
    assert json.loads(server.asked[0].body) == {"n": 3, "at": "2013-07-01T06:00:00", "none": None, "na": None, "x": 0.5}
    assert server.asked[3].headers["Content-Type"] == "text/plain; charset=utf-8"
    with pytest.raises(UsageError, match="post sends JSON, and the body is none: a object has no JSON"):
        http.post(server.url, object())


def nothing() -> Executor | None:
    return None


def processes() -> Executor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))


@pytest.mark.parametrize("pool", [nothing, lambda: ThreadPoolExecutor(2), processes])
def test_the_key_is_of_the_run_and_the_item_over_all_its_attempts(pool, tmp_path, monkeypatch):
    def keys(run: str, attempt: int, timeout: float | None = None) -> list[str]:
        folder = tmp_path / f"{run}{attempt}"
        folder.mkdir()
        (folder / "run.json").write_text(current(key=run, attempt=attempt).to_json())
        monkeypatch.setenv("FLOWKIT_RUN_FOLDER", str(folder))
        monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", "127.0.0.1")
        flow = fk.Flow("deliver")
        url = fk.value(server.url)
        flow.add(http.post, "deliver", url=url, body="orders", map="body", checkpoint=False, timeout=timeout)
        flow.add(twice, url=url, checkpoint=False)
        before = len(server.asked)
        executor = pool()
        if executor is None:
            flow.run(orders=[{"id": 1}, {"id": 2}, {"id": 1}])
        else:
            with executor:
                flow.run(orders=[{"id": 1}, {"id": 2}, {"id": 1}], executor=executor)
        return sorted(asked.headers["Idempotency-Key"] for asked in server.asked[before:])

    with web(lambda asked: (200, {}, None)) as server:
        first = keys("run-1", 1)
        assert keys("run-1", 2, timeout=30.0) == first
        other = keys("run-2", 1)

    assert len(set(first)) == 5, "equal items are two items, also if one node sends both"
    assert set(first).isdisjoint(other)


def twice(url: str) -> None:
    http.post(url, {"id": 1})
    http.post(url, {"id": 1})


# -- what comes back ---------------------------------------------------------------------------------------------------


def test_pages_become_one_table_by_link_by_url_and_by_cursor():
    def answer(asked: Asked) -> Answer:
        page = int(asked.query.get("page", 1))
        rows = [{"id": page, "by": {"name": f"n{page}"}}]
        if asked.path == "/links":
            return 200, {"Link": f'</links?page={page + 1}>; rel="next"'} if page < 3 else {}, rows
        if asked.path == "/urls":
            following = f"{server.url}/urls?page={page + 1}" if page < 3 else None
            return 200, {}, {"data": {"items": rows}, "next": following}
        return 200, {}, {"rows": rows, "paging": {"cursor": page + 1 if page < 3 else ""}}

    with web(answer) as server:
        links = http.paginate(f"{server.url}/links", params={"size": 1}, headers={"X-Key": "k"})
        urls = http.paginate(f"{server.url}/urls", rows="data.items", next="next")
        cursors = http.paginate(f"{server.url}/c", rows="rows", next="paging.cursor", cursor="page", params={"size": 1})

    expected = pd.DataFrame({"id": [1, 2, 3], "by.name": ["n1", "n2", "n3"]})
    for found in (links, urls, cursors):
        pd.testing.assert_frame_equal(found, expected)
    assert [asked.query for asked in server.asked[-3:]] == [
        {"size": "1"} | more for more in ({}, {"page": "2"}, {"page": "3"})
    ]
    assert {one.headers["X-Key"] for one in server.asked[:3]} == {"k"}


def test_pages_that_never_end_or_have_no_list_are_told():
    with web(lambda asked: (200, {"Link": '</again>; rel="next"'}, [])) as server, pytest.raises(Unavailable) as caught:
        http.paginate(server.url)
    assert "names a page as the next that was there before" in str(caught.value)
    with web(lambda asked: (200, {}, {"items": []})) as server, pytest.raises(Unavailable) as caught:
        http.paginate(server.url, rows="item")
    assert "has no list at 'item', but NoneType; say where by rows=" in str(caught.value)


def test_a_file_arrives_whole_or_not_at_all(tmp_path):
    data = bytes(range(256)) * 4000

    def answer(asked: Asked) -> Answer:
        if asked.number in (1, 3):
            asked.handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[:1000])
            return None
        return 200, {"Content-Type": "application/octet-stream"}, data

    path = tmp_path / "new" / "orders.bin"
    with web(answer) as server:
        assert http.download(server.url, str(path), attempts=2) == str(path)
        assert path.read_bytes() == data
        with pytest.raises(Unavailable, match="tried once"):
            http.download(server.url, str(path), attempts=1)
        assert path.read_bytes() == data
        http.download(server.url, "memory://nodes/orders.bin")

    assert [one.name for one in path.parent.iterdir()] == ["orders.bin"]
    with http.places.read("memory://nodes/orders.bin") as file:
        assert file.read() == data


def test_an_answer_that_is_too_large_to_hold_is_refused_while_it_comes(monkeypatch):
    monkeypatch.setattr(http, "LARGEST", 2_000_000)
    with (
        web(lambda asked: (200, {}, b" " * 3_000_000)) as server,
        pytest.raises(Unavailable, match=r"use http\.download"),
    ):
        http.get(server.url)


# -- where it connects -------------------------------------------------------------------------------------------------

#: Written in every way in which a resolver or a router may read them. Nothing is sent to any: they are judged before.
REFUSED = [
    *("127.0.0.1", "127.8.8.8", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0", "0.0.0.0"),
    *("::1", "::", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "0:0:0:0:0:0:0:1", "64:ff9b::127.0.0.1"),
    *("64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::", "fe80::5efe:7f00:1"),
    *("169.254.169.254", "0xa9fea9fe", "2852039166", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200"),
    *("168.63.129.16", "192.0.0.192", "fe80::1", "fe80::1%lo", "10.0.0.1", "172.16.0.1", "192.168.1.1", "fec0::1"),
    *("fc00::1", "fd12:3456::1", "192.0.2.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "224.0.0.1", "ff02::1"),
    *("2001:db8::1", "::ffff:0:0", "2001:0:808:808:0:0:80ff:fffe"),
]


@pytest.mark.parametrize("host", REFUSED)
def test_an_address_that_is_not_public_is_refused_however_it_is_written(host):
    with pytest.raises(AddressRefused):
        addresses.resolve(host, 80, NONE)


@pytest.mark.parametrize("host", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_is_not(host):
    assert len(addresses.resolve(host, 443, NONE)) == 1


@pytest.mark.parametrize(
    ("allowed", "host", "port", "passes"),
    [
        ("127.0.0.1", "127.0.0.1", 80, True),
        ("127.0.0.0/8", "127.9.9.9", 80, True),
        ("127.0.0.1", "2130706433", 80, True),
        ("127.0.0.1", "::ffff:127.0.0.1", 80, True),
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("127.0.0.1:8080", "127.0.0.1", 80, False),
        ("127.0.0.1", "127.0.0.2", 80, False),
        ("[::1]:80", "::1", 80, True),
        ("::1", "::1", 81, True),
        ("localhost", "LocalHost", 80, True),
        ("localhost:81", "localhost", 80, False),
        ("*.internal", "internal", 80, False),
        ("10.0.0.0/8", "169.254.169.254", 80, False),
    ],
)
def test_what_the_list_names_may_be_connected_to(allowed, host, port, passes, monkeypatch):
    monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", f"crm.example, {allowed}")
    listed = addresses.allowed()

    if passes:
        assert addresses.resolve(host, port, listed)
    else:
        with pytest.raises((AddressRefused, OSError)):
            addresses.resolve(host, port, listed)


def test_a_workers_kernel_is_told_a_list_also_if_there_is_none_and_an_authors_is_not():
    assert http_allowed(kernel_environment(Path("run"), {})) == ()
    allowed = {"FLOWKIT_HTTP_ALLOW": "crm.internal, 10.0.0.0/8", "FLOWKIT_KERNEL_ENV": "FLOWKIT_*"}
    assert http_allowed(kernel_environment(Path("run"), allowed)) == ("crm.internal", "10.0.0.0/8")
    assert http_allowed(kernel_environment(Path("run"), {"FLOWKIT_HTTP_ALLOW": "*"})) is None
    assert http_allowed({}) is None


def test_a_refusal_says_what_the_name_is_and_where_to_allow_it(monkeypatch):
    monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", "")
    with web(lambda asked: (200, {}, None)) as server, pytest.raises(AddressRefused) as caught:
        http.get(f"http://localhost:{server.port}/", attempts=5)

    assert str(caught.value).startswith("localhost is ")
    assert str(caught.value).endswith(
        "and that is this machine itself, which an HTTP node of a worker does not connect to; if it is meant, add it "
        "to the worker's FLOWKIT_HTTP_ALLOW"
    )
    assert server.asked == []


def test_a_deployment_is_held_to_those_of_its_workers_hosts_that_it_was_given(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web(lambda asked: (200, {}, "here")) as server:
        cell = f"from flowkit.nodes import http\nprint(http.get('{server.url}'))"
        other = str(write(tmp_path / "other.ipynb", cell))
        monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", "127.0.0.0/8")
        assert answer("deploy", other, "--allow-host", "CRM.internal", "--allow-host", "127.0.0.2")["hosts"] == (
            "crm.internal,127.0.0.2"
        )
        own = str(write(tmp_path / "own.ipynb", cell))
        answer("deploy", own, "--allow-host", f"127.0.0.1:{server.port}")
        with worker():
            refused = flowkit("run", "other", "--wait", "--json")
            reached = answer("run", "own", "--wait")

    error = json.loads(refused.stdout)["error"]
    assert "127.0.0.1 is this machine itself, which is not among the hosts that this deployment was given" in error
    assert error.endswith("if it is meant, deploy it with --allow-host")
    assert reached["state"] == "succeeded"
    assert len(server.asked) == 1


def test_a_deployment_gets_no_host_that_its_worker_does_not_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", "10.0.0.0/8")
    asked = CurrentRun(id="r", key="r", attempt=1, deployment="x", notebook="x.ipynb", hosts="*")
    monkeypatch.setattr(addresses, "current_run", lambda: CurrentRun.from_json(asked.to_json()))

    assert addresses.resolve("10.0.0.1", 80, addresses.allowed())
    with pytest.raises(AddressRefused, match="add it to the worker's FLOWKIT_HTTP_ALLOW"):
        addresses.resolve("127.0.0.1", 80, addresses.allowed())
    monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", "*")
    assert addresses.resolve("127.0.0.1", 80, addresses.allowed())


@pytest.mark.parametrize("host", ["https://crm.internal", "", "two words", "crm.internal/path"])
def test_what_is_no_host_cannot_be_given_to_a_deployment(host: str, home: Path, tmp_path: Path) -> None:
    with Client(Config.from_env()) as client, pytest.raises(UsageError, match="is no host; give a name"):
        client.deploy(write(tmp_path / "x.ipynb", "1"), policy=Policy(hosts=host))


LED_ASTRAY = [http.get, lambda url: http.post(url, {}), http.paginate, lambda url: http.download(url, "memory://x")]


@pytest.mark.parametrize("target", ["169.254.169.254", "127.0.0.1", "2130706433"])
@pytest.mark.parametrize("node", LED_ASTRAY)
def test_a_redirect_is_judged_as_well(target, node, monkeypatch):
    with web(lambda asked: (200, {}, [])) as other:
        place = f"http://{target}:{other.port}/"
        with web(lambda asked: (307, {"Location": place}, None)) as server:
            monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", f"127.0.0.1:{server.port}")
            with pytest.raises(AddressRefused):
                node(server.url)
    assert len(server.asked) == 1
    assert other.asked == []


def test_a_name_that_changes_its_address_between_look_and_connection_gains_nothing(monkeypatch):
    """DNS rebinding. The resolver answers in turn; both addresses have a server, and only one is allowed."""
    answers = iter(["127.0.0.2", "127.0.0.1", "127.0.0.2"])
    system = socket.getaddrinfo

    def resolver(host: str, *arguments: Any, **options: Any) -> Any:
        return system(next(answers) if host == "rebind.test" else host, *arguments, **options)

    with (
        web(lambda asked: (200, {}, "allowed"), host="127.0.0.2") as allowed,
        web(lambda asked: (200, {}, "inside"), port=allowed.port) as inside,
    ):
        monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", "127.0.0.2")
        monkeypatch.setattr(socket, "getaddrinfo", resolver)
        url = f"http://rebind.test:{allowed.port}/"
        assert http.get(url) == "allowed"
        with pytest.raises(AddressRefused, match=r"^rebind\.test is 127\.0\.0\.1, and that is this machine itself"):
            http.get(url)
        assert inside.asked == []


def test_one_address_of_a_name_that_is_refused_refuses_the_name(monkeypatch):
    system = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **kw: system("8.8.8.8", *args, **kw) + system("10.0.0.1", *args, **kw),
    )
    with pytest.raises(AddressRefused, match=r"both\.test is 10\.0\.0\.1"):
        addresses.resolve("both.test", 80, NONE)


def test_another_host_is_not_told_what_was_meant_for_the_first():
    with web(lambda asked: (200, {}, "there")) as other:
        place = f"http://localhost:{other.port}/"
        with web(lambda asked: (302, {"Location": place}, None)) as server:
            assert http.get(server.url, headers={"X-Api-Key": "k", "Authorization": "Bearer t"}) == "there"
    assert server.asked[0].headers["X-Api-Key"] == "k"
    assert not {"X-Api-Key", "Authorization"} & set(other.asked[0].headers)


def test_a_redirect_that_would_lose_the_body_is_an_error_and_one_in_circles_too():
    with web(lambda asked: (303, {"Location": "/done"}, None)) as server, pytest.raises(Unavailable) as caught:
        http.post(server.url, {"id": 1})
    assert str(caught.value).endswith(f"a redirect (303) that drops what was sent; send it to {server.url}/done")
    with web(lambda asked: (302, {"Location": "/"}, None)) as server, pytest.raises(Unavailable) as caught:
        http.get(server.url)
    assert "more than 5 times" in str(caught.value)
    assert len(server.asked) == 6
    with web(lambda asked: (302, {"Location": "file:///etc/passwd"}, None)) as server, pytest.raises(UsageError) as no:
        http.get(server.url)
    assert "leads to something else than http:// or https://" in str(no.value)


def test_no_proxy_is_used_where_addresses_are_judged(monkeypatch):
    """It would resolve the name itself, and connect to wherever that leads."""
    with web(lambda asked: (200, {}, "by proxy")) as proxy, web(lambda asked: (200, {}, "direct")) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert http.get(server.url) == "by proxy"
        monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", "127.0.0.1")
        assert http.get(server.url) == "direct"


def test_the_certificate_is_of_the_name_though_the_connection_is_to_its_address(tmp_path, monkeypatch):
    certificate, key = certified("crm.test", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    system = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *a, **kw: system("127.0.0.1" if str(host).endswith(".test") else host, *a, **kw),
    )
    monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", "*.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    http._trust.cache_clear()
    try:
        with web(lambda asked: (200, {}, "secure"), tls=context) as server:
            assert http.get(f"https://crm.test:{server.port}/", attempts=1) == "secure"
            with pytest.raises(Unavailable, match=r"failed: .*certificate"):
                http.get(f"https://other.test:{server.port}/", attempts=1)
    finally:
        http._trust.cache_clear()


def certified(name: str, folder: Path) -> tuple[Path, Path]:
    """A certificate that this machine signs for itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now() - datetime.timedelta(days=1))
        .not_valid_after(now() + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return certificate, private
