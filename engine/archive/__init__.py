"""The archive: sealed, signed segments of the stream, in a folder or an object store; left when all else is gone."""
