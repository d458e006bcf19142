"""What correctness starts from: eager logits of a text."""
