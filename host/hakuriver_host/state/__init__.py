"""Backup and restore of what a Host keeps: `python -m hakuriver_host.state backup|restore FILE`."""
