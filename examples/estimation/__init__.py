"""A swarm that estimates by voting: how much Python is in this interpreter's standard library?"""
