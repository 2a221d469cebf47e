"""Evaluation: protocols, methods and baselines, measures, and a report.

``protocols`` defines the pictures to colour; ``methods`` and ``baselines`` colour them. ``measures`` is the table of
measures, whose functions are in ``metrics``, ``perceptual`` and ``frechet``; ``scoring`` applies it. ``runner`` runs an
evaluation, on several devices, and ``report`` writes its results.
"""
