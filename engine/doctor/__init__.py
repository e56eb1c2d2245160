"""`relight doctor`: every setting used once for real, and nothing of it left behind."""
