"""What each command may be asked to do: one file a command."""
