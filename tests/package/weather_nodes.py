"""What the weather does to a table: two nodes of a package that knows nothing of flowkit."""

from typing import Literal

import pandas as pd

__all__ = ["celsius", "feels_like"]


def celsius(weather: pd.DataFrame, column: str = "temp", digits: int = 1) -> pd.DataFrame:
    """Read a column of degrees Fahrenheit as degrees Celsius."""
    return weather.assign(**{column: ((weather[column] - 32) / 1.8).round(digits)})


def feels_like(weather: pd.DataFrame, by: Literal["wind", "humidity"] = "wind") -> pd.DataFrame:
    """Add the column feels: the temperature in Celsius less what wind, or more what humidity makes of it."""
    change = -0.2 * weather["wind"] if by == "wind" else 0.05 * weather["humidity"]
    return weather.assign(feels=weather["temp"] + change)
