"""What FARM_HOME keeps between runs."""
