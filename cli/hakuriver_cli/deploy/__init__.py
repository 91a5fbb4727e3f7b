"""`hakuriver cluster`: plays the playbooks by ansible-runner, and tells what they do in our words.

`play` says what to run, `port` runs it, `events` reads what comes back, `failures` explains it, `session` ties them
together under the deployment lock and writes the history. `commands` is what people type.
"""
