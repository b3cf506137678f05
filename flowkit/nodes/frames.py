"""What a node takes as a table: a data frame of pandas, or of polars; it returns one of the same kind."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

import pandas as pd


@runtime_checkable
class Arrow(Protocol):
    """A table by Arrow's own protocol, which the frames of polars have as well."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


Frame = TypeVar("Frame", pd.DataFrame, Arrow)
