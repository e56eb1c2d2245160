"""Streamed answers, watched as their bytes pass."""
