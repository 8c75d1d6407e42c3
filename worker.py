"""Composition root of the worker: workflows, activities, bridge, reconciler, registry."""
