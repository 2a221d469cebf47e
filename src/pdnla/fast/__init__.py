"""The fast network: subclasses of the plain modules in :mod:`pdnla.network` that compute the same in less time.

:func:`accelerate` puts them in place of a network's modules, for training and inference alike; :func:`for_inference`
returns a copy that computes constants once. A fast class overrides ``forward``; parameters, their names and the state
dict are the plain module's. ``ops`` holds the package's own convolutions as torch operators, and ``native`` compiles
them.
"""

from pdnla.fast.acceleration import accelerate, for_inference

__all__ = ["accelerate", "for_inference"]
