"""Agents review a git repository: a lead plans and reports, three reviewers work. `make demo` runs it.

`agents` and what it imports is what a user of the engine would write; it needs the agents' package and nothing of the
engine. `demo` starts an engine, runs the workflow, kills a reviewer's process on the way, and shows what happened.
"""
