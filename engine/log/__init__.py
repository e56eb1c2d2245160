"""The log: spool, drainer, recorder, control appends, reader."""
