"""Erasure on demand: content of a person or tenant goes, the events that refer to it stay, and it is on record."""
