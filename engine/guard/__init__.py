"""The guard: model calls and other dependencies retried once, broken in time, recorded always."""
