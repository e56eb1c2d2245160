"""Limits on tokens, cost and attempts, held before a call and settled by what it took."""
