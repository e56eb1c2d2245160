"""The world: everything that does I/O, in rooms named for what they do."""
