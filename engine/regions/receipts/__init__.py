"""What a failover left behind: confirmed on the stream, absent from it, in doubt; and how that ended."""
