"""Checks programs of the coordination language whole, before anything runs them."""
