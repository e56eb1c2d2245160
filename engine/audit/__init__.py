"""Whether the recording is whole: walks the stream, the tables' heads and the archive, and names what is not right."""
