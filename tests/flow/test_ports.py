"""Which type fits which port."""

from __future__ import annotations

import collections.abc as abc
import datetime
import enum
import typing
from typing import Annotated, Any, Literal, NewType, Optional, Protocol, TypedDict, TypeVar, Union

import pandas as pd
import pytest

import flowkit as fk
from flowkit.flow.ports import accepts, describe, element

T = TypeVar("T")
Number = TypeVar("Number", int, float)
Item = TypeVar("Item", covariant=True)
UserId = NewType("UserId", int)


class Animal: ...


class Cat(Animal): ...


class Cats(list[Cat]): ...


class Box(typing.Generic[T]): ...


class IntBox(Box[int]): ...


class Source(typing.Generic[Item]): ...


class Sized(Protocol):
    size: int


class Row(TypedDict):
    day: str


class Celsius(float): ...


class Kelvin(float): ...


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


FITS = [
    (int, Any),
    (Any, int),
    (int, object),
    (Cat, Animal),
    (bool, int),
    (int, float),
    (bool, float),
    (float, complex),
    (int, int | str),
    (int, Optional[int]),  # noqa: UP045 (what people write)
    (None, int | None),
    (int | str, Union[str, int, None]),  # noqa: UP007
    (list[int], list),
    (list, list[int]),
    (list[Any], list[int]),
    (list[int], abc.Sequence[int]),
    (list[Cat], abc.Sequence[Animal]),
    (list[int], typing.Sequence[float]),
    (list[int], typing.List),  # noqa: UP006
    (Cats, abc.Sequence[Animal]),
    (Cats, list[Cat]),
    (dict[str, Cat], abc.Mapping[str, Animal]),
    (dict[str, int], abc.Iterable[str]),
    (str, abc.Sequence[str]),
    (str, abc.Iterable[str]),
    (tuple[int, str], tuple[float, object]),
    (tuple[int, int], tuple[int, ...]),
    (tuple[int, ...], tuple[int, int]),
    (tuple[int, bool], abc.Sequence[int]),
    (Literal["a"], str),
    (Literal["a"], Literal["a", "b"]),
    (bool, Literal[True, False]),
    (Colour, Literal[Colour.RED, Colour.BLUE]),
    (Literal["a"], Literal["a"] | int),
    (Annotated[int, "seconds"], int),
    (int, Annotated[int, "seconds"]),
    (int, T),
    (int, Number),
    (list[int], list[T]),
    (UserId, int),
    (UserId, UserId),
    (abc.Callable[[int], str], abc.Callable[..., Any]),
    (type[Cat], type[Animal]),
    (Cat, Sized),
    (int, typing.SupportsInt),
    (Row, abc.Mapping[str, Any]),
    (dict[str, Any], Row),
    (IntBox, Box[int]),
    (Source[Cat], Source[Animal]),
    (abc.Generator[int, None, None], abc.Iterable[int]),
    (typing.NoReturn, int),
    ("not a type", int),
]

DOES_NOT_FIT = [
    (float, int),
    (str, int),
    (Animal, Cat),
    (object, int),
    (None, int),
    (int | None, int),
    (int, str | None),
    (list[int], list[str]),
    (list[Cat], list[Animal]),
    (list[int], tuple[int, ...]),
    (list[int], abc.Sequence[str]),
    (Cats, abc.Sequence[int]),
    (dict[str, int], dict[str, str]),
    (dict[str, int], abc.Mapping[str, str]),
    (dict[str, int], abc.Iterable[int]),
    (str, list[str]),
    (str, abc.Iterable[int]),
    (tuple[int, str], tuple[int, int]),
    (tuple[int], tuple[int, int]),
    (tuple[int, str], tuple[int, ...]),
    (str, Literal["a", "b"]),
    (Literal["c"], Literal["a", "b"]),
    (Literal[1], str),
    (Annotated[str, "day"], int),
    (str, Number),
    (int, UserId),
    (int, abc.Callable[..., Any]),
    (type[Animal], type[Cat]),
    (Animal, typing.SupportsInt),
    (IntBox, Box[str]),
    (Box[Cat], Box[Animal]),
    (Source[Animal], Source[Cat]),
    (list[int], Row),
    (datetime.date, datetime.datetime),
]


@pytest.mark.parametrize(("source", "target"), FITS, ids=lambda kind: describe(kind))
def test_a_type_fits_as_a_type_checker_would_have_it(source, target):
    assert accepts(target, source)


@pytest.mark.parametrize(("source", "target"), DOES_NOT_FIT, ids=lambda kind: describe(kind))
def test_a_type_does_not_fit_where_a_type_checker_would_object(source, target):
    assert not accepts(target, source)


