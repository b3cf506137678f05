"""What is to be run, a notebook or a deployment: found, and checked with its parameters and its policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowkit import notebooks
from flowkit.client.connection import Connection
from flowkit.commit import commit_of
from flowkit.errors import NotebookError, NotFound, UsageError
from flowkit.family import DEPLOYMENT, Family, asked, gather
from flowkit.model import Deployment, Policy
from flowkit.notebooks import Notebook
from flowkit.rates import Rate
from flowkit.worker import kernels

NAME = re.compile(r"\w[\w .-]{0,99}")
NAMING = "use letters, digits, blanks, '.', '-' and '_'"

#: As in FLOWKIT_HTTP_ALLOW; ``*`` is everything there.
HOST = re.compile(r"\*|[\w*][\w.*-]*(/\d+)?(:\d+)?|\[?[0-9a-f:.]+(/\d+)?\]?(:\d+)?")

#: What each number of a policy may be. The upper ends only keep what comes of them within a calendar.
POSSIBLE = {
    "priority": (-1_000_000, 1_000_000),
    "retries": (0, 1_000),
    "backoff": (0, 86_400),  # seconds
    "timeout": (0.001, 366 * 86_400),  # seconds
    "max_concurrent": (1, 100_000),
    "cell_timeout": (0.001, 366 * 86_400),
    "memory": (1_000_000, 2**50),  # bytes
}


class Targets(Connection):
    def values(self, target: str | Path, pairs: Mapping[str, str]) -> dict[str, Any]:
        """The command line's texts as values of the types that *target*'s parameters declare."""
        return self._notebook(target).from_text(pairs) if pairs else {}

    def typed(self, name: str, pairs: Mapping[str, str]) -> dict[str, Any]:
        """Texts as values of the types that the parameters of the deployment of that name declare."""
        return self._snapshot(self.store.deployment(name)).from_text(pairs)

    def parameters(self, name: str) -> list[dict[str, Any]]:
        """What a run of the deployment takes, with the values it has if none are given."""
        deployment = self.store.deployment(name)
        return [
            {
                "name": one.name,
                "type": one.type,
                "default": repr(deployment.parameters[one.name]) if one.name in deployment.parameters else one.default,
                "help": one.help,
            }
            for one in self._snapshot(deployment).parameters or ()
        ]

    def _target(
        self, target: str | Path, parameters: Mapping[str, Any], policy: Mapping[str, Any]
    ) -> tuple[Deployment, str | None, Family | None]:
        if notebooks.is_path(target):
            notebook = notebooks.read(target)
            family = gather(notebook, Path(target).resolve())
            return *self._prepare(notebook, target, parameters, Policy(**policy), family), family
        return self._deployed(self._deployment(str(target)), parameters, policy), None, None

    def _deployed(self, deployment: Deployment, parameters: Mapping[str, Any], policy: Mapping[str, Any]) -> Deployment:
        """With these differences, for one run."""
        notebook = self._snapshot(deployment)
        values = notebook.check({**deployment.parameters, **parameters})
        changed = self._possible(replace(deployment.policy, **policy), notebook)
        return replace(deployment, parameters=values, policy=changed)

    def _notebook(self, target: str | Path) -> Notebook:
        if notebooks.is_path(target):
            return notebooks.read(target)
        return self._snapshot(self._deployment(str(target)))

    def _snapshot(self, deployment: Deployment) -> Notebook:
        return notebooks.parse(self.store.snapshot(deployment.snapshot), name=Path(deployment.notebook).name)

    def _deployment(self, name: str) -> Deployment:
        try:
            return self.store.deployment(name)
        except NotFound as error:
            if Path(name).exists():
                notebooks.read(name)  # says what is wrong with the file or folder of that name
            raise NotFound(f"{error}; a notebook is named by its path, ending in .ipynb") from error

    def _prepare(
        self,
        notebook: Notebook,
        path: str | Path,
        parameters: Mapping[str, Any],
        policy: Policy,
        family: Family | None,
        *,
        complete: bool = True,
        commit: str | None = None,
    ) -> tuple[Deployment, str]:
        """The notebook as a deployment that has no version yet, checked, and its snapshot."""
        deployment = Deployment(
            name=notebook.name,
            notebook=str(Path(path).absolute()),
            snapshot=notebook.digest,
            commit=commit or commit_of(Path(path).absolute()),
            family=family.digest if family else None,
            parameters=notebook.check(parameters, complete=complete),
            policy=self._possible(policy, notebook),
        )
        return deployment, notebook.text

    def _possible(self, policy: Policy, notebook: Notebook) -> Policy:
        """The policy, if the notebook can be run by it."""
        if not NAME.fullmatch(policy.queue):
            raise UsageError(f"a queue cannot be named {policy.queue!r}; {NAMING}")
        for name, (least, most) in POSSIBLE.items():
            given = getattr(policy, name)
            if given is not None and not least <= given <= most:
                raise UsageError(f"{name} cannot be {given:g}; it is a number from {least:g} to {most:g}")
        if policy.hosts is not None:
            policy = replace(policy, hosts=_hosts(policy.hosts))
        if policy.rate is not None:
            policy = replace(policy, rate=str(Rate.parse(policy.rate)))
        if self.config.embedded:
            # Its worker is this machine: a kernel missing here is missing there. On many machines only the run knows.
            kernels.find(policy.kernel or notebook.kernel)
        return policy


def _hosts(text: str) -> str:
    found = [one.strip().lower() for one in text.split(",")]
    for one in found:
        if not HOST.fullmatch(one):
            raise UsageError(
                f"{one!r} is no host; give a name, an address or a network, and a port if one is meant: crm.internal, "
                "*.internal, 10.1.0.0/16, localhost:8080"
            )
    return ",".join(found)


def alone(notebook: Notebook) -> Family | None:
    """The family of a notebook whose file is on another machine: deployments."""
    names = asked(notebook)
    for name in names:
        if not name.startswith(DEPLOYMENT):
            raise NotebookError(
                f"{notebook.name} runs {name!r} as a child, which did not come with it; deploy it where that lies, or "
                'name a deployment: fk.notebook(deployment="…")'
            )
    return Family({name: {} for name in names}) if names else None
