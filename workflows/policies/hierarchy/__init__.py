"""The parts of the hierarchical pattern: who may do what, failures on their way up, tasks on their way down."""
