"""Secrets: a notebook gets them from its worker, and nothing that it leaves holds one, however hard it tries."""

from __future__ import annotations

import base64
import html
import json
import pickle
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import keyring.backend
import psycopg
import pytest
import redis

import flowkit as fk
from flowkit import vault
from flowkit.client import Client
from flowkit.config import Config
from flowkit.errors import SecretError
from flowkit.redaction import Redaction
from flowkit.worker.executed import Executed
from flowkit.worker.secrets import Keeper
from tests.notebooks_made import notebook as made
from tests.notebooks_made import outputs, write
from tests.processes import answer, eventually, worker
from tests.servers import Databases
from tests.worker.execution import current

#: Leaks through every path there is. ``names`` is a parameter, for more of them.
LEAKS = """
import base64, html, json, logging, sys, time, urllib.parse, warnings
import flowkit as fk
from IPython.display import HTML, JSON, display, update_display
crm, pem, odd = (fk.secret(name).reveal() for name in ("crm", "pem", "odd"))
for name in names:
    value = fk.secret(name).reveal()
    print(value[:7], end="")
    print(value[7:], json.dumps({value: 1}), urllib.parse.quote(value), base64.b64encode(value.encode()).decode())
# next
print(crm, pem, odd, repr(odd), json.dumps([crm, pem, odd]), urllib.parse.quote(odd), urllib.parse.quote_plus(odd))
print(base64.b64encode(("user:" + crm + ":x").encode()).decode(), base64.urlsafe_b64encode(odd.encode()).decode())
sys.stdout.write(crm[:9]); sys.stdout.flush(); time.sleep(0.5); sys.stdout.write(crm[9:] + "\\n")
sys.stderr.write(crm[:5]); sys.stderr.flush(); time.sleep(0.5); sys.stderr.write(crm[5:] + "\\n")
for line in pem.splitlines():
    print(">", line)
logging.getLogger("x").warning("token %s", crm); warnings.warn(f"bad token {odd}")
display(HTML(f"<a href='https://x/?t={urllib.parse.quote(odd)}'>{html.escape(odd)} {crm}</a>"), JSON({crm: [odd]}))
display({"text/plain": "a"}, raw=True, display_id="d"); update_display({"text/plain": crm}, raw=True, display_id="d")
print(fk.secret("crm"), f"{fk.secret('crm'):>5}", [fk.secret("crm")])
crm
# next
import ipywidgets
ipywidgets.HTML(value=crm, description=odd)
# next
flow = fk.Flow("leaks")
@flow.node
def told(text: str = crm) -> str:
    return f"told {text}"
@flow.node
def frame(told: str):
    import pandas as pd
    return pd.DataFrame({"column " + odd: [crm, pem]})
@flow.node
def kept(token: fk.Secret, plain: str) -> tuple:
    return token, len(token.reveal()), len(plain)
@flow.node
def fails(plain: str) -> str:
    raise ValueError(f"401 for {plain} and {odd}")
try:
    flow.run(token="crm", plain=crm)
except fk.NodeFailed as error:
    print(error)
# next
for value in (crm, fk.secret("crm")):
    try:
        fk.result("token", value)
    except fk.FlowkitError as error:
        print(error)
raise RuntimeError(f"no access with {crm}, {odd}")
"""


