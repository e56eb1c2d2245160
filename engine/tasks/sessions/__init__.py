"""Sessions: what a task's owner knows, kept so that whoever comes after it goes on from there."""
