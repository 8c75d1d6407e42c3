"""A hierarchical build and fix of a small repository with pytest and ruff: failures go up until a level solves them."""
