"""The pool from end to end: a real client, real sockets, scripted servers."""
