"""A flow as Python, and the Python as a flow again."""

from __future__ import annotations

import datetime
import decimal
import functools
import json
import math
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowkit as fk
from flowkit.family import gather
from flowkit.flow import code, literal
from flowkit.model import State
from flowkit.notebooks import read
from tests.flow.written import run
from tests.notebooks_made import write


def again(flow: fk.Flow) -> fk.Flow:
    return run(flow.to_python())["flow"]


NOTEBOOK = '''
import functools
import json as j
import pandas as pd
import flowkit as fk

LIMIT = 5

class Plane:
    """A class of the notebook."""
    def __init__(self, n):
        self.n = n

def helper(x):
    return j.dumps(x) * LIMIT

flow = fk.Flow("flight delays")

@flow.node
def flights(day: str, n: int = 3) -> pd.DataFrame:
    """All flights."""
    return pd.DataFrame({"n": [n] * 2})   # a comment

@flow.node(retries=2, delay=2.0, inputs={"least": "min_delay"})
@functools.cache
def late(
    flights,
    least: int,
) -> "Plane":
    return Plane(helper(least))

def joined(parts, by="-", **more):
    return by.join([parts.n])

flow.add(joined, "with_commas", parts="late", by=fk.value(", "))
flow.add(j.dumps, obj="with_commas", retries=1)
'''

WRITTEN = '''
import flowkit as fk
import functools
import json as j
import pandas as pd
from json import dumps

flow = fk.Flow("flight delays")


@flow.node
def flights(day: str, n: int = 3) -> pd.DataFrame:
    """All flights."""
    return pd.DataFrame({"n": [n] * 2})   # a comment


class Plane:
    """A class of the notebook."""
    def __init__(self, n):
        self.n = n


LIMIT = 5


def helper(x):
    return j.dumps(x) * LIMIT


@flow.node(inputs={"least": "min_delay"}, retries=2, delay=2.0)
@functools.cache
def late(
    flights,
    least: int,
) -> "Plane":
    return Plane(helper(least))


def joined(parts, by="-", **more):
    return by.join([parts.n])


flow.add(joined, "with_commas", parts="late", by=fk.value(", "))
flow.add(dumps, obj="with_commas", retries=1)
'''


def test_a_flow_is_written_as_its_author_would_with_all_that_its_functions_use():
    flow = run(NOTEBOOK)["flow"]

    assert flow.to_python() == WRITTEN.lstrip()
    assert again(flow).to_python() == WRITTEN.lstrip()
    assert code.cells(flow)[0].endswith('flow = fk.Flow("flight delays")')
    assert len(code.cells(flow)) == 9


def test_a_cell_that_was_run_again_is_written_as_it_is_now():
    namespace = run('import flowkit as fk\nflow = fk.Flow("f")\n@flow.node\ndef one():\n    return 1\n')
    run("@flow.node(retries=1)\ndef one():\n    return 2\n", namespace)

    assert again(namespace["flow"]).run()["one"] == 2
    assert "@flow.node(retries=1)\n" in namespace["flow"].to_python()


def test_a_node_that_another_calls_is_written_once_in_its_own_place():
    namespace = run(
        """
import flowkit as fk
flow = fk.Flow("f")

@flow.node
def first():
    return second(1)

@flow.node
def second(first):
    return first + 1
"""
    )
    written = namespace["flow"].to_python()

    assert written.count("def second") == 1
    assert [wired.node.name for wired in again(namespace["flow"]).graph.nodes] == ["first", "second"]


def test_one_function_under_several_names_is_defined_once_and_two_of_one_name_both():
    namespace = run(
        """
import flowkit as fk
flow = fk.Flow("f")
def twice(x, by=2):
    return x * by
flow.add(twice, "four", x=2)
flow.node(twice)
def twice(x):
    return 2 * x
flow.add(twice, "six", x=3)
"""
    )
    copy = again(namespace["flow"])

    assert copy.to_python().count("def twice") == 2
    assert dict(copy.run(x=1)) == {"four": 4, "twice": 2, "six": 6}


def test_what_a_cell_computed_is_named_and_not_written_down():
    """It may be a secret: a notebook is shared more easily than an environment."""
    written = run(
        """
import flowkit as fk
LIMIT: int = 5
TOKEN = "hush" + "hush"
flow = fk.Flow("f")

@flow.node
def one():
    return TOKEN, LIMIT
"""
    )["flow"].to_python()

    assert "hushhush" not in written
    assert "# TOKEN is of type str: it stands elsewhere in the notebook\nflow = fk.Flow" in written
    assert "LIMIT = 5\n" in written


def test_what_a_function_uses_and_cannot_be_written_is_named():
    flow = run(
        'import flowkit as fk\ncache = object()\nflow = fk.Flow("f")\n@flow.node\ndef one():\n    return cache\n'
    )["flow"]

    assert "# cache is of type object: it stands elsewhere in the notebook\nflow = fk.Flow" in flow.to_python()


