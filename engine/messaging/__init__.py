"""Messaging: the FastStream application that takes events and commands over NATS."""
