"""Reading and writing of image files of all common kinds, and colour spaces."""