def test_names_that_are_taken_are_imported_with_their_module():
    flow = run(
        """
from datetime import datetime
import flowkit as fk
flow = fk.Flow("f")
@flow.node
def when(day):
    return datetime.fromisoformat("2013-07-01") == day
def sqrt(x):
    return -x
def sum(x):
    return -1
flow.add(sqrt, "minus", x=4)
flow.add(sum, "less", x=4)
"""
    )["flow"]
    flow.add(math.sqrt, "two", x=4)
    flow.add(sum, "seven", iterable=[3, 4], inputs={"start": 0})

    flow.add(repr, "day", obj=datetime.date(2013, 7, 1))

    copy = again(flow)

    assert copy.run()["day"] == "datetime.date(2013, 7, 1)"
    assert (copy.run()["two"], copy.run()["minus"], copy.run()["seven"], copy.run()["less"]) == (2, -4, 7, -1)


def made() -> Any:
    factor = 2

    def double(x):
        return factor * x

    return double


def wrapped() -> Any:
    def plain(x): ...

    return functools.cache(plain)


GONE = {"__name__": "__main__"}
exec("def gone(x): ...", GONE)
LOCAL = run("class Local:\n    def __init__(self, x): ...\n")["Local"]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x, "node 'n' is a lambda, which has no text of its own; write it as a def"),
        (functools.partial(json.dumps, indent=2), "node 'n' is a partial, which has no text of its own; bind its"),
        (made(), "node 'n' was made inside another function, whose factor it uses; define it in a cell of its own"),
        (wrapped(), "node 'n' is wrapped by something that is not in its text; decorate its def with it"),
        (GONE["gone"], "the source of node 'n' is gone; run the cell that defines it again"),
        (LOCAL, "node 'n' is a class of the notebook, which cannot be written; wrap it in a def, or import it"),
    ],
)
def test_what_has_no_text_is_refused_with_the_remedy(function, said):
    flow = fk.Flow("f")
    flow.add(function, "n", **{"obj" if isinstance(function, functools.partial) else "x": 1})

    with pytest.raises(fk.GraphError) as caught:
        flow.to_python()

    assert said in str(caught.value)


def test_a_constant_without_a_text_is_refused_with_the_remedy():
    flow = fk.Flow("f")
    flow.add(json.dumps, "n", obj=object())

    with pytest.raises(
        fk.GraphError, match="node 'n' is given 'obj', and a value of type object has no text that Python reads back"
    ):
        flow.to_python()


@pytest.mark.parametrize(
    "text", ["shutil.rmtree('here')", "subprocess.Popen('make')", "datetime.date.today()", "(lambda: 1)()"]
)
def test_a_repr_is_read_and_never_trusted(text, tmp_path, monkeypatch):
    class Sly:
        def __repr__(self):
            return text

    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    flow = fk.Flow("f")
    flow.add(json.dumps, "n", obj=Sly())

    with pytest.raises(fk.GraphError, match="a value of type Sly has no text"):
        flow.to_python()

    assert Path("here").exists()


def test_values_of_numpy_and_pandas_have_a_text():
    flow = fk.Flow("f")
    flow.add(repr, "one", obj=pd.Timestamp("2013-07-01", tz="UTC"))
    flow.add(repr, "two", obj=[np.float64(0.5), np.int64(3)])

    assert dict(again(flow).run()) == dict(flow.run())


def test_what_a_function_needs_to_be_defined_stands_before_it():
    namespace = run(
        """
import flowkit as fk
flow = fk.Flow("f")
def rule(x=1):
    return x
@flow.node
def first(x=rule):
    return x is rule
flow.node(rule)
"""
    )
    written = namespace["flow"].to_python()

    assert written.index("def rule") < written.index("def first") < written.index("flow.node(rule)")
    assert again(namespace["flow"]).to_python() == written


def test_constants_that_python_cannot_print_or_that_have_no_end():
    assert literal.text(10**5000, no_import) == hex(10**5000)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(literal.NoText, match="contains itself"):
        literal.text(endless, no_import)


def no_import(name: str, thing: object) -> str:
    raise AssertionError(name)


