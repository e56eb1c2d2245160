"""What a guard knows of the clients that it serves."""