@pytest.mark.parametrize(
    ("kind", "items"),
    [(list[int], int), (dict[str, int], str), (str, str), (tuple[int, str], int | str), (list, Any), (Any, Any)],
)
def test_iterating_gives_items_of_a_known_type(kind, items):
    assert element(kind) == items


@pytest.fixture
def flow() -> fk.Flow:
    return fk.Flow("ports")


def test_data_frames_are_types_like_any_other(flow):
    @flow.node
    def flights() -> pd.DataFrame:
        return pd.DataFrame({"delay": [5, 20]})

    @flow.node
    def late(flights: pd.DataFrame, min_delay: int = 15) -> pd.DataFrame:
        return flights[flights.delay >= min_delay]

    @flow.node
    def count(late: pd.DataFrame | None) -> int:
        return len(late)

    assert flow.run()["count"] == 1

    @flow.node
    def count(late: int) -> int: ...

    with pytest.raises(fk.GraphError, match="node 'count' takes 'late' as int, but node 'late' returns DataFrame"):
        flow.check()


def test_a_mismatch_names_both_nodes_both_types_and_the_remedy(flow):
    @flow.node
    def flights() -> datetime.date: ...

    @flow.node
    def late(flights: int): ...

    with pytest.raises(fk.GraphError) as caught:
        flow.check()

    assert str(caught.value) == (
        "node 'late' takes 'flights' as int, but node 'flights' returns date; change one of the annotations, or tell "
        "fk.convert() how to make one of the other"
    )


def test_the_outputs_of_a_tuple_have_its_types(flow):
    @flow.node(outputs=("count", "note"))
    def both() -> tuple[int, str]: ...

    @flow.node
    def report(note: int): ...

    with pytest.raises(fk.GraphError, match="but output 'note' of node 'both' returns str"):
        flow.check()


def test_a_list_into_a_list_of_more_is_told_what_to_take_instead(flow):
    @flow.node
    def numbers() -> list[int]: ...

    @flow.node
    def mean(numbers: list[float]): ...

    with pytest.raises(fk.GraphError, match=r"a list may be written into; take Sequence\[float\]"):
        flow.check()


def test_an_item_of_what_is_mapped_must_fit_and_a_list_of_results_comes_out(flow):
    @flow.node
    def carriers() -> list[str]:
        return ["AA"]

    @flow.node(map="carriers")
    def length(carriers: str) -> int:
        return len(carriers)

    @flow.node
    def total(length: list[int]) -> int:
        return sum(length)

    assert flow.run()["total"] == 2

    @flow.node(map="carriers")
    def length(carriers: int) -> int: ...

    with pytest.raises(fk.GraphError, match="node 'length' takes 'carriers' as int, but node 'carriers' returns items"):
        flow.check()


def test_what_is_no_list_cannot_be_mapped_over(flow):
    @flow.node
    def carriers() -> int: ...

    @flow.node(map="carriers")
    def length(carriers): ...

    with pytest.raises(
        fk.GraphError, match="maps over 'carriers', but node 'carriers' returns int, which is not a list"
    ):
        flow.check()


def test_an_annotation_that_cannot_be_read_here_fits_all(flow):
    @flow.node
    def frame() -> pandas.DataFrame: ...  # noqa: F821 (imported for type checkers only, say)

    @flow.node
    def report(frame: int): ...

    flow.check()


def test_a_conversion_is_applied_to_what_flows_through(flow):
    @flow.node
    def outside() -> Celsius:
        return Celsius(20)

    @flow.node
    def report(outside: Kelvin):
        return outside

    assert not flow.compatible(Celsius, Kelvin)
    with pytest.raises(fk.GraphError):
        flow.check()

    fk.convert(Celsius, Kelvin, lambda at: Kelvin(at + 273))

    assert flow.run()["report"] == 293
    assert isinstance(flow.outcome["report"], Kelvin)
    assert "is converted" in str(flow.compatible("outside", "report.outside"))


def test_compatible_says_that_what_is_no_list_cannot_be_mapped_over(flow):
    @flow.node
    def items() -> int:
        return 3

    @flow.node(map="items")
    def per(items: int) -> int:
        return items

    assert not flow.compatible("items", "per.items")
    assert str(flow.compatible("items", "per.items")) == "int is not a list, over which 'per.items' maps"


def test_compatible_answers_why_for_types_and_for_ports(flow):
    @flow.node
    def flights() -> str: ...

    @flow.node
    def late(flights: str, top: int): ...

    assert flow.compatible(int, float)
    assert str(flow.compatible(int | None, int)) == "int | None does not fit int: None would not"
    assert flow.compatible("flights", "late.flights")
    assert str(flow.compatible("flights", "late.top")) == "str does not fit int"
    with pytest.raises(fk.GraphError, match=r"no port is called 'late.tpo'; name one of late.flights, late.top"):
        flow.compatible("flights", "late.tpo")
