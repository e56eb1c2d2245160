"""Healing: watches for events that the stream has lost, has them published again, and names what nobody has."""
