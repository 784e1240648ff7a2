"""What strangers write, and what is secret: the tests that try to break it."""
