"""Edits of a small notebook, as data: which of them must make its node run again, and which must not.

Used by the test of our keys, and by ``python -m tests.bench.edits``, which asks other caches the same.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A local module beside the notebook.
MODULE = """
RATE = 3

def scaled(x):
    return step(x) * RATE

def step(x):
    return x + 1

def far(x):
    return x - 1

def unrelated(x):
    return x
"""

#: The cells of the notebook. The last defines the node, whose name is ``node``.
CELLS = (
    """
import functools
import local_module
from local_module import scaled
OFFSET = 10
SPARE = 1
TABLE = [1, 2, 3]
""",
    """
def twice(x, times=2):
    return inner(x) * times

def inner(x):
    return x + 1

def spare(x):
    return x
""",
    """
shift = lambda x: x + 100

class Model:
    def fit(self, x):
        return x * 5

class Scale:
    def __init__(self, by):
        self.by = by

    def times(self, x):
        return x * self.by

scale = Scale(3).times

def maker(size):
    def made(x):
        return x + size
    return made

enlarged = maker(7)
half = functools.partial(twice, times=4)

def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs) + 0
    return wrapper
""",
    '''
@logged
def node(x: int, extra: int = 1) -> int:
    """Adds up."""
    note()
    try:
        found = int(x)
    except ValueError:
        found = 0
    import local_module as late
    return (found + twice(x) + OFFSET + scaled(x) + local_module.RATE + shift(x) + Model().fit(x) + enlarged(x)
            + half(x) + scale(x) + local_module.far(x) + sum(TABLE) + extra + late.step(x) * 1)
''',
)


@dataclass(frozen=True)
class Edit:
    name: str
    old: str
    new: str
    again: bool  #: whether the node must run again
    order: tuple[int, ...] = (0, 1, 2, 3)  #: of the cells, afterwards


EDITS = (
    Edit("a helper in another cell", "return inner(x) * times", "return inner(x) * times + 1", True),
    Edit("what the helper calls", "def inner(x):\n    return x + 1", "def inner(x):\n    return x + 2", True),
    Edit("a default of the helper", "times=2", "times=3", True),
    Edit("a global constant", "OFFSET = 10", "OFFSET = 11", True),
    Edit("a global constant of another type", "OFFSET = 10", "OFFSET = 10.0", True),
    Edit("an item of a global list", "TABLE = [1, 2, 3]", "TABLE = [1, 2, 4]", True),
    Edit("a default of the node", "extra: int = 1", "extra: int = 2", True),
    Edit("a closure", "enlarged = maker(7)", "enlarged = maker(8)", True),
    Edit("a function that a closure was made by", "return x + size", "return x - size", True),
    Edit("a lambda", "x + 100", "x + 101", True),
    Edit("a method of a class", "return x * 5", "return x * 6", True),
    Edit("the object of a bound method", "Scale(3)", "Scale(4)", True),
    Edit("what a partial has bound", "times=4", "times=5", True),
    Edit("the node's decorator", "**kwargs) + 0", "**kwargs) + 1", True),
    Edit("the node's own code", "+ extra", "- extra", True),
    Edit("a constant in the node", "late.step(x) * 1", "late.step(x) * 2", True),
    Edit("1 becomes True", "late.step(x) * 1", "late.step(x) * True", True),
    Edit("what try covers", "try:\n        found = int(x)\n", "found = int(x)\n    try:\n        pass\n", True),
    Edit("an imported local function", "return step(x) * RATE", "return step(x) * RATE + 1", True),
    Edit("what a local module calls", "def step(x):\n    return x + 1", "def step(x):\n    return x + 2", True),
    Edit("a constant of a local module", "RATE = 3", "RATE = 4", True),
    Edit("a comment", "    note()", "    note()  # here\n    # and here", False),
    Edit("blank lines and brackets", "found = int(x)", "found = (\n            int( x )\n        )", False),
    Edit("the node's docstring", '"""Adds up."""', '"""Adds everything up."""', False),
    Edit("no docstring at all", '    """Adds up."""\n', "", False),
    Edit("a comment in a helper", "return inner(x) * times", "return inner(x) * times  # doubled", False),
    Edit("a function nobody calls", "def spare(x):\n    return x", "def spare(x):\n    return -x", False),
    Edit("a constant nobody reads", "SPARE = 1", "SPARE = 2", False),
    Edit("the order of the cells", "", "", False, order=(0, 2, 1, 3)),
    Edit("nothing: the cells run again", "", "", False),
)

#: Needs a node that uses of the module only what it names: see ``late`` above.
EDITS_WITHOUT_LATE = (
    Edit("a function used by its module", "def far(x):\n    return x - 1", "def far(x):\n    return x - 2", True),
    Edit("a local function nobody calls", "def unrelated(x):\n    return x", "def unrelated(x):\n    return -x", False),
)


def sources(edit: Edit, *, after: bool) -> tuple[str, list[str]]:
    """The module and the cells, before or after the edit."""
    cells = [CELLS[place] for place in (edit.order if after else range(len(CELLS)))]
    if edit.order != (0, 1, 2, 3):
        # A name must be there when a cell needs it: the partial is made where its function is.
        cells = [cell.replace("half = functools.partial(twice, times=4)\n", "") for cell in cells]
        cells = [cell.replace("+ half(x) ", "") for cell in cells]
    if edit in EDITS_WITHOUT_LATE:
        cells = [
            cell.replace("    import local_module as late\n", "").replace("+ late.step(x) * 1", "") for cell in cells
        ]
    texts = [MODULE, *cells]
    if after and edit.old:
        assert sum(text.count(edit.old) for text in texts) == 1, f"{edit.name}: {edit.old!r} is not there once"
        texts = [text.replace(edit.old, edit.new) for text in texts]
    return texts[0], texts[1:]
