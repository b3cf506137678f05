"""What the editor in the browser asks about its draft, answered as plain data; see ``draft`` and ``palette``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowkit.errors import FlowkitError
from flowkit.flow.draft import Draft
from flowkit.flow.palette import Palette

if TYPE_CHECKING:
    from flowkit.flow.flow import Flow


def offered(flow: Flow) -> dict[str, Any]:
    """What there is to build of, and the draft of the flow as it is now."""
    palette = Palette(flow)
    return {
        "catalog": palette.catalog(),
        "made": palette.made(),
        "fits": palette.fits(),
        "draft": dict(Draft.of(flow).document),
    }


def judged(flow: Flow, document: Any) -> list[dict[str, Any]]:
    """What is wrong with a draft, and where; what is still open, if nothing is."""
    try:
        return Draft.read(document).problems(Palette(flow))
    except FlowkitError as error:
        return [{"node": None, "port": None, "text": str(error), "open": False}]


def written(flow: Flow, document: Any) -> dict[str, str]:
    """The ``code`` of a draft, or the ``problem`` for which there is none."""
    try:
        palette = Palette(flow)
        draft = Draft.read(document)
        wrong = [one for one in draft.problems(palette) if not one["open"]]
        if wrong:
            return {"problem": wrong[0]["text"]}
        return {"code": draft.code(palette)}
    except FlowkitError as error:
        return {"problem": str(error)}
