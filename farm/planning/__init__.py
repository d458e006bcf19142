"""From a config and the devices that are there to a plan."""
