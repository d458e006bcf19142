"""How what programs print is read. Pure."""