# -- any flow ----------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["'", '"', "\\", "n0", "a\nb", "'\"", "{x}"]
)
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.complex_numbers()
    | texts
    | st.binary(max_size=4)
    | st.dates()
    | st.datetimes(timezones=st.sampled_from([None, datetime.UTC, ZoneInfo("Europe/Madrid")]))
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.sampled_from([..., State.FAILED, Path("a/b"), int, Path, math.sqrt, datetime.date, range(3), slice(1, None)])
    | st.sampled_from([-0.0, float("inf"), decimal.Decimal("1E+3")])
)
hashable = st.integers() | texts | st.booleans() | st.tuples(st.integers(), texts)
constants = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
        | st.frozensets(hashable, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from(["n0", "n1", "n2", "n3", "p", "day", "min_delay", "retries", "name", "o1"])


@st.composite
def flows(draw) -> fk.Flow:
    namespace = run(f"import flowkit as fk\nflow = fk.Flow({draw(texts.filter(str.strip))!r})\n")
    flow = namespace["flow"]
    for place in range(draw(st.integers(0, 5))):
        library = draw(st.integers(0, 3)) == 0
        if library:
            function, parameters, required, extra = json.dumps, ["obj"], 1, True
        else:
            own = draw(st.sampled_from([f"n{place}", f"n{place}", "shared"]))
            parameters = draw(st.lists(names.filter(lambda name, own=own: name != own), max_size=3, unique=True))
            required = draw(st.integers(0, len(parameters)))
            default = draw(st.sampled_from(["3", "'x'", "None", "[1]"]))
            extra = draw(st.booleans())
            signature = [*parameters[:required], *(f"{name}={default}" for name in parameters[required:])]
            signature += ["**more"] if extra else []
            body = draw(st.sampled_from(["return 1", "'''Text.'''\n    return (1,\n  2)", "return [len, fk]"]))
            head = draw(st.sampled_from(["", "# a comment\n"]))
            run(f"{head}def {own}({', '.join(signature)}):\n    {body}\n", namespace)
            function = namespace[own]
        bindable = parameters + (["extra", "class", "outputs"] if extra else [])
        chosen = draw(st.lists(st.sampled_from(bindable), max_size=4, unique=True)) if bindable else []
        inputs = {name: draw(names | constants.map(fk.value)) for name in chosen}
        fed = [name for name in [*parameters, *chosen] if isinstance(inputs.get(name, ""), str)]
        options: dict[str, Any] = {
            "outputs": tuple(f"o{place}{part}" for part in range(draw(st.integers(0, 2)))),
            "retries": draw(st.integers(0, 2)),
            "delay": draw(st.sampled_from([1.0, 0.5, 0])),
            "timeout": draw(st.sampled_from([None, 3, 0.5, float("inf")])),
            "checkpoint": draw(st.booleans()),
            "cache": draw(st.sampled_from([None, "1d", 0.5])),
        }
        if not library and draw(st.booleans()):
            needed = [name for name in fed if name in parameters[:required] or name in chosen]
            options["map"] = tuple(needed[: draw(st.integers(0, 2))])
        if not library and draw(st.booleans()) and not options.get("map"):
            flow.node(inputs=inputs, **options)(function)
        else:
            name = draw(st.sampled_from([f"n{place}", None]))
            flow.add(function, name, inputs=inputs, **options)
    return flow


def told(flow: fk.Flow) -> list[Any]:
    """All that a graph is; of a value what Python writes, which also tells -0.0 from 0 and is equal for two nan."""

    def value(constant: Any) -> str:
        if isinstance(constant, set | frozenset):
            return f"{type(constant).__name__} {sorted(map(repr, constant))}"
        if isinstance(constant, list | tuple):
            return f"{type(constant).__name__} {[value(one) for one in constant]}"
        if isinstance(constant, dict):
            return str([(repr(key), value(one)) for key, one in constant.items()])
        if isinstance(constant, int) and type(constant) is int:
            return hex(constant)
        return f"{type(constant)} {constant!r}"

    return [flow.name, flow.graph.problems, flow.graph.reads] + [
        (
            node.name,
            node.function.__name__,
            [(port.name, port.source, port.bound, value(port.default)) for port in node.ports],
            {name: value(constant) for name, constant in node.constants.items()},
            (node.outputs, node.map, node.retries, node.delay, node.timeout, node.checkpoint, node.cache),
            getattr(node.function, "__code__", None) and node.function.__code__.co_code,
        )
        for node in (wired.node for wired in flow.graph.nodes)
    ]


@settings(max_examples=150, deadline=None)
@given(flow=flows())
def test_code_to_graph_to_code_is_a_fixed_point(flow):
    written = flow.to_python()
    copy = again(flow)

    assert told(copy) == told(flow)
    assert copy.to_python() == written


def test_a_notebook_as_a_node_is_written_as_it_is_found_when_its_flow_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "clean.ipynb", "fk.result('rows', day)", parameters="day: int\nname: str = 'x'")
    monkeypatch.chdir(tmp_path)
    flow = fk.Flow("year")
    flow.add(fk.notebook("clean.ipynb"), day="days", map="day", outputs=("rows",), retries=2)
    flow.add(fk.notebook("clean.ipynb"), "first", inputs={"day": 1, "name": fk.value("it's")})
    flow.add(fk.notebook(deployment="load"), "loaded")

    text = flow.to_python()

    assert text.splitlines()[-3:] == [
        'flow.add(fk.notebook("clean.ipynb"), day="days", outputs="rows", map="day", retries=2)',
        'flow.add(fk.notebook("clean.ipynb"), "first", inputs={"day": 1, "name": fk.value("it\'s")})',
        'flow.add(fk.notebook(deployment="load"), "loaded")',
    ]
    assert again(flow).to_python() == text
    family = gather(read(write(tmp_path / "year.ipynb", text)), tmp_path / "year.ipynb")
    assert family is not None
    assert list(family.tree) == ["clean.ipynb", "deployment:load"]
