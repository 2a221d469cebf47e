"""Colouring pictures: the Colorizer, which pictures go with which reference, reading ahead and writing behind."""
