"""The `plastic` command: one file per noun, each command parse, one library call, print."""
