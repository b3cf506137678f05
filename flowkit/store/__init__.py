"""The truth: what is deployed, what shall run, what ran; in SQLite or PostgreSQL.

Every change is one short transaction, every change of a run's state one guarded update whose row count is the answer.
So any number of processes may do the same thing at once, die anywhere, and try again. Nobody else imports SQLAlchemy;
what comes out is the frozen data of ``flowkit.model``.
"""

from __future__ import annotations

from flowkit.store.access import Access
from flowkit.store.alerts import Alerts
from flowkit.store.backfills import Backfills
from flowkit.store.changes import Changes
from flowkit.store.claims import Claims
from flowkit.store.deployments import Deployments
from flowkit.store.events import Events
from flowkit.store.figures import Figures
from flowkit.store.hooks import Hooks
from flowkit.store.limits import Limits
from flowkit.store.moves import MAX_CRASHES, Moves
from flowkit.store.retention import Retention
from flowkit.store.runs import Runs
from flowkit.store.schedules import Schedules
from flowkit.store.search import Search
from flowkit.store.secrets import Secrets
from flowkit.store.submissions import Submissions
from flowkit.store.workers import Workers

__all__ = ["MAX_CRASHES", "Store"]


class Store(
    Hooks,
    Alerts,
    Deployments,
    Schedules,
    Backfills,
    Submissions,
    Claims,
    Moves,
    Runs,
    Search,
    Limits,
    Events,
    Workers,
    Figures,
    Retention,
    Secrets,
    Access,
    Changes,
):
    """All that can be said to the database, used from any number of threads. ``Store.open(url)``, then ``close``.

    Each of its parts is one noun over the same ``Database``. All instants are aware UTC and come in as arguments.
    """
