"""A notebook file as flowkit reads it: its snapshot, its parameters, and the values they take."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from datetime import date, datetime
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.errors import NotebookError, ParameterError
from flowkit.notebooks import Notebook, parse, read
from flowkit.parameters import Parameter

unhurried = settings(deadline=None)  # a busy machine is no failure


def content(*cells: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": list(cells)}


def code(source: str | list[str], *tags: str, **more: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"tags": list(tags)} if tags else {}
    return {
        "cell_type": "code",
        "id": "a",
        "source": source,
        "metadata": metadata,
        "outputs": [],
        "execution_count": None,
    } | more


def with_parameters(source: str, name: str = "x.ipynb") -> Notebook:
    return parse(json.dumps(content(code(source, "parameters"))), name)


def only(source: str) -> Parameter:
    found = with_parameters(source).parameters
    assert found is not None
    assert len(found) == 1, found
    return found[0]


def refusal(function: Any, *arguments: Any) -> str:
    with pytest.raises((NotebookError, ParameterError)) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# The file


def write(folder: Path, data: Any, name: str = "x.ipynb") -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


def test_a_file_is_read_under_its_name_and_absolute_path(tmp_path, monkeypatch):
    write(tmp_path, content(code("1"), kernelspec={"name": "ir", "display_name": "R", "language": "R"}))
    monkeypatch.chdir(tmp_path)
    found = read("x.ipynb")
    assert (found.name, found.path) == ("x.ipynb", tmp_path / "x.ipynb")
    assert (found.kernel, found.language) == ("ir", "r")


def test_a_notebook_that_names_no_kernel_is_python_with_the_default_kernel():
    found = parse(json.dumps(content(code("1"))))
    assert (found.kernel, found.language, found.parameters) == (None, "python", None)


def test_a_byte_order_mark_is_no_obstacle(tmp_path):
    assert read(write(tmp_path, b"\xef\xbb\xbf" + json.dumps(content()).encode())).text


def test_a_missing_notebook_is_named_with_its_nearest_neighbour(tmp_path):
    write(tmp_path, content(), "flights.ipynb")
    wanted = tmp_path / "fligths.ipynb"
    assert refusal(read, wanted) == f"no notebook at '{wanted}'; did you mean 'flights.ipynb'?"


@pytest.mark.parametrize("name", ["-", "", '{"nbformat": 4, "cells": []}', "no\0where", "x" * 5000, "no/such/folder"])
def test_only_the_name_of_a_local_file_is_a_notebook(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(read, name)
    assert message.startswith(("no notebook at ", "cannot read ", "'' is a folder"))
    assert len(message) < 200


@pytest.mark.parametrize("url", ["https://example.org/x.ipynb", "s3://bucket/x.ipynb", "file:///etc/x.ipynb"])
def test_a_url_is_not_fetched(url):
    assert refusal(read, url) == f"no notebook at '{url}'; it must be a file on this machine, not a URL"


def test_a_folder_is_refused_with_what_is_in_it(tmp_path):
    write(tmp_path, content(), "b.ipynb")
    write(tmp_path, content(), "a.ipynb")
    assert refusal(read, tmp_path) == f"'{tmp_path}' is a folder; name a notebook in it: a.ipynb, b.ipynb"


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    path = write(tmp_path, content())
    if os.geteuid() == 0:  # root may read everything but its own memory at address 0
        path = Path("/proc/self/mem")
    path.chmod(0o000) if path.parent == tmp_path else None
    assert refusal(read, path).startswith(f"cannot read '{path}': ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe\x00", "is not UTF-8 text (byte 0); is it a notebook?"),
        (b'{"nbformat": 4,\n "cells": [}', "x.ipynb is not valid JSON: Expecting value in line 2, column 12"),
        (b"[" * 200_000, "x.ipynb cannot be read as JSON: "),
        (b"[]", "x.ipynb is JSON, but not a notebook: it has no 'nbformat'"),
        (b'{"cells": []}', "x.ipynb is JSON, but not a notebook: it has no 'nbformat'"),
        ({"nbformat": 4}, "x.ipynb is not a notebook: it has no list of cells"),
        (
            {"nbformat": 3, "worksheets": []},
            "x.ipynb has notebook format 3, and flowkit runs format 4; "
            "convert it: jupyter nbconvert --to notebook --nbformat 4 --inplace x.ipynb",
        ),
        (content({"cell_type": "chart"}), "its cell 1 has no cell_type code, markdown or raw"),
        (content(code("1"), "text"), "its cell 2 has no cell_type"),
        (content(code([1, 2])), "the source of its cell 1 is not text"),
        (content(code("\ud800")), "x.ipynb has half of a surrogate pair in it"),
        (content(*[code("1")] * 2001), "x.ipynb has 2,001 cells, and 2,000 is the limit; split it"),
        (content(code("x" * 10_000_001)), "x.ipynb has 10.0 MB of source without its outputs, and 10 MB is the limit"),
    ],
)
def test_a_file_that_is_no_notebook_is_refused_in_one_line(tmp_path, data, message):
    assert message in refusal(read, write(tmp_path, data))


def test_large_outputs_do_not_count():
    shown = {"output_type": "stream", "name": "stdout", "text": "x" * 11_000_000}
    assert len(parse(json.dumps(content(code("1", outputs=[shown])))).text) < 1000


# The snapshot


def test_running_and_saving_changes_nothing():
    before = content(code("1 + 1"), kernelspec={"name": "python3", "display_name": "Python 3"})
    after = content(
        code(
            ["1 + ", "1"],
            execution_count=7,
            outputs=[{"output_type": "execute_result", "data": {"text/plain": "2"}, "metadata": {}}],
            metadata={
                "execution": {"iopub.execute_input": "2026-01-01T00:00:00Z"},
                "ExecuteTime": {"start_time": "…"},
                "papermill": {"duration": 1.0},
                "scrolled": True,
                "collapsed": False,
            },
        ),
        kernelspec={"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
        language_info={"name": "python", "version": "3.13.1", "codemirror_mode": {"name": "ipython"}},
        widgets={"application/vnd.jupyter.widget-state+json": {"state": {}}},
        papermill={"parameters": {"a": 1}, "version": "2.7"},
    )
    assert parse(json.dumps(after, indent=1)).digest == parse(json.dumps(before)).digest


def test_jupyter_itself_running_and_saving_a_notebook_changes_nothing(tmp_path):
    """The real thing: a kernel runs it, nbclient and nbformat write what Jupyter writes."""
    path = write(tmp_path, content(code("1 + 1"), kernelspec={"name": "python3", "display_name": "Python 3"}))
    before = read(path)
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", path.name]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert '"text/plain"' in path.read_text()
    assert read(path).digest == before.digest


@pytest.mark.parametrize(
    "edit",
    [
        lambda nb: nb["cells"][0].update(source="2"),
        lambda nb: nb["cells"][0].update(id="b"),
        lambda nb: nb["cells"][0].update(cell_type="raw"),
        lambda nb: nb["cells"][0]["metadata"].update(tags=["parameters"]),
        lambda nb: nb["metadata"].update(kernelspec={"name": "other", "display_name": ""}),
        lambda nb: nb["cells"].append(code("", id="b")),
    ],
)
def test_an_edit_changes_the_digest(edit):
    before = content(code("1"), kernelspec={"name": "python3", "display_name": ""})
    after = copy.deepcopy(before)
    edit(after)
    assert parse(json.dumps(after)).digest != parse(json.dumps(before)).digest


def test_missing_and_doubled_cell_ids_are_filled_the_same_way_every_time():
    cells = [
        code("1", id="cell-2"),
        code("2", id=None),
        code("3", id="cell-2"),
        code("4", id="?"),
        code("5", id="cell-2-"),
    ]
    text = json.dumps(content(*cells))
    ids = [cell["id"] for cell in json.loads(parse(text).text)["cells"]]
    assert ids == ["cell-2", "cell-2--", "cell-3", "cell-4", "cell-2-"]
    assert parse(text) == parse(text)


def test_a_format_without_cell_ids_keeps_none():
    found = json.loads(parse(json.dumps(content(code("1")) | {"nbformat_minor": 4})).text)
    assert found["nbformat_minor"] == 4
    assert "id" not in found["cells"][0]


# Keys of their own: the format gives a meaning to some ("name" is a str), and nbformat warns of others only.
any_metadata = st.dictionaries(
    st.text(max_size=8).map("x-{}".format), st.none() | st.integers() | st.text(max_size=8), max_size=3
)
any_cell = st.fixed_dictionaries(
    {
        "cell_type": st.sampled_from(["code", "markdown", "raw"]),
        "source": st.text(max_size=20) | st.lists(st.text(max_size=10), max_size=3),
    },
    optional={"metadata": any_metadata, "id": st.none() | st.sampled_from(["a", "b", "cell-1", "?"])},
)


@unhurried
@given(st.lists(any_cell, max_size=5), any_metadata, st.integers(0, 6))
def test_a_snapshot_reads_as_itself_and_as_a_valid_notebook(cells, metadata, minor):
    found = parse(json.dumps(content(*cells, **metadata) | {"nbformat_minor": minor}))
    assert parse(found.text) == found
    if minor <= 5:
        nbformat.validate(json.loads(found.text))


@unhurried
@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda x: st.lists(x) | any_metadata)
)
def test_any_json_is_a_notebook_or_refused_in_one_line(data):
    for wrapped in (data, {"nbformat": 4, "cells": data}, content() | {"metadata": data}, content(code("1", id=data))):
        try:
            message = parse(json.dumps(wrapped)).name
        except NotebookError as error:
            message = str(error)
        assert "\n" not in message


# What the parameters cell declares


@pytest.mark.parametrize(
    ("source", "parameter"),
    [
        ("x = 1", Parameter("x", None, "1", 1)),
        ("x: int = 1  # how many", Parameter("x", "int", "1", 1, "how many")),
        ("x: str", Parameter("x", "str")),
        ("x = -1.5", Parameter("x", None, "-1.5", -1.5)),
        ("# not about x\n\nx = 'a'  # about # x", Parameter("x", None, "'a'", "a", "about # x")),
        ("x = '#no comment'", Parameter("x", None, "'#no comment'", "#no comment")),
        ("x = [\n  1,  # one\n  2,\n]  # both", Parameter("x", None, "[\n  1,  # one\n  2,\n]", [1, 2], "both")),
        ("x = {  # sizes\n  'a': 1}", Parameter("x", None, "{  # sizes\n  'a': 1}", {"a": 1}, "sizes")),
        ("x = None", Parameter("x", None, "None", None)),
        ("from datetime import date\nx = date.today()", Parameter("x", None, "date.today()", ...)),
        ("x: int  # size\nx = 5", Parameter("x", "int", "5", 5, "size")),
        ("x = 1\nx = 2", Parameter("x", None, "2", 2)),
        ('x: "int  |  None" = None', Parameter("x", "int | None", "None", None)),
        ("x = 1;", Parameter("x", None, "1", 1)),
        # where papermill's own pattern fails or lies
        ('x = "a=b"', Parameter("x", None, '"a=b"', "a=b")),
        ("x: None | str = None", Parameter("x", "None | str", "None", None)),
        ("x: dict[str, list[int]] = {}", Parameter("x", "dict[str, list[int]]", "{}", {})),
        ("x: Literal['a=b', 'c'] = 'c'", Parameter("x", "Literal['a=b', 'c']", "'c'", "c")),
        ("x: typing.Optional[int] = None", Parameter("x", "typing.Optional[int]", "None", None)),
        ("x = '''a\ny = 1\n'''", Parameter("x", None, "'''a\ny = 1\n'''", "a\ny = 1\n")),
        ("x = 1 if 2 == 2 else 3", Parameter("x", None, "1 if 2 == 2 else 3", ...)),
        ("größe = 'Maß'  # in m", Parameter("größe", None, "'Maß'", "Maß", "in m")),
    ],
)
def test_a_parameter_is_read_as_python_reads_it(source, parameter):
    assert only(source) == parameter


def test_several_names_of_one_value_are_several_parameters():
    found = with_parameters("a = b = 1  # both\nc: int = 2").parameters
    assert found == (
        Parameter("a", None, "1", 1, "both"),
        Parameter("b", None, "1", 1, "both"),
        Parameter("c", "int", "2", 2),
    )


def test_what_is_no_plain_assignment_at_the_top_level_is_no_parameter():
    source = "a, b = 1, 2\nc.d = 1\ne[0] = 1\nf += 1\n__all__ = []\nif True:\n    g = 1\ndef h():\n    i = 1\nprint(1)"
    assert with_parameters(source).parameters == ()


def test_only_the_first_code_cell_with_the_tag_declares():
    cells = [
        {"cell_type": "markdown", "source": "a = 1", "metadata": {"tags": ["parameters"]}},
        code("b = 1", "other", "parameters"),
        code("c = 1", "parameters"),
    ]
    found = parse(json.dumps(content(*cells))).parameters
    assert found is not None
    assert [parameter.name for parameter in found] == ["b"]


def test_ipython_lines_in_the_cell_are_passed_over():
    source = "%matplotlib inline\nx = 1\n!ls {x}\nfiles = !ls\nif x:\n    %time x\nx?\ny = '''\n%kept\n'''"
    found = with_parameters(source).parameters
    assert found is not None
    assert [(parameter.name, parameter.value) for parameter in found] == [("x", 1), ("y", "\n%kept\n")]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ny = (", "the parameters cell of x.ipynb is not Python: '(' was never closed in its line 2: 'y = ('"),
        ("x = 1\n  y = 2", "unexpected indent in its line 2: 'y = 2'"),
        ("%%bash\nls -l | grep $x", "in its line 2: 'ls -l | grep $x'"),
        ("%a\n" * 101, "has more than 100 IPython lines"),
        ("x = \0", "the parameters cell of x.ipynb "),
        ("x = " + "-" * 100_000 + "1", "the parameters cell of x.ipynb "),
    ],
)
def test_a_cell_that_is_not_python_is_refused_with_its_line(source, message):
    assert message in refusal(with_parameters, source)


# Which names


FLIGHTS = "day: str = '2013-07-01'\nmin_delay: int = 15"


def test_an_unknown_name_is_refused_with_the_nearest():
    flights = with_parameters(FLIGHTS, "flight_delays.ipynb")
    expected = "flight_delays.ipynb has no parameter 'dya'; did you mean 'day'? It takes day, min_delay"
    assert refusal(flights.check, {"dya": "2013-07-02"}) == expected
    assert refusal(flights.from_text, {"dya": "2013-07-02"}) == expected
    assert refusal(flights.check, {"zzz": 1}) == "flight_delays.ipynb has no parameter 'zzz'; it takes day, min_delay"


def test_a_parameters_cell_that_assigns_nothing_takes_nothing():
    message = refusal(with_parameters("# nothing yet").check, {"day": 1})
    assert message == "x.ipynb has no parameter 'day'; its parameters cell assigns none"


def test_a_notebook_without_a_parameters_cell_takes_no_values():
    plain = parse(json.dumps(content(code("day = 1"))), "flight_delays.ipynb")
    assert plain.check({}) == {}
    assert refusal(plain.check, {"day": 1}) == (
        "flight_delays.ipynb has no cell tagged 'parameters', but a value is given for 'day'; "
        "tag the cell that assigns the defaults"
    )


def test_a_parameter_without_a_default_needs_a_value():
    notebook = with_parameters("day: str\nscheduled_for: datetime")
    assert refusal(notebook.check, {}) == "x.ipynb needs a value for 'day': its parameters cell gives none"
    assert notebook.check({"day": "x"}) == {"day": "x"}
    assert notebook.from_text({}) == {}  # need not be all there are


def test_code_in_a_name_never_passes():
    for name in ("x\nimport os", "x;y", "class", "__class__", "", "a.b", 5):
        refusal(with_parameters(FLIGHTS).check, {name: 1})
    r = content(code("x <- 1", "parameters"), kernelspec={"name": "ir", "display_name": "R", "language": "R"})
    in_r = parse(json.dumps(r))
    assert in_r.check({"x": 1, "anything": [1]}) == {"x": 1, "anything": [1]}
    for name in ("x\nsystem('ls')", "x;y", "class", "__class__", "", "a.b"):
        assert "cannot be the name of a parameter" in refusal(in_r.check, {name: 1})


# Which values


class Color(IntEnum):
    RED = 1


class Evil(str):
    def __repr__(self) -> str:
        return "__import__('os').system('ls')"


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


ANYTHING = "x = None"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((1, 2), "cannot be given a tuple; give a list"),
        ({1}, "cannot be given a set; give a list"),
        (b"a", "cannot be given a bytes; give its .decode()"),
        (date(2013, 7, 1), "cannot be given a datetime.date; give its .isoformat()"),
        (datetime(2013, 7, 1), "cannot be given a datetime.datetime; give its .isoformat()"),
        (Decimal(1), "cannot be given a decimal.Decimal; give None, bool, int, float, str, list or dict"),
        (Color.RED, f"cannot be given a {__name__}.Color; give None,"),
        ([{"a": Evil("x")}], f"cannot be given a {__name__}.Evil; give None,"),
        ({1: 2}, "has a dict with the key 1; keys must be str"),
        ({Evil("x"): 2}, "keys must be str"),
        ({"\udc00": 1}, "has half of a surrogate pair, which is no text; give valid Unicode"),
        ("a\ud800", "has half of a surrogate pair, which is no text; give valid Unicode"),
        ([10**4300], "is an int of more than 4,200 digits; give it as a str"),
        (nested(21), "is nested deeper than 20 levels; put such data into a file and give its path"),
    ],
)
def test_what_json_cannot_hold_exactly_is_refused_with_a_remedy(value, message):
    refused = refusal(with_parameters(ANYTHING).check, {"x": value})
    assert refused.startswith("parameter 'x' ")
    assert message in refused


def test_numpy_values_are_refused_with_a_remedy():
    import numpy

    for value in (numpy.float64(1), numpy.int64(1), numpy.arange(3)):
        assert refusal(with_parameters(ANYTHING).check, {"x": value}).endswith("; give its .tolist()")


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aé\"'\n\\", max_size=3), inner, max_size=3),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Equal, of the same types, and nan is nan."""
    return repr(one) == repr(other)


