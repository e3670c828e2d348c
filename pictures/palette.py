"""Colours with a meaning, the same in all pictures."""

NODATA_COLOUR = (128, 128, 128)

# A map compared with the truth: told apart with any kind of colour vision (Okabe and Ito, 2008), on a grey picture.
FOUND = (250, 250, 245)
MISSED = (226, 98, 0)
FALSE_ALARM = (0, 132, 208)

# A dark-to-bright scale whose lightness rises evenly, so that it also reads in grey print.
PROBABILITY_STOPS = ((0, 0, 4), (60, 15, 110), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))


def error_legend(colours, names):
    """[(colour, words)] for a sheet with classes and errors: the classes above 0 where they are several, then the errors."""
    classes = tuple(zip(colours, names, strict=True))[1:] if len(names) > 2 else ()
    return (*classes, (FOUND, "found"), (MISSED, "missed"), (FALSE_ALARM, "marked in error"), (NODATA_COLOUR, "not judged"))
