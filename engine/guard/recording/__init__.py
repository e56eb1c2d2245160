"""What guarded calls did, as events: digests, tokens and prices included."""
