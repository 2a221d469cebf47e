"""How good a colouring is: pairs to colour, methods and baselines, measures, and a report of them all.

``protocols`` says what is coloured, ``methods`` and ``baselines`` by what, ``measures`` how good that is; ``running``
does it, on several devices, and ``report`` writes it down.
"""
