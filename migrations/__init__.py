"""Where it lives: plain SQL, one file per subsystem, applied in order and never edited once released."""
