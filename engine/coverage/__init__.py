"""Coverage: which model calls in a program's sources are guarded, and which are not."""
