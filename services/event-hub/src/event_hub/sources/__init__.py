"""Where the hub's news comes from."""
