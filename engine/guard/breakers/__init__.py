"""Breakers of this process and of its fleet."""
