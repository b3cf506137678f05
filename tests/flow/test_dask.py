"""A flow of a notebook on a real Dask cluster of this machine."""

from __future__ import annotations

import nbclient
from nbformat.v4 import new_code_cell, new_notebook

CLUSTER = """
from distributed import Client, LocalCluster
cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
client = Client(cluster)
"""

FLOW = """
import os
from dataclasses import dataclass
import flowkit as fk

flow = fk.Flow("on dask")
FACTOR = 3

@dataclass
class Square:
    of: int
    value: int
    process: int

def times(number):
    return number * FACTOR

@flow.node
def numbers(top: int) -> list[int]:
    return list(range(top))

@flow.node(map="numbers")
def squares(numbers: int) -> Square:
    return Square(numbers, times(numbers) ** 2, os.getpid())

@flow.node
def total(squares: list[Square]) -> int:
    assert all(type(square) is Square for square in squares)
    return sum(square.value for square in squares)

class Refused(Exception):
    def __init__(self, code, why):  # as which it cannot be unpickled
        super().__init__(why)

@flow.node(retries=1, delay=0.01)
def refused(total: int):
    raise Refused(4, f"no more than {total}")
"""

RUN = """
try:
    flow.run(executor=client.get_executor(), top=12)
except fk.NodeFailed as error:
    print(error)
outcome = flow.outcome
print(outcome["total"], os.getpid() in {square.process for square in outcome["squares"]})
client.close()
cluster.close()
"""


def test_nodes_of_a_notebook_run_in_dasks_processes_and_fail_by_their_own_error() -> None:
    notebook = new_notebook(cells=[new_code_cell(code) for code in (CLUSTER, FLOW, RUN)])
    done = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()

    said = "".join(o.text for o in done.cells[2].outputs if o.get("name") == "stdout").splitlines()
    assert said[0] == "node 'refused' failed: RuntimeError: Refused: no more than 4554"
    assert said[1] == "4554 False"
