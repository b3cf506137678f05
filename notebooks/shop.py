"""A shop and a CRM to try the notebook `orders` with: two HTTP servers on this machine that fail, throttle and hang.

The shop lists orders, ten to a page. The CRM takes one order a request, and each Idempotency-Key once; what it has
taken is in `taken`, in the order in which it came.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ORDERS = [
    {
        "order_id": f"A-{number:03}",
        "status": ("paid", "paid", "open", "cancelled")[number % 4],
        "total": 5 + number * 37 % 400 / 4,
        "customer": {"email": f" Customer{number % 9}@Example.com"},
    }
    for number in range(1, 61)
]
PAGE = 10


class Shop:
    """`with Shop() as shop:` serves until the block ends; `Shop().open()` until `close()`, or Python's end."""

    def __init__(self, hang: float = 60.0) -> None:
        """*hang*: seconds without an answer where it hangs on purpose."""
        self.hang = hang
        self.taken: list[dict] = []
        self.requests = {"GET": 0, "POST": 0}
        self.ready = threading.Event()  # while it is not set, the CRM does nothing
        self.ready.set()
        self._closing = threading.Event()
        self._seen: dict[str, int] = {}  # key or page -> how often it was asked for
        self._kept: set[str] = set()  # keys of what was taken
        self._lock = threading.Lock()

    def open(self) -> "Shop":
        shop = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                shop._list(self)

            def do_POST(self) -> None:
                shop._take(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # somebody did not wait for the answer

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def close(self) -> None:
        self.ready.set()
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "Shop":
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/orders"

    def _list(self, request: BaseHTTPRequestHandler) -> None:
        page = int(parse_qs(urlsplit(request.path).query).get("page", ["1"])[0])
        first = self._asked("GET", f"page {page}") == 1
        if first and page == 2:
            return _answer(request, 503, {"detail": "down for a moment"})
        if first and page == 3:
            return _answer(request, 429, {"detail": "not so fast"}, {"Retry-After": "1"})
        if first and page == 4:
            return self._say_nothing(request)
        orders = ORDERS[(page - 1) * PAGE : page * PAGE]
        following = f"{self.url}?page={page + 1}" if page * PAGE < len(ORDERS) else None
        return _answer(request, 200, {"orders": orders, "next": following})

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        order = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        key = request.headers["Idempotency-Key"]
        first = self._asked("POST", key) == 1
        number = int(order["id"].removeprefix("A-")) if first else 0
        time.sleep(0.02)
        self.ready.wait()
        if number % 10 == 1:
            return _answer(request, 500, {"detail": "something broke"})
        if number % 10 == 4:
            return _answer(request, 429, {"detail": "not so fast"}, {"Retry-After": "1"})
        with self._lock:
            if key not in self._kept:
                self._kept.add(key)
                self.taken.append(order)
        # Taken, but whoever sent it will not know.
        if number in (5, 32):
            return self._say_nothing(request)
        if number % 10 == 9:
            return request.connection.close()
        return _answer(request, 200, {"taken": order["id"]})

    def _asked(self, method: str, what: str) -> int:
        with self._lock:
            self.requests[method] += 1
            self._seen[what] = self._seen.get(what, 0) + 1
            return self._seen[what]

    def _say_nothing(self, request: BaseHTTPRequestHandler) -> None:
        self._closing.wait(self.hang)
        request.close_connection = True


def _answer(request: BaseHTTPRequestHandler, status: int, content: dict, headers: dict | None = None) -> None:
    data = json.dumps(content).encode()
    request.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": len(data), **(headers or {})}.items():
        request.send_header(name, str(value))
    request.end_headers()
    request.wfile.write(data)
