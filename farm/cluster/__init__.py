"""Where work runs: in this process (local) or on a Ray cluster (ray); the work is the same."""
