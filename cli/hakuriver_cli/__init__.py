"""The commands of HakuRiver: they ask the Host by `hakuriver.Client`, and print.

`main` is the entry point, and the one place where errors become words and exit codes. Modules are loaded when a command
needs them, so that each starts quickly.
"""
