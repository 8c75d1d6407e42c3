"""What each pattern asks of a whole definition, beyond what the model of its settings checks on its own."""
