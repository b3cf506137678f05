"""`make bench`: every measurement, beside its peers and its floor, in one run."""

from tests.bench import checkpoints, files, graph, history, nodes, notebooks, pages, schedules, throughput

for bench in (nodes, graph, notebooks, checkpoints, throughput, schedules, history, pages, files):
    bench.main()
