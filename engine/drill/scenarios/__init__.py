"""What is done to a region, one file each."""
