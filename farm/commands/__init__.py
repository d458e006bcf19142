"""What a command does that is not a run: one file each."""
