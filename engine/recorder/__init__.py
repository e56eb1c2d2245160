"""The recorder: takes events, numbers and spools them, drains them to the stream, and tells how far each has come."""
