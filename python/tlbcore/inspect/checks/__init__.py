"""What is to be said about an isolated machine's set-up: a check is one function in a file by subject."""
