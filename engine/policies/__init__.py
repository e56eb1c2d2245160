"""Policies: who decides; pure functions of what was observed and of a moment."""
