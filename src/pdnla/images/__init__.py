"""Images in and out: reading and writing files as people have them, and colour spaces."""
