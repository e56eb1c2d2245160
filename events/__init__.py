"""What happened: frozen models of facts, one file per subsystem; no I/O and no clock."""
