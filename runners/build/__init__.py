"""How native programs are built for an ABI."""