@unhurried
@given(plain_values)
def test_every_plain_value_passes_unchanged_where_no_type_is_declared(value):
    assert same(with_parameters(ANYTHING).check({"x": value}), {"x": value})


@unhurried
@given(plain_values)
def test_a_value_written_as_the_default_declares_a_type_that_takes_it(value):
    if any(word in repr(value) for word in ("nan", "inf")):
        return  # no literals
    parameter = only(f"x = {value!r}")
    assert same(parameter.value, value)
    assert same(parameter.check(value), value)


@pytest.mark.parametrize(
    ("source", "good", "bad"),
    [
        # by annotation
        ("x: int", [1, -1, 10**30], [1.0, True, "1", None, [1]]),
        ("x: float", [1.5, 1, math.inf], [True, "1", None]),
        ("x: str", ["", "a"], [1, None, ["a"]]),
        ("x: bool", [True, False], [0, 1, "true", None]),
        ("x: None", [None], [0, ""]),
        ("x: list", [[], [1, "a"]], [{}, "[]", None]),
        ("x: list[int]", [[], [1]], [["a"], [1.5], [True], 1]),
        ("x: List[float]", [[1, 2.5]], [["a"]]),
        ("x: Sequence[str]", [["a"]], ["a", [1]]),
        ("x: dict", [{}, {"a": 1}], [[], None]),
        ("x: dict[str, list[int]]", [{"a": [1]}], [{"a": 1}, {"a": ["b"]}]),
        ("x: Mapping[str, float]", [{"a": 1}], [{"a": "b"}]),
        ("x: int | None", [1, None], ["1", 1.5]),
        ("x: Optional[int]", [1, None], ["1"]),
        ("x: typing.Union[int, str]", [1, "a"], [None, 1.5]),
        ("x: 'int | None'", [1, None], ["1"]),
        ("x: list['int']", [[1]], [["a"]]),
        ("x: Literal['a', 1]", ["a", 1], ["b", True, 1.0]),
        ("x: Literal['a'] | None", ["a", None], ["b"]),
        ("x: Annotated[int, 'years']", [1], ["a"]),
        ("x: date", ["2013-07-01"], ["today", "2013-07-01T00:00", 1]),
        ("x: datetime.datetime", ["2013-07-01T06:00:00-04:00", "2013-07-01"], ["today", 1]),
        ("x: Any", [1, None, "a"], []),
        ("x: Path", ["a", 1], []),
        ("x: 3 + 4", [1, "a"], []),
        # by the default
        ("x = 1", [2], [2.5, True, "2", None]),
        ("x = 1.0", [2, 2.5], ["2", True, None]),
        ("x = 'a'", ["b"], [1, None]),
        ("x = False", [True], [1, "true"]),
        ("x = [1]", [[], ["a"]], [{}, "a"]),
        ("x = {}", [{"a": 1}], [[]]),
        ("x = None", [None, 1, "a", [1]], []),
        ("x = (1, 2)", [[1, 2]], []),
        ("x = 5 * 60", [1, "a"], []),
        # an annotation wins over the default
        ("x: float = 1", [1.5], ["a"]),
        ("x: Any = 1", ["a"], []),
        # flowkit's own
        ("scheduled_for = None", [None, "2013-07-01T06:00:00Z"], ["today", 5]),
        ("scheduled_for: datetime = None", ["2013-07-01"], ["today"]),
    ],
)
def test_a_value_must_fit_the_declared_type(source, good, bad):
    notebook, name = with_parameters(source), only(source).name
    for value in good:
        assert same(notebook.check({name: value}), {name: value})
    for value in bad:
        takes = f"parameter {name!r} takes {only(source).type}, not {value!r}"
        assert refusal(notebook.check, {name: value}).startswith(takes)


