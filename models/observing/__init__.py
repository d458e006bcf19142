"""Programs that give what lies between their operators, and what PyTorch says it should be."""
