"""One host with devices: content store, probing, deploying, sessions and the agent."""
