"""The decoder in eager PyTorch, in the parts that are lowered too."""
