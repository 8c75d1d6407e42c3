"""Supervisor: each ready task goes to the least-loaded worker that can do it, critical path first."""

from workflows.kernel.policy import Policy


class SupervisorPolicy(Policy):
    """Roles are independent of each other; within a role the workers share the load evenly."""

    looks_ahead = True
    fuses_chains = True
