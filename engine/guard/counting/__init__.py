"""Model calls counted by the place that makes them."""
