"""Colouring of film with reference pictures: video files or folders of frames in, and out.

* ``source``, ``video``, ``planes``: reading and writing of frames; the luminance plane is kept, and the sound copied.
* ``shots``, ``references``: detection of cuts, and the choice of references for each shot.
* ``motion``, ``stability``: temporal stability of colours along motion.
* ``planning``, ``colouring``: from the command to the result, resumable; ``review``: a page with a frame of each shot.

The extra ``pdnla[film]`` installs PyAV and OpenCV.
"""
