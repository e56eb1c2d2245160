"""One guarded call: its attempts, waits and deadline, and the drivers of both kinds of clients."""
