"""SSH for VPS, served by the Runner, so that an image needs neither a server nor a network."""
