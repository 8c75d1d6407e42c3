"""Workflows and agents to read, run and start from."""
