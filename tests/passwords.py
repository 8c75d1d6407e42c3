"""Passwords belong to roles, which all databases of a cluster share: every test that prepares one uses these."""

OWNER_PASSWORD = "owner's pass:word@"
APP_PASSWORD = "app's pass:word@"
