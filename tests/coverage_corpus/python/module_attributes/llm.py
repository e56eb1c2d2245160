"""A module that others fill."""

client = None
