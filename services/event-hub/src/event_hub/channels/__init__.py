"""The channels that the hub serves, and their blocks."""
