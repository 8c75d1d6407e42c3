"""Agents as Kubernetes pods: made by the worker, watched by the keeper."""
