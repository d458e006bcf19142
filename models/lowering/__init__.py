"""Our own lowering: small graphs made once, composed into the program."""
