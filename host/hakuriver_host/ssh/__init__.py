"""The SSH gateway: a jump server that leads to VPS, and to nothing else."""
