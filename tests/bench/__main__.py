"""`make bench`: every measurement, beside its peers and its floor, in one run."""

from tests.bench import nodes, notebooks

for bench in (nodes, notebooks):
    bench.main()
