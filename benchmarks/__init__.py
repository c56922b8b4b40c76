"""Throughput of the operator beside every other way to compute it: `python -m benchmarks.run`."""
