"""How long a look may take, and from which value on something is no longer well."""

LOOK_S = 1.0
"""Of PostgreSQL, of NATS, and of everything else, side by side."""
FOLLOW_UP_S = 0.4
"""For what can be asked only once both have answered: together with `LOOK_S` well within 2 s."""
CACHE_S = 0.25
"""So long one look serves everybody who asks."""

LAG_S = 30.0
STANDS_STILL_S = 10.0
EXPOSED_TOO_LONG_S = 30.0
EXHAUSTED_WITHIN_S = 60.0
"""So long a pool that was exhausted is shown."""
CLOCK_OFFSET_MS = 5_000.0
"""Events from a clock 60 s ahead of the stream's are dead letters: said long before."""
QUIET_S = 600.0
"""A publisher that was not heard of for so long, and did not say that it ended, has its tail in doubt."""
STREAM_NEARLY_FULL = 0.8
DISK_LOW_BYTES = 1 << 30
DISK_FULL_BYTES = 64 << 20
