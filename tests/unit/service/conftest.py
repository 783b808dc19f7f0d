"""Settings for the properties: disks and busy machines take their time, which is no failure."""

from hypothesis import settings

settings.register_profile("service", deadline=None)
settings.load_profile("service")
