"""Benchmarks: the engine's own figures, and raw Temporal beside it on the same servers in the same run.

`make bench`, or `python -m benchmarks`; docs/benchmarks.md says what each row measures and how to read it.
"""
