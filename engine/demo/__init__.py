"""The demonstration: a scripted day of a fleet, recorded and projected by real servers."""
