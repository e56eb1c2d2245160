"""How relight is: every check with what was observed, and the reason where it is not well."""
