"""Histories of real executions, one for each branch of the workflows; the present code must replay them all."""
