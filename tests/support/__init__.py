"""What the tests share: real daemons, real containers, a real PostgreSQL, links that can be cut, disks that fill.

Everything here cleans up what it made, and only that: names of nodes are unique to each cluster.
"""
