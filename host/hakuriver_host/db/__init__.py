"""The Host's state on disk: tables, migrations, the one writer, and the reads."""
