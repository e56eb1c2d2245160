"""What a region's service does beside projecting and answering: hears others, rules, moves work."""
