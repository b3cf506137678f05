"""Every setting, read once from the environment; nobody else reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from flowkit.errors import UsageError

#: What a kernel is given of its worker's environment: by which programs find themselves, speak the user's language, use
#: as many threads as they may and get through a proxy. All else may be a secret. Also in docs/reference.md.
KERNEL_VARIABLES = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "XDG_*", "LANG", "LANGUAGE", "LC_*", "TZ"),
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_*", "LD_LIBRARY_PATH", "DYLD_*", "R_HOME", "R_LIBS*", "JULIA_*", "JAVA_HOME"),
    *("JUPYTER_*", "IPYTHON*", "MPL*", "OMP_*", "OPENBLAS_*", "MKL_*", "NUMEXPR_*", "CUDA_VISIBLE_DEVICES"),
    *("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SDK_DISABLED", "OTEL_PROPAGATORS", "OTEL_*_EXPORTER"),
    *("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_*_ENDPOINT", "OTEL_EXPORTER_OTLP_*PROTOCOL", "OTEL_TRACES_*"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)

#: What of these it is not given, unless FLOWKIT_KERNEL_ENV says so.
_SECRET = ("PYTHONSTARTUP", "*TOKEN*", "*SECRET*", "*PASSWORD*", "*_KEY")

#: What it is not given whatever that says: the kernel is the author's code, and has no business with the store.
_NEVER = ("FLOWKIT_*", "REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_DB")

#: What kernels that are made ahead have imported, if nothing else is said.
WARM = "numpy,pandas"

#: Set by the worker for its kernels: the folder with ``run.json`` and the event log.
RUN_FOLDER = "FLOWKIT_RUN_FOLDER"

#: A setting of the worker that its kernels get too, as they are who connects.
HTTP_ALLOW = "FLOWKIT_HTTP_ALLOW"


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows where Redis is, of ``redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME/DB?OPTION=…``.

    User and password are those of Redis; the sentinels' own are the options sentinel_username and sentinel_password.
    """

    hosts: tuple[tuple[str, int], ...]
    service: str  #: what they call the master
    master: str = field(repr=False)  #: its URL, but for its host, which only they know
    login: dict[str, str] = field(repr=False)  #: username and password of the sentinels, if they have any


#: By which a program is told whose trace it is in, see W3C Trace Context.
TRACEPARENT = "TRACEPARENT"

