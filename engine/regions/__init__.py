"""What the regions of one fleet know of each other, and do when one of them is lost."""
