"""Numbers to verdicts: logits, samples and gates. Pure; knows no device, store or file format."""
