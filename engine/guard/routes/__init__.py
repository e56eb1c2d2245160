"""Ways to an answer: the client itself, then its fallbacks, and what is said when none is left."""
