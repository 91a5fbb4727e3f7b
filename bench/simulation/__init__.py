"""What would have happened: workloads replayed on policies of scheduling, in simulated time.

`make simulate` replays traces of a model of users, `make simulate TRACE=file.swf` a file. The Host's own decisions
(`hakuriver_host.domain`, as they are) are set beside plain FIFO and EASY backfill on the same jobs and nodes.
"""
