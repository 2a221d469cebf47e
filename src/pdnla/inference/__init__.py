"""Colouring pictures: from one image in memory to albums on many devices.

* ``preprocessing``, ``colorizer``, ``chroma_upscaling``: images in, images out.
* ``planning``, ``matching``, ``choosing``: which picture is coloured after which reference, and where its result goes.
* ``album``: an album from beginning to end; ``many_devices``, ``pipeline`` and ``background`` do it, ``results`` says
  what lies beside the results.
"""
