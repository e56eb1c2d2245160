"""Loses, cuts off and slows down regions of a real topology under load, and tells what held."""
