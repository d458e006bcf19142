"""What a device says of itself: found, probed, and watched while it works."""
