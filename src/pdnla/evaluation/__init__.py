"""How good a colouring is: pairs to colour, methods and baselines, measures, and a report of them all.

``protocols`` says what is coloured, ``methods`` and ``baselines`` by what. ``measures`` is the table of measures,
whose functions are in ``metrics``, ``perceptual`` and ``frechet``; ``scoring`` applies it. ``runner`` does all that,
on several devices, and ``report`` writes it down.
"""