def test_a_mismatch_says_what_is_taken():
    flights = with_parameters("min_delay = 15\nday: date = None")
    assert refusal(flights.check, {"min_delay": "abc"}) == "parameter 'min_delay' takes int, not 'abc'"
    assert refusal(flights.from_text, {"min_delay": "abc"}) == "parameter 'min_delay' takes int, not 'abc'"
    assert refusal(flights.check, {"day": "today"}) == (
        "parameter 'day' takes date, not 'today'; write a time as ISO 8601 text, such as '2013-07-01'"
    )


def test_a_long_value_is_not_repeated_in_full():
    assert len(refusal(with_parameters("x = 1").check, {"x": "long\n" * 10_000})) < 120


# Texts of the command line


@pytest.mark.parametrize(
    ("source", "text", "value"),
    [
        ("x = 'a'", "5", "5"),
        ("x: str", "null", "null"),
        ("x: str", ' "q" \n', ' "q" \n'),
        ("x: str", "", ""),
        ("x = 1", "5", 5),
        ("x = 1", "-5", -5),
        ("x = 1.5", "5", 5.0),
        ("x: float", "1e3", 1000.0),
        ("x: float", "nan", math.nan),
        ("x: float", "-inf", -math.inf),
        ("x = True", "false", False),
        ("x = True", "No", False),
        ("x = True", "1", True),
        ("x: bool | None", "yes", True),
        ("x: int | None", "null", None),
        ("x: Optional[int]", "None", None),
        ("x: int | None", "7", 7),
        ("x: None | str", "None", None),
        ("x: None | str", "a", "a"),
        ("x: str | int", "7", 7),
        ("x: str | int", "a7", "a7"),
        ("x: float | int", "7", 7),
        ("x: float | int", "7.5", 7.5),
        ("x = []", '["a", null]', ["a", None]),
        ("x = []", "['a', None]", ["a", None]),
        ("x: list[float]", "[1, 2.5]", [1, 2.5]),
        ("x = {}", '{"a": {"b": [true]}}', {"a": {"b": [True]}}),
        ("x: Literal['a', 1, None]", "a", "a"),
        ("x: Literal['a', 1, None]", "1", 1),
        ("x: Literal['a', 1, None]", "None", None),
        ("x: datetime", "2013-07-01T06:00", "2013-07-01T06:00"),
        ("x: date | None", "null", None),
        ("scheduled_for = None", "2013-07-01", "2013-07-01"),
        # nothing declared: JSON if it is JSON
        ("x = None", "5", 5),
        ("x = None", "abc", "abc"),
        ("x = None", "2013-07-01", "2013-07-01"),
        ("x = None", '{"a": 1}', {"a": 1}),
        ("x = None", '"5"', "5"),
        ("x = None", "True", True),
        ("x = None", "None", None),
        ("x = 5 * 60", "300", 300),
    ],
)
def test_a_text_is_read_by_the_declared_type(source, text, value):
    name = only(source).name
    assert same(with_parameters(source).from_text({name: text}), {name: value})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = 1", "1.0"),
        ("x = 1", "true"),
        ("x = 1", ""),
        ("x: float", "many"),
        ("x = True", "2"),
        ("x: int | None", "abc"),
        ("x = []", "{}"),
        ("x = []", "(1, 2)"),
        ("x = []", "[1"),
        ("x = []", "__import__('os')"),
        ("x: list[int]", '["a"]'),
        ("x: dict", "[" * 100_000),
        ("x: Literal['a', 1]", "b"),
        ("x: date", "yesterday"),
        ("x: int", "9" * 5000),
    ],
)
def test_a_text_that_does_not_fit_is_refused(source, text):
    assert refusal(with_parameters(source).from_text, {"x": text}).startswith(
        f"parameter 'x' takes {only(source).type}"
    )


@unhurried
@given(plain_values)
def test_a_value_written_as_json_comes_back_from_its_text(value):
    text = json.dumps(value)
    assert same(with_parameters(ANYTHING).from_text({"x": text}), {"x": value})
    if isinstance(value, list | dict | float):
        assert same(with_parameters(f"x: {type(value).__name__}").from_text({"x": text}), {"x": value})


@unhurried
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_str_parameter_takes_every_text_as_it_is(text):
    assert with_parameters("x: str").from_text({"x": text}) == {"x": text}
