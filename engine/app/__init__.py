"""The one place that wires things together: what `relight.open` and each command need, and nothing else connects."""
