"""The connections of a process: store, broker and artifacts."""

from __future__ import annotations

from typing import Self

from flowkit.artifacts import Artifacts
from flowkit.config import Config
from flowkit.errors import Unavailable
from flowkit.store import Store
from flowkit.worker.broker import Broker


class Connection:
    """The connections of this process, made from its settings. A context manager."""

    def __init__(self, config: Config) -> None:
        """Raises Unavailable, naming which and where, if the store cannot be reached."""
        self.config = config
        try:
            self.store = Store.open(config.database_url)
        except Unavailable as error:
            raise Unavailable(f"{error}; check {config.database_setting}") from error
        self.broker = Broker(config, self.store.secret("messages"))
        self.artifacts = Artifacts(config.artifacts_url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()
