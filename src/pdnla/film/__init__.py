"""Colouring film: from a video file or a folder of frames to another, after reference pictures.

* ``source``, ``video``, ``planes``: frames in and out; the source's luminance plane is kept, its sound is copied.
* ``shots``, ``references``: where the camera cuts, and which references colour each shot.
* ``motion``, ``stability``: colours that hold still.
* ``planning``, ``colouring``: from command to result, in parts that survive a kill; ``review`` shows a frame a shot.

PyAV and OpenCV are in the extra ``pdnla[film]``.
"""