#: In the run folder: named pipes, by which a kernel asks its worker for limits and secrets, and hears the answer.
ASKS, ANSWERS = "limits.ask", "limits.answer"


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of this process. ``from_env`` gives the name, the meaning and the default of each."""

    home: Path
    database_url: str
    redis_url: str | None
    artifacts_url: str
    lease: float
    grace: float
    keep: int
    run_folder: Path | None
    warm: tuple[str, ...] | None
    api_url: str | None = None
    api_token: str | None = field(default=None, repr=False)

    @property
    def database_setting(self) -> str:
        """The variable that says where the database is."""
        return "FLOWKIT_HOME" if self.database_url == _embedded_database(self.home) else "FLOWKIT_DATABASE_URL"

    @property
    def sentinels(self) -> Sentinels | None:
        """None: there is no Redis, or it is where its URL says."""
        return _sentinels(self.redis_url) if self.redis_url and "+sentinel" in self.redis_url.split(":")[0] else None

    @property
    def embedded(self) -> bool:
        """The store is a file: client, worker and dashboard share this machine."""
        return self.database_url.startswith("sqlite")

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Config:
        """
        FLOWKIT_HOME           folder of the embedded default; ~/.flowkit
        FLOWKIT_DATABASE_URL   SQLAlchemy URL of the store; SQLite in FLOWKIT_HOME
        FLOWKIT_REDIS_URL      redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://; put together
                               from REDIS_HOST, REDIS_PORT, REDIS_PASSWORD and REDIS_DB if only those are set; else
                               SQLite in FLOWKIT_HOME
        FLOWKIT_ARTIFACTS_URL  where executed notebooks go, any fsspec URL; a folder in FLOWKIT_HOME
        FLOWKIT_LEASE          seconds a worker may be silent before its runs are handed back; 15
        FLOWKIT_GRACE          seconds a stopping worker waits for its runs before it hands them back; 10
        FLOWKIT_KEEP           gigabytes of nodes' results to keep of each deployment, the newest; 0 keeps none; 10
        FLOWKIT_WARM           modules that kernels have imported before a run needs one, as in "pandas,pyarrow"; "off":
                               kernels are started when they are needed; numpy,pandas
        FLOWKIT_KERNEL_ENV     variables of the worker that kernels get too, as in "DATABASE_URL,AWS_*"; none
        FLOWKIT_HTTP_ALLOW     what HTTP nodes of a worker may connect to that is not public, as in
                               "crm.internal,10.1.0.0/16,localhost:8080"; "*": everything; none
        FLOWKIT_API_URL        of a server elsewhere, that commands ask in place of the store; none
        FLOWKIT_API_TOKEN      with which they ask it, see flowkit token create; none
        FLOWKIT_PUBLIC_URL     where people reach the dashboard, for the links in alerts; none
        FLOWKIT_SECRETS        a folder with secrets, a file each, as Docker and Kubernetes mount them; none
        FLOWKIT_SECRET_NAME    the secret called "name"; none
        """
        env = os.environ if env is None else env
        home = Path(env.get("FLOWKIT_HOME") or Path.home() / ".flowkit").expanduser().absolute()
        folder = env.get(RUN_FOLDER)
        return cls(
            home=home,
            database_url=_database_url(env, home),
            redis_url=_redis_url(env),
            artifacts_url=env.get("FLOWKIT_ARTIFACTS_URL") or str(home / "artifacts"),
            lease=_seconds(env, "FLOWKIT_LEASE", 15.0),
            grace=_seconds(env, "FLOWKIT_GRACE", 10.0),
            keep=_gigabytes(env, "FLOWKIT_KEEP", 10.0),
            run_folder=Path(folder) if folder else None,
            warm=warm_modules(env),
            api_url=env.get("FLOWKIT_API_URL") or None,
            api_token=env.get("FLOWKIT_API_TOKEN") or None,
        )


def session_notebook(env: Mapping[str, str] | None = None) -> Path | None:
    """Where the notebook of this kernel's session was when the kernel started, as Jupyter's server has told it."""
    name = (os.environ if env is None else env).get("JPY_SESSION_NAME")
    return Path(name) if name else None


def failpoints(env: Mapping[str, str] | None = None) -> str:
    """FLOWKIT_FAILPOINTS, for tests alone: where this process is to fail."""
    return (os.environ if env is None else env).get("FLOWKIT_FAILPOINTS", "")


def warm_modules(env: Mapping[str, str] | None = None) -> tuple[str, ...] | None:
    """FLOWKIT_WARM: what kernels that are made ahead have imported; None: none are made ahead."""
    text = (os.environ if env is None else env).get("FLOWKIT_WARM", WARM)
    if text.strip().lower() == "off":
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"FLOWKIT_WARM names {name!r}; it must be modules, as in 'pandas,pyarrow', or 'off'")
    return names


def kernel_environment(
    run_folder: Path, env: Mapping[str, str] | None = None, *, traceparent: str | None = None
) -> dict[str, str]:
    """What a kernel may see of this process's environment, plus where it finds its run and whose trace that is in."""
    env = os.environ if env is None else env
    named = [name.strip() for name in env.get("FLOWKIT_KERNEL_ENV", "").split(",")]

    told = {RUN_FOLDER: str(run_folder), HTTP_ALLOW: env.get(HTTP_ALLOW, "")}
    told |= {TRACEPARENT: traceparent} if traceparent else {}
    return {name: value for name, value in env.items() if _given(name, *named)} | told


@lru_cache(4096)  # it is asked of each variable for each run
def _given(name: str, *named: str) -> bool:
    """Whether a kernel gets the variable of that name, if those *named* are asked for by the worker's owner."""
    usual = _matches(name, KERNEL_VARIABLES) and not _matches(name, _SECRET)
    return (usual or _matches(name, named)) and not _matches(name, _NEVER)


def traced(env: Mapping[str, str] | None = None) -> bool:
    """Whether OpenTelemetry's variables say where traces go. All else of them its own SDK reads."""
    env = os.environ if env is None else env
    off = env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    where = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return bool(where) and not off


def caller_traceparent(env: Mapping[str, str] | None = None) -> str | None:
    """The span from which this program was started, if who did so has said."""
    return (os.environ if env is None else env).get(TRACEPARENT)


def environment_with(more: Mapping[str, str]) -> dict[str, str]:
    """This process's own environment and *more*: for a program that it starts."""
    return {**os.environ, **more}


def http_allowed(env: Mapping[str, str] | None = None) -> tuple[str, ...] | None:
    """FLOWKIT_HTTP_ALLOW: what HTTP nodes may connect to although it is not public; None: whatever they like.

    A worker tells its kernels, also if it has none. Where nobody has set it, as in an author's notebook, a person has
    typed the address, on a machine whose network is theirs.
    """
    text = (os.environ if env is None else env).get(HTTP_ALLOW)
    if text is None or text.strip() == "*":
        return None
    return tuple(one.strip() for one in text.split(",") if one.strip())


