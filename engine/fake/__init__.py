"""A local Anthropic that answers as the real one does, or misbehaves as its script says: for tests and drills."""
