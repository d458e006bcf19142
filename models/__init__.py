"""Models: where they come from, how they are exported, and what correctness starts from.

Only this package imports torch and executorch, and only inside functions and modules that a
worker process runs: registry, recipes, keys and tokenizers import neither.
"""
