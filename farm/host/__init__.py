"""Facts and limits of the machine that farm runs on."""
