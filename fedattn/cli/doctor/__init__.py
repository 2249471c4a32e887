"""`fedattn doctor`: what is wrong with this machine as a node, and what to do."""
