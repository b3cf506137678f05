"""`make bench`: every measurement, beside its peers and its floor, in one run."""

from tests.bench import checkpoints, graph, nodes, notebooks

for bench in (nodes, graph, notebooks, checkpoints):
    bench.main()
