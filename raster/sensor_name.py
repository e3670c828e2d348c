"""What took a raster, as far as its tags name it."""

import re

from runtime.words import for_terminal

# Names of tags without separators, the more certain first.
SENSORS = ("SATELLITEID", "SPACECRAFTNAME", "SPACECRAFTID", "SPACECRAFT", "PLATFORM", "SATELLITE", "MISSION", "SENSOR", "SENSORID",
           "INSTRUMENT")
LONGEST = 40  # characters of a sensor's name; a longer one is none


def sensor_name(tags):
    """The satellite or sensor of a raster's tags, "" where they do not say."""
    plain = {re.sub(r"[^A-Z]", "", str(name).upper()): str(value).strip() for name, value in tags.items()}
    return next((for_terminal(plain[name]).replace("\n", " ") for name in SENSORS if 0 < len(plain.get(name, "")) <= LONGEST), "")
