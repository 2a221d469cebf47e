"""Colouring pictures: from one image in memory to albums on many devices.

* ``preprocessing``, ``colorizer``, ``chroma_upscaling``: images in, images out.
* ``editing``, ``correcting``: colours changed afterwards, wrong matches corrected by hand.
* ``planning``, ``matching``, ``choosing``: the reference of each picture, and the path of its result.
* ``album``: colouring of an album, with ``many_devices``, ``pipeline`` and ``background``; ``results`` manages other
  files in the folder of results.
"""