@pytest.fixture
def canaries(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name -> value, where the processes of a worker find them."""
    lines = [base64.b64encode(secrets.token_bytes(48)).decode() for _ in range(3)]
    found = {
        "crm": secrets.token_hex(12),
        "odd": f'q"<{secrets.token_hex(6)}> &/+é\\{secrets.token_hex(6)}',
        "pem": "\n".join(["-----BEGIN KEY-----", *lines, "-----END KEY-----"]),
        **{f"c{number}": secrets.token_urlsafe(16) for number in range(500)},
    }
    folder = tmp_path / "mounted"
    folder.mkdir()
    for name, value in found.items():
        if name != "crm":
            (folder / name).write_text(value + "\n")
    monkeypatch.setenv("FLOWKIT_SECRETS", str(folder))
    monkeypatch.setenv("FLOWKIT_SECRET_CRM", found["crm"])
    return found


def forms(value: str) -> set[bytes]:
    """Written here anew: what is looked for is not asked of what hides it."""
    data = value.encode()
    texts = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    texts |= {html.escape(value), html.escape(value, quote=False), quote(value), quote(value, safe="")}
    texts |= {quote_plus(value), base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()}
    texts |= {base64.b64encode(b"user:" + data + b":x").decode()[8:-8]}
    return {text.encode() for text in texts}


@pytest.fixture
def postgres_database(postgres_databases: Databases) -> Iterator[str]:
    with postgres_databases.fresh() as url:
        yield url


def tables(url: str) -> dict[str, bytes]:
    """Every row of every table, as PostgreSQL writes it."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        found = {}
        for (name,) in names:
            with connection.cursor().copy(f'COPY "{name}" TO STDOUT WITH (FORMAT binary)'.encode()) as copy:
                found[name] = b"".join(map(bytes, copy))
    return found


def keys(url: str) -> dict[str, bytes]:
    reading = {
        b"string": lambda client, key: client.get(key),
        b"list": lambda client, key: client.lrange(key, 0, -1),
        b"set": lambda client, key: client.smembers(key),
        b"zset": lambda client, key: client.zrange(key, 0, -1),
        b"hash": lambda client, key: client.hgetall(key),
        b"stream": lambda client, key: client.xrange(key),
    }
    with redis.Redis.from_url(url) as client:
        return {repr(key): repr(reading[client.type(key)](client, key)).encode() for key in client.scan_iter()}


def assert_nowhere(values: Iterable[str], places: dict[str, bytes]) -> None:
    wanted = [form for value in values for form in forms(value)]
    found = [
        (Path(place).name, data[max(0, data.index(form) - 150) : data.index(form) + 150])
        for place, data in places.items()
        for form in wanted
        if form in data
    ]
    assert not found, found[:5]


@pytest.mark.parametrize("servers", [False, True], ids=["sqlite-cold", "postgresql-redis-warm"])
def test_nothing_that_a_run_leaves_holds_a_secret(
    home: Path,
    tmp_path: Path,
    canaries: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    servers: bool,
) -> None:
    if servers:
        monkeypatch.setenv("FLOWKIT_DATABASE_URL", request.getfixturevalue("postgres_database"))
        monkeypatch.setenv("FLOWKIT_REDIS_URL", request.getfixturevalue("redis_url"))
    cells = [part.strip() for part in LEAKS.split("# next")]
    notebook = write(tmp_path / "leaks.ipynb", *cells, parameters="names: list = []")
    answer("deploy", notebook)
    many = [name for name in canaries if name.startswith("c") and name != "crm"]
    many = many[:20] if servers else many
    with Client(Config.from_env()) as client, worker(FLOWKIT_WARM="numpy,pandas" if servers else "off"):
        if servers:
            eventually(lambda: client.workers())
        run = client.submit("leaks", parameters={"names": many})
        ended = eventually(lambda: (now := client.store.run(run.id)).state.final and now, seconds=120)
        executed = outputs(Path(ended.output or ""))

        assert ended.error == "RuntimeError: no access with ***, ***", executed[-3000:]
        kept = [event.data for event in client.recorded(ended) if event.kind == "node" and event.data]
        assert "fk.result('token', …) holds the value of a secret" in executed
        assert len([note for note in kept if "kept" in note]) == 1  # the one whose result holds no value
        said = client.store.events(run.id)[1]
        for stream in ("stdout", "stderr"):  # split over two events it would be in no row
            whole = "".join(event.data for event in said if event.kind == "output" and event.name == stream)
            assert not [name for name, value in canaries.items() if value in whole]

        places = {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
        if servers:
            places |= tables(Config.from_env().database_url) | keys(Config.from_env().redis_url or "")
        assert any(path.endswith(".ipynb") for path in places)
        assert_nowhere(canaries.values(), places)


def test_a_secret_shows_its_value_to_whoever_asks_for_it_and_to_nobody_else(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWKIT_SECRET_CRM_EU", "hunter2")
    token = fk.secret("crm-eu")

    assert token.reveal() == "hunter2"
    assert f"{token} {token!r} {token:>5}" == "*** ***   ***"
    assert b"hunter2" not in pickle.dumps(token)
    assert pickle.loads(pickle.dumps(token)).reveal() == "hunter2"


def test_a_flow_is_given_a_secret_by_its_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_SECRET_CRM", "hunter2")
    flow = fk.Flow("send")

    @flow.node
    def sent(token: fk.Secret, other: fk.Secret | None = None) -> tuple[str, str]:
        assert other is not None
        return token.reveal(), other.reveal()

    assert flow.run(token="crm", other=fk.secret("crm"))["sent"] == ("hunter2", "hunter2")
    with pytest.raises(fk.NodeFailed, match="there is no secret 'crn'"):
        flow.run(token="crn", other=None)


def test_a_secret_comes_from_a_file_a_keyring_or_a_registered_provider(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ring(keyring.backend.KeyringBackend):
        priority = 1

        def get_password(self, service: str, username: str) -> str | None:
            return {("flowkit", "ringed"): "of the ring"}.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            raise NotImplementedError

    before = keyring.get_keyring()
    keyring.set_keyring(Ring())
    (tmp_path / "file").write_text("of a file\r\n")
    monkeypatch.setenv("FLOWKIT_SECRETS", str(tmp_path))
    provider = tmp_path / "provider-1.dist-info"
    provider.mkdir()
    (provider / "METADATA").write_text("Metadata-Version: 2.1\nName: provider\nVersion: 1\n")
    (provider / "entry_points.txt").write_text("[flowkit.secrets]\nvault = secrets_provider:find\n")
    (tmp_path / "secrets_provider.py").write_text(
        "def find(name):\n    if name == 'broken': raise ValueError('s3cr3t')\n"
        "    return 'of a provider' if name == 'vaulted' else None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert vault.reveal("file") == "of a file"
        assert vault.reveal("ringed") == "of the ring"
        assert vault.reveal("vaulted") == "of a provider"
        with pytest.raises(SecretError, match=r"the provider 'vault' failed at the secret 'broken': ValueError$"):
            vault.reveal("broken")
    finally:
        keyring.set_keyring(before)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("crm", None, "there is no secret 'crm' where it is looked for; set FLOWKIT_SECRET_CRM"),
        ("crm", "abc", "has 3 characters, which cannot be kept out of outputs"),
        ("crm", "x" * 40_000, "is longer than 32,768 bytes"),
        ("../crm", None, "give the name, no value"),
    ],
)
def test_what_is_no_secret_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, message: str
) -> None:
    if value is not None:
        monkeypatch.setenv("FLOWKIT_SECRET_CRM", value)
    with pytest.raises(SecretError, match=message):
        vault.reveal(name)


def test_a_kernel_is_told_only_what_its_notebook_speaks_of() -> None:
    redaction = Redaction()
    keeper = Keeper(made("fk.secret('crm')"), {"names": ["erp"]}, redaction, reveal=lambda name: f"value of {name}")

    assert keeper.answer({"secret": "crm"}) == {"value": "value of crm"}
    assert redaction.text("the value of crm, the value of hr") == "the ***, the value of hr"
    assert keeper.answer({"secret": "erp"}) == {"value": "value of erp"}
    with pytest.raises(SecretError, match="the notebook does not name the secret 'hr', so it does not get it"):
        keeper.answer({"secret": "hr"})


def test_the_end_of_an_output_waits_while_a_secret_may_have_begun() -> None:
    redaction = Redaction()
    redaction.add("swordfish")

    assert redaction.unfinished("a word and sword") == 5
    assert redaction.unfinished("swordfish") == 0
    assert redaction.unfinished("nothing of the kind") == 0


def test_what_a_kernel_says_of_a_failed_call_is_redacted() -> None:
    redaction = Redaction()
    redaction.add("swordfish")
    keeper = Keeper(made(), {}, redaction)

    assert keeper.redacted({"limit": "crm", "error": "401 swordfish"}) == {"limit": "crm", "error": "401 ***"}


def test_a_redacted_document_is_still_one_though_a_secret_is_a_word_of_its_format(tmp_path: Path) -> None:
    executed = Executed(made("print('stream')"), current(), redaction := Redaction())
    redaction.add("stream")
    executed.note(0, "a stream of text")

    cell = json.loads(executed.text())["cells"][0]
    assert cell["source"] == ["print('***')"]
    assert cell["outputs"] == [{"name": "stderr", "output_type": "stream", "text": ["a *** of text"]}]
