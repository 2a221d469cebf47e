"""The fast network: subclasses of the plain modules in :mod:`pdnla.network`, and the convolutions they call."""
