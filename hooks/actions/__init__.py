"""What hooks do: allowed commands in a sandbox, HTTP calls to pinned addresses, registered functions."""
