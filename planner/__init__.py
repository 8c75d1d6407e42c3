"""Definition to plan: parsing with every problem located, the graph, its schedule, and advice.

Pure and deterministic: no clock, no I/O. The only importer of networkx.
"""