def secret_variable(name: str) -> str:
    """The variable of this process's environment that may hold the secret of that name."""
    return "FLOWKIT_SECRET_" + re.sub(r"[.-]", "_", name).upper()


def secret_in_environment(name: str, env: Mapping[str, str] | None = None) -> str | None:
    return (os.environ if env is None else env).get(secret_variable(name))


def secrets_folder(env: Mapping[str, str] | None = None) -> Path | None:
    folder = (os.environ if env is None else env).get("FLOWKIT_SECRETS")
    return Path(folder) if folder else None


def public_url(env: Mapping[str, str] | None = None) -> str | None:
    """Where people reach the dashboard, without a slash at its end."""
    return ((os.environ if env is None else env).get("FLOWKIT_PUBLIC_URL") or "").rstrip("/") or None


def whole_environment() -> dict[str, str]:
    """All of this process's: for kernels that are its own user's, as papermill's are."""
    return dict(os.environ)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def without_password(url: str) -> str:
    """The URL as it may be shown; also one that is none, which an error is about to say."""
    url = re.sub(r"(//[^:/@]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&][^=&]*password)=[^&]*", r"\1=***", url, flags=re.IGNORECASE)


def _embedded_database(home: Path) -> str:
    return f"sqlite:///{home / 'flowkit.db'}"


def _database_url(env: Mapping[str, str], home: Path) -> str:
    url = env.get("FLOWKIT_DATABASE_URL") or _embedded_database(home)
    # What other tools write for PostgreSQL; SQLAlchemy would look for psycopg2.
    for prefix in ("postgres://", "postgresql://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url


def _redis_url(env: Mapping[str, str]) -> str | None:
    url = env.get("FLOWKIT_REDIS_URL")
    if url:
        wrong = _wrong_redis_url(url)
        if wrong:
            raise UsageError(f"FLOWKIT_REDIS_URL is {without_password(url)!r}; {wrong}")
        return url
    host = env.get("REDIS_HOST")
    if not host:
        return None
    password = env.get("REDIS_PASSWORD")
    secret = f":{quote(password, safe='')}@" if password else ""
    return f"redis://{secret}{host}:{env.get('REDIS_PORT') or 6379}/{env.get('REDIS_DB') or 0}"


_SENTINEL = re.compile(
    r"redis(?P<tls>s?)\+sentinel://(?P<login>[^/]*@)?(?P<hosts>[^/?@]+)/(?P<service>[^/?]+)(/(?P<db>\d*))?(\?(?P<query>.*))?"
)
_SENTINEL_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+)(?::(\d{1,5}))?")


def _wrong_redis_url(url: str) -> str | None:
    """What it should be, if it cannot be one."""
    scheme = url.split("://")[0]
    if scheme in ("redis+sentinel", "rediss+sentinel"):
        return None if _sentinels(url) else f"it must be {scheme}://HOST:PORT,HOST:PORT/NAME, with the master's name"
    if scheme == url or scheme not in ("redis", "rediss", "unix"):
        return "it must begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return f"it must be {scheme}://HOST:PORT/DB, with a port from 0 to 65535"
    if scheme == "unix":
        return None if parts.path else "it must be unix:///PATH, of Redis's socket"
    return None if re.fullmatch(r"/?\d*", parts.path) else f"it must be {scheme}://HOST:PORT/DB, with a number as DB"


def _sentinels(url: str) -> Sentinels | None:
    found = _SENTINEL.fullmatch(url)
    hosts = [_SENTINEL_HOST.fullmatch(one) for one in found["hosts"].split(",")] if found else [None]
    if found is None or any(host is None or int(host[2] or 0) > 65535 for host in hosts):
        return None
    options = dict(parse_qsl(found["query"] or ""))
    theirs = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    query = f"?{urlencode(options)}" if options else ""
    return Sentinels(
        hosts=tuple((host[1].strip("[]"), int(host[2] or 26379)) for host in hosts if host),
        service=found["service"],
        master=f"redis{found['tls']}://{found['login'] or ''}sentinel/{found['db'] or 0}{query}",
        login={name: value for name, value in theirs.items() if value},
    )


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    value = _number(env.get(name), default)
    if not 0 < value < float("inf"):
        raise UsageError(f"{name} is {env[name]!r}; it must be a number of seconds above 0")
    return value


def _gigabytes(env: Mapping[str, str], name: str, default: float) -> int:
    value = _number(env.get(name), default)
    if not 0 <= value < float("inf"):
        raise UsageError(f"{name} is {env[name]!r}; it must be a number of gigabytes, 0 or more")
    return int(value * 1e9)


def _number(text: str | None, default: float) -> float:
    if not text:
        return default
    try:
        return float(text)
    except ValueError:
        return -1.0
