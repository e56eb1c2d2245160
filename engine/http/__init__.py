"""The HTTP API: what is served to operators, dashboards and services."""
