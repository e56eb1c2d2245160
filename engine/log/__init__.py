"""The log: the stream and the content store, how they are read, published to, appended to and put right."""
