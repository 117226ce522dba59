"""Benchmarks: run by hand, never by `make test`. docs/benchmarks.md holds the last results."""
