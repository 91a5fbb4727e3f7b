"""The decisions of the Host, apart from input and output: state and `now` in, decisions out."""
