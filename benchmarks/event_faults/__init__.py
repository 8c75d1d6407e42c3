"""Events under faults: `python -m benchmarks.event_faults`.

Producers write duplicates, events out of order and poison, each in a process of its own; bridges, in processes of their
own too, bring them to a ledger in PostgreSQL; bridges, producers and Valkey are killed (SIGKILL) every few seconds. In
the end each event that was acknowledged to its producer must have had its effect once, in the order of its workflow's
stream, and each piece of poison must be a dead letter.

The bridges, leases, fences, streams and dead letters are the engine's; so is what an execution admits of what comes
(`workflows.kernel.inbox.admit`). In the place of Temporal and the tick's commit stands one transaction a signal.
"""
