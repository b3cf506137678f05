"""A flow: a named set of functions that feed each other by the names of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flowkit.errors import FlowCancelled, GraphError, NodeFailed, UsageError, did_you_mean
from flowkit.flow import code, draw, node, ports, rerun, runner, widget
from flowkit.flow.checkpoint import keeping
from flowkit.flow.child import WaitsForChildren, children_of
from flowkit.flow.graph import Graph
from flowkit.flow.limits import Gate
from flowkit.flow.lines import Lines, heard
from flowkit.flow.log import log_of_current_run
from flowkit.flow.node import Node
from flowkit.flow.outcome import Outcome
from flowkit.flow.ports import Fit
from flowkit.flow.progress import Progress
from flowkit.flow.spans import spans_of
from flowkit.flow.view import View

if TYPE_CHECKING:
    from concurrent.futures import Executor

Function = TypeVar("Function", bound=Callable[..., Any])


class Flow:
    """Functions become nodes by ``@flow.node``; a parameter that bears a node's name is an edge.

    As the last line of a cell it is drawn, with the states of its last run.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name.strip():
            raise GraphError(f"a flow's name is some text, not {name!r}; write fk.Flow('flight delays')")
        self.name = name
        #: Of the newest run; it fills while the flow runs, and stays when the run fails. None before the first.
        self.outcome: Outcome | None = None
        self._nodes: dict[str, Node] = {}
        self._graph: tuple[int, Graph] | None = None
        self._view = View.of_code(self)  #: once it has been shown live

    @overload
    def node(self, function: Function, /) -> Function: ...

    @overload
    def node(
        self,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        outputs: str | Sequence[str] = (),
        map: str | Sequence[str] = (),
        retries: int = 0,
        delay: float = 1.0,
        timeout: float | None = None,
        checkpoint: bool = True,
        cache: str | float | timedelta | None = None,
        limit: str | None = None,
        schema: Any = None,
    ) -> Callable[[Function], Function]: ...

    def node(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        outputs: str | Sequence[str] = (),
        map: str | Sequence[str] = (),
        retries: int = 0,
        delay: float = 1.0,
        timeout: float | None = None,
        checkpoint: bool = True,
        cache: str | float | timedelta | None = None,
        limit: str | None = None,
        schema: Any = None,
    ) -> Any:
        """Make a function a node under its own name, and return it unchanged. A second time replaces the node.

        A parameter is fed by the node or output that bears its name; if there is none it is a parameter of the flow,
        with the default it has here.

        Args:
            inputs: parameter -> what feeds it instead: a string is the name of a node, an output or a parameter of the
                flow; anything else is a constant (text: ``fk.value("…")``).
            outputs: names for the parts of what it returns, a tuple of that length or a dict with those keys.
            map: the parameter, or parameters in step, that are given a list and take an item of it. Each item is a
                call of its own, in parallel; the results are gathered in order. All items run, also when one fails.
            retries: attempts after the first, of the node or of each item.
            delay: seconds before the first retry; doubles each time.
            timeout: seconds for one attempt. Its thread cannot be stopped: it is left behind, and may still do
                something after the node has failed.
            checkpoint: False: a worker's run does not keep the result, and each of its attempts computes it anew,
                because it is large and quickly made, or because the work must be done again.
            cache: for how long a result may be reused by any run, here or in a worker, that has the same code and gives
                it the same: ``"12h"``, ``"1d"``, seconds. What it reads from elsewhere is not looked at.
            limit: the name of a limit that each call, of every item and every attempt, waits for: defined by
                ``flowkit limit set crm-api 30/minute`` or, in the notebook, by ``fk.limit("crm-api", "30/minute")``.
            schema: a DataFrameSchema or DataFrameModel of Pandera. What it returns, or an item of it, goes through
                it, and the node fails with the rows that do not fit. With *outputs*: output -> schema.
        """

        def add(function: Function) -> Function:
            self._add(
                node.make(
                    function,
                    None,
                    inputs=self._checked(inputs or {}),
                    by_name=True,
                    outputs=outputs,
                    map=map,
                    retries=retries,
                    delay=delay,
                    timeout=timeout,
                    checkpoint=checkpoint,
                    cache=cache,
                    limit=limit,
                    schema=schema,
                )
            )
            return function

        return add if function is None else add(function)

    def add(
        self,
        function: Callable[..., Any],
        /,
        name: str | None = None,
        *,
        outputs: str | Sequence[str] = (),
        map: str | Sequence[str] = (),
        retries: int = 0,
        delay: float = 1.0,
        timeout: float | None = None,
        checkpoint: bool = True,
        cache: str | float | timedelta | None = None,
        limit: str | None = None,
        schema: Any = None,
        inputs: Mapping[str, Any] | None = None,
        **more_inputs: Any,
    ) -> str:
        """Make a library function a node, as often as you like under different names. Returns the node's name.

        ``flow.add(read_csv, "planes", path=fk.value("planes.csv"), nrows=10)``: as in ``node(inputs=…)``, a string is
        a name and anything else a constant. Parameters that are not bound keep the function's own default; those
        without one are fed by name. *inputs* is for parameters called like one of the options here.
        """
        bound = {**(inputs or {}), **more_inputs}
        made = node.make(
            function,
            name,
            inputs=self._checked(bound),
            by_name=False,
            outputs=outputs,
            map=map,
            retries=retries,
            delay=delay,
            timeout=timeout,
            checkpoint=checkpoint,
            cache=cache,
            limit=limit,
            schema=schema,
        )
        self._add(made)
        return made.name

    def remove(self, name: str) -> None:
        """Forget a node, for instance one whose function was renamed."""
        if name not in self._nodes:
            raise GraphError(f"no node is called {name!r}{did_you_mean(name, self._nodes)}")
        del self._nodes[name]
        self._graph = None

    @property
    def graph(self) -> Graph:
        """The nodes wired together as they stand now, with what is wrong in ``graph.problems``."""
        if self._graph is None or self._graph[0] != ports.registered:
            self._graph = ports.registered, Graph(dict(self._nodes))
        return self._graph[1]

    def check(self, /, **parameters: Any) -> None:
        """Raise what ``run`` would raise with these parameters before it starts the first node."""
        self.graph.check(parameters)

    def compatible(self, source: Any, target: Any) -> Fit:
        """Whether what *source* gives fits *target*: true or false, and ``str()`` of it says why.

        Args:
            source: a type, or the name of a node or output.
            target: a type, or a port: ``"late.flights"`` is the parameter ``flights`` of the node ``late``.
        """
        given, wanted = source, target
        if isinstance(source, str):
            given = self.graph.node(source).produced()[source]
        if isinstance(target, str):
            name, _, parameter = target.partition(".")
            owner = self.graph.node(name)
            taken = {port.name: port for port in owner.ports}
            if parameter not in taken:
                takes = ", ".join(f"{name}.{port}" for port in taken) or "it has none"
                raise GraphError(f"no port is called {target!r}; name one of {takes}{did_you_mean(parameter, taken)}")
            wanted = owner.accepted(taken[parameter])
            if parameter in owner.map:
                given, whole = ports.element(given), given
                if given is ports.NOTHING:
                    return Fit(False, f"{ports.describe(whole)} is not a list, over which {target!r} maps")
        return ports.fit(given, wanted)

    def run(self, /, *, executor: Executor | None = None, threads: int | None = None, **parameters: Any) -> Outcome:
        """Run all nodes, those that do not wait for each other in parallel, and give their results by name.

        If a node fails, all that does not depend on it still runs; then ``NodeFailed`` is raised, and what there is
        stays in ``flow.outcome``. On Ctrl-C, and on *Cancel* of the graph, which raises ``FlowCancelled``, no other
        node starts, and those that run are left behind.

        Args:
            executor: runs the nodes instead of threads of this process, for instance a ``ProcessPoolExecutor``, for
                which functions, inputs and results must be picklable. It is not shut down.
            threads: how many nodes at a time; 1 runs them in the calling thread. Default: processors + 4, at most 32.
        """
        _check_options("run", executor, threads)
        values = self.graph.check(parameters)
        return self._run(self._begun(parameters, values), executor, threads)

    def rerun(
        self, /, *names: str, executor: Executor | None = None, threads: int | None = None, **parameters: Any
    ) -> Outcome:
        """Run nodes and all that depends on them again; without a name, what is ``stale``. The rest keeps its results.

        Parameters are as in the last run, unless they are given; nodes that read one that has changed run again too.
        A result that is needed and not there is refused. Fails as ``run`` does, for what it has run.
        """
        _check_options("rerun", executor, threads)
        last, graph = self.outcome, self.graph
        if last is not None and last.finished is None:
            raise UsageError("the flow is still running; wait for its end, or stop it, and then run it again")
        given = self._given(parameters)
        values = graph.check(given)
        named = frozenset(graph.node(name).name for name in names)
        if named:
            due = set(named) | rerun.with_changed(graph, last, values)
        else:
            due = rerun.stale(graph, last, given)
        if last is not None and not due:
            return last
        outcome = self._begun(given, values)
        rerun.continued(last, graph, rerun.with_readers(graph, due), outcome)
        return self._run(outcome, executor, threads, afresh=named)

    def stale(self, /, **parameters: Any) -> list[str]:
        """The nodes without a result, or with one that a run would not give again: by the keys under which a worker's
        run keeps results and a cache finds them. Parameters as in ``rerun``.

        So what a node names counts, functions and constants of the notebook and of local modules. What cannot be told
        from another, such as code that calls ``eval``, is out of date at once.
        """
        found = rerun.stale(self.graph, self.outcome, self._given(parameters))
        return [name for name in self._nodes if name in found]

    def _given(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the last run that there still are, and these instead."""
        before = self.outcome.given if self.outcome else {}
        return {name: value for name, value in before.items() if name in self.graph.parameters} | dict(parameters)

    def _begun(self, given: Mapping[str, Any], values: Mapping[str, Any]) -> Outcome:
        outcome = Outcome(self.name, self.graph, given, values)
        if self._view or widget.possible():
            outcome.lines = Lines()
        return outcome

    def _run(
        self,
        outcome: Outcome,
        executor: Executor | None,
        threads: int | None,
        *,
        afresh: frozenset[str] = frozenset(),
    ) -> Outcome:
        names = {node.limit for node in self._nodes.values() if node.limit is not None}
        gate = Gate(sorted(names)) if names else None
        log = log_of_current_run()
        self.outcome = outcome
        threads = threads or runner.threads_by_default()
        values = dict(outcome.parameters)
        children = children_of(self.name) if any(node.child for node in self._nodes.values()) else None
        kept = keeping(outcome, values, afresh=afresh)
        progress = Progress(outcome, values, log, kept, gate, children, spans_of(outcome.flow, outcome.started))
        ended = self._view.follow(self.graph, outcome, progress.cancel) if self._view else lambda: None
        try:
            with heard() if outcome.lines is not None else nullcontext():
                if executor is not None:
                    runner.run_on(progress, executor)
                elif threads == 1:
                    runner.run_here(progress)
                else:
                    runner.run_in_threads(progress, threads, f"flow {self.name}")
            if not progress.done():
                raise FlowCancelled("cancelled on the graph; what had ended by then is in flow.outcome", outcome)
        except BaseException:
            progress.stop()
            raise
        finally:
            outcome.finish()
            ended()
            if gate:
                gate.close()
            if log:
                log.close()
        if progress.waiting:
            raise WaitsForChildren(f"{self.name} waits for its child notebooks, and goes on when they have ended")
        failure = outcome.failure()
        if failure:
            message, error = failure
            raise NodeFailed(message, outcome) from error
        return outcome

    def to_python(self) -> str:
        """The Python that makes this flow, in the style of a notebook. Running it gives the same flow, and text, again.

        With what the functions use of the notebook: imports, other functions, constants. What has no text is refused
        if it belongs to a node, and named in a comment if a function only uses it.
        """
        return code.source(self)

    def svg(self) -> str:
        """The picture: every node with its ports and, after a run, its state."""
        return draw.picture(self.name, self.graph, self.outcome)

    def _ipython_display_(self) -> None:
        # IPython takes what is below instead, where no front-end can hold a live graph: a terminal, a worker's run.
        if self._view is None and not widget.possible():
            raise NotImplementedError
        self._view = self._view or View(self)
        self._view.display()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"image/svg+xml": self.svg(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        count = len(self._nodes)
        return f"Flow({self.name!r}): {count} node{'' if count == 1 else 's'}"

    def _add(self, made: Node) -> None:
        self._nodes[made.name] = made
        self._graph = None

    def _checked(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        for parameter, given in inputs.items():
            for name, known in self._nodes.items() if callable(given) else ():
                if known.function is given:
                    raise GraphError(
                        f"{parameter}= is the function of node {name!r}; give its name: {parameter}={name!r}"
                    )
        return inputs


def _check_options(method: str, executor: Executor | None, threads: int | None) -> None:
    if executor is not None and not hasattr(executor, "submit"):
        raise UsageError(f"{method}() was given executor={executor!r}; it must be a concurrent.futures.Executor")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UsageError(f"{method}() was given threads={threads!r}; it must be a whole number, 1 or more")
