"""Tasks: who works on one, under which epoch, and what happens when he is lost."""
