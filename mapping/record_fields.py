"""What the record of a scene's map may hold: it may come from a stranger, or from a power cut."""

from runtime.fields import NUMBER, NUMBERS, OBJECT, SIZE, TEXT, TEXTS, TRUTH, WHOLE, Field, dict_of, find_problem, list_of, or_none

BLOCK = {**dict.fromkeys(("row", "column", "height", "width"), WHOLE), "reason": TEXT}
CLASS = {"pixels": WHOLE, "hectares": or_none(NUMBER)}
SHARE = {"fraction": or_none(NUMBER)}  # of maps of several classes
RECORD = {
    "scene": TEXT, "source": TEXT, "width": SIZE, "height": SIZE, "crs": or_none(TEXT),
    "valid_fraction": NUMBER, "valid_hectares": or_none(NUMBER), "polygons": or_none(WHOLE), "unreadable_blocks": WHOLE,
    "classes": Field("pixels and hectares by class", lambda value: dict_of(holds(CLASS, SHARE))(value)),
    "unreadable": Field("a list of blocks", list_of(lambda value: holds(BLOCK)(value))),
    "remarks": TEXTS, "files": TEXTS, "settings": OBJECT,
}
# What maps of values, and of labels of whole scenes, have beside these.
OTHERS = {"task": TEXT, "label": TEXT, "labels": Field("numbers by label", dict_of(or_none(NUMBER).fits)),
          "shown": Field("two numbers", lambda value: NUMBERS.fits(value) and len(value) == 2),
          **dict.fromkeys(("mean", "least", "most", "probability"), or_none(NUMBER))}
# Names of numbers follow what is mapped: has_fire, fire_fraction, burned_hectares …
BY_ENDING = {"_fraction": or_none(NUMBER), "_confidence": or_none(NUMBER), "_hectares": or_none(NUMBER)}


def holds(fields, others=()):
    """Whether a value has all of the fields; others: those that it may have."""
    return lambda value: isinstance(value, dict) and find_problem(value, {**fields, **dict(others)}, fields) is None


def problem_of_record(record):
    """What is wrong with the record of a finished map, in words that follow its path, or None."""
    named = {key: TRUTH for key in record if key.startswith("has_")}
    named |= {key: field for key in record for ending, field in BY_ENDING.items() if key.endswith(ending)}
    return find_problem(record, {**named, **OTHERS, **RECORD}, RECORD)
