"""Fast subclasses of the plain modules in :mod:`pdnla.network`, which compute the same results in less time.

:func:`accelerate` uses them for a network's modules, in training and inference; :func:`for_inference` returns a copy
with precomputed constants. A fast class overrides ``forward``; parameters, their names and the state dict are those of
the plain module. ``ops`` defines the package's own convolutions as torch operators, and ``native`` compiles them.
"""

from pdnla.fast.acceleration import accelerate, for_inference

__all__ = ["accelerate", "for_inference"]
