"""Temporal: connection, payload conversion, launching and signalling executions."""
