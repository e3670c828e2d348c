"""
What is said and shown of a set of classes: the words for what is mapped, names of files and scores, the baseline, colours.

Three kinds of sets are told apart by the names of their classes:

    fire      every class above 0 is a degree of burning: background, fire; the five severities of CEMS; unburned, low, high
    one       one class beside class 0: land, water
    several   anything else: water, forest, crops, urban, snow; or background, road, building
"""

import colorsys
import functools
import re
from dataclasses import dataclass, field

from constants import CLASS_COLOURS, CLASS_NAMES, OTHER_COLOURS
from runtime.errors import UserError, did_you_mean
from runtime.values import refused


@dataclass(frozen=True)
class Ground:
    """
    What a class can be of. words: any of them in a class's name says so. colour: (r, g, b) 0..255. baselines: spectral indices whose
    threshold its map has to beat, the first that the bands allow.
    """

    words: str
    colour: tuple
    baselines: tuple = ()


# The first that fits a name counts. Colours of ESA WorldCover where it has the class.
GROUNDS = (
    Ground("fire wildfire bushfire burn burned burnt burning", CLASS_COLOURS[2][1], ("nbr",)),
    Ground("shadow shade", (70, 60, 90)),
    Ground("cloud haze smoke", (205, 185, 225)),
    Ground("snow ice glacier firn", (240, 240, 240), ("ndsi",)),
    Ground("mangrove", (0, 207, 117), ("ndvi",)),
    Ground("wetland marsh swamp bog", (0, 150, 160)),
    Ground("water flood flooded flooding inundation inundated river lake sea ocean reservoir pond", (0, 100, 200), ("mndwi", "ndwi")),
    Ground("urban built building builtup settlement city impervious house", (250, 0, 0)),
    Ground("road street railway", (90, 60, 40)),
    Ground("crop cropland agriculture agricultural farmland field arable", (240, 150, 255), ("ndvi",)),
    Ground("forest tree wood woodland", (0, 100, 0), ("ndvi",)),
    Ground("shrub shrubland scrub bush", (255, 187, 34), ("ndvi",)),
    Ground("grass grassland meadow pasture rangeland", (255, 255, 76), ("ndvi",)),
    Ground("vegetation vegetated plant green", (60, 150, 60), ("ndvi",)),
    Ground("bare soil sand rock desert barren", (180, 180, 180)),
    Ground("moss lichen", (250, 230, 160)),
)
FIRE = GROUNDS[0]
SEVERITIES = set("negligible low moderate medium high severe severity very possibly damaged destroyed".split())
BACKGROUND = set("background other others none nothing rest clear unlabelled unlabeled unknown unclassified".split())
NEGATIONS = {"no", "not", "non", "without"}
UNAFFECTED = re.compile(r"un(burn|damag|affect|flood|chang|veget)|class 0$")
# Words that begin other keys of scores and summaries: mean_iou, detection_f1, valid_hectares …
RESERVED = {"mean", "detection", "valid", "pixel", "pooled_fire", "severity_mean", "fire", "burned"}
COLOUR = re.compile("#?[0-9a-fA-F]{6}")
APART = 48  # two colours of one set differ by this at least, as far as there are enough (distance in RGB)
MANY = 40  # classes from which on colours need only differ


def words_of(name):
    """The words of a class's name in lower case: Open_Water → open, water."""
    return [word for word in re.split(r"[\W_]+", name.lower()) if word]


def ground_of(name):
    """The Ground that a class is of by its name, or None."""
    words = words_of(name)
    if NEGATIONS & set(words):
        return None
    seen = {*words, *(word.removesuffix("s") for word in words)}
    return next((ground for ground in GROUNDS if seen & set(ground.words.split())), None)


def is_background(name):
    """Whether a name says that there is nothing of interest: background, other, no_damage, unburned …"""
    words = words_of(name)
    return not words or words[0] in BACKGROUND | NEGATIONS or bool(UNAFFECTED.match(" ".join(words)))


def are_fire(names):
    """Whether every class above 0 is fire, or a degree of it."""
    if tuple(names) in CLASS_NAMES.values():
        return True
    above = [ground_of(name) is FIRE or set(words_of(name)) <= SEVERITIES for name in names[1:]]
    told = any(ground_of(name) is FIRE or "unburn" in name.lower() for name in names)
    return told and all(above)


@dataclass(frozen=True)
class ClassSet:
    """
    names: of the classes, in their order; class 0 first. given: ((name, "#rrggbb"), …), colours in place of the usual ones. each: none is a
    background whatever it is called, as with labels of whole patches.
    """

    names: tuple
    given: tuple = field(default=())
    each: bool = False

    @functools.cached_property
    def is_fire(self):
        return len(self.names) > 1 and not self.each and are_fire(self.names)

    @functools.cached_property
    def is_several(self):
        """Whether each class stands for itself: no probability of "any of them" is of interest. A single name is of values."""
        return self.each or len(self.names) != 2 and not self.is_fire

    @functools.cached_property
    def has_background(self):
        """Whether class 0 is what is not mapped: left out of outlines, pictures and what is told about a map."""
        return not self.is_several or len(self.names) > 1 and not self.each and is_background(self.names[0])

    @property
    def first(self):
        """The lowest class that is mapped."""
        return 1 if self.has_background else 0

    @functools.cached_property
    def key(self):
        """What the names of scores begin with: fire_iou, water_iou. None for several classes."""
        if self.is_several:
            return None
        key = "fire" if self.is_fire else re.sub(r"\W+", "_", self.names[1]).strip("_").lower()
        return key if self.is_fire or key and key not in RESERVED else f"class_{key}".strip("_")

    @property
    def word(self):
        """What is mapped, as a noun: fire, water. None for several classes."""
        return "fire" if self.is_fire else None if self.is_several else spoken(self.names[1])

    @property
    def mapped(self):
        """What a share of a map is: 12 % burned, 12 % water."""
        return "burned" if self.is_fire else self.word

    @property
    def area_key(self):
        return f"{'burned' if self.is_fire else self.key}_hectares"

    @property
    def ending(self):
        """The last part of the name of the outlines' file: without a "_" of its own, so that it can be told from the scene's name."""
        if self.is_several:
            return "outlines"
        return "burned" if self.is_fire else "-".join(words_of(self.names[1])) or "outlines"

    @property
    def score(self):
        """Name of the score by which the best model is chosen."""
        return "mean_iou" if self.is_several else f"{self.key}_iou"

    @property
    def score_words(self):
        return "mean IoU" if self.is_several else f"{self.word} IoU"

    @property
    def extent(self):
        """Names of the two classes "not mapped" and "mapped", which an index can tell apart. None for several classes."""
        return None if self.is_several else CLASS_NAMES[2] if self.is_fire else self.names

    @functools.cached_property
    def baselines(self):
        """Names of the spectral indices that a network is compared with, the best one first."""
        if self.is_fire:
            return FIRE.baselines
        ground = None if self.is_several else ground_of(self.names[1])
        return ground.baselines if ground else ()

    @property
    def probability_words(self):
        """What a map of probabilities shows."""
        if not self.has_background:
            return "probability of the mapped class"
        return f"probability of {self.word}" if len(self.names) == 2 else f"probability of anything but {self.names[0]}"

    def threshold(self, chosen):
        """The threshold that validation chose, which several classes do without: each pixel gets the likeliest."""
        return None if self.is_several else chosen

    @functools.cached_property
    def colours(self):
        """((r, g, b) 0..255, …), one a class."""
        return choose_colours(self)

    def with_colours(self, given):
        """The same classes in other colours. given: {name: "#rrggbb"} or None; UserError for names of no class."""
        for name, colour in (given or {}).items():
            if name not in self.names:
                raise UserError(f"--class-colours: there is no class {name!r}; the classes are {', '.join(self.names)}."
                                f"{did_you_mean(name, self.names)}")
            if not isinstance(colour, str) or not COLOUR.fullmatch(colour):
                raise UserError(f"--class-colours: the colour of {name!r} is {colour!r}; expected one like #1f77b4")
        return ClassSet(self.names, tuple((given or {}).items()), self.each)


@functools.lru_cache(maxsize=64)
def class_set(names):
    """The ClassSet of a tuple of names."""
    return ClassSet(tuple(names))


def classes_of_checkpoint(data, given=None):
    """The ClassSet of a checkpoint's "data", in the colours of its run. given: {name: "#rrggbb"} in place of these, or None."""
    return ClassSet(tuple(data["classes"])).with_colours({**(data.get("class_colours") or {}), **(given or {})})


def class_objects(class_set):
    """
    The classes as STAC's classification extension has them: value, name, title and colour. Its names have no blanks, and none stands
    twice; the title is the name as it is.
    """
    found, names = [], set()
    for value, (name, colour) in enumerate(zip(class_set.names, class_set.colours, strict=True)):
        short = re.sub(r"[^0-9A-Za-z_-]+", "_", name).strip("_") or f"class_{value}"
        short = f"{short}_{value}" if short in names else short
        names.add(short)
        found.append({"value": value, "name": short, "title": name, "color_hint": "".join(f"{part:02X}" for part in colour)})
    return found


def spoken(name):
    """A class's name in a sentence: open_water → open water."""
    return name.replace("_", " ")


# ------------------------------------------------------------------------------------------------------------------ colours


def parse_colours(text):
    """A type for --class-colours: `water=#1f77b4,open_sand=d2b48c` → {"water": "#1f77b4", "open_sand": "#d2b48c"}."""
    found = {}
    for part in text.split(","):
        name, equals, colour = (word.strip() for word in part.rpartition("="))
        if not equals or not name or not COLOUR.fullmatch(colour):
            raise refused(text, "classes with their colours in hexadecimal, such as water=#1f77b4,forest=#006400")
        found[name] = f"#{colour.removeprefix('#').lower()}"
    return found


parse_colours.separated = True


def choose_colours(classes):
    """One (r, g, b) for each class of a ClassSet: as given; as usual for the classes of fires; by name; else unlike the others."""
    names, given = classes.names, {name: tuple(bytes.fromhex(colour.removeprefix("#"))) for name, colour in classes.given}
    usual = usual_fire_colours(len(names)) if classes.is_fire else [None] * len(names)
    colours, used = [given.get(name) for name in names], list(given.values())
    for i, name in enumerate(names):
        if colours[i] is None:
            ground = ground_of(name)
            wanted = usual[i] or ((0, 0, 0) if i < classes.first else ground and ground.colour)
            colours[i] = wanted if classes.is_fire else unlike(used, wanted, i)
            used.append(colours[i])
    return tuple(colours)


def usual_fire_colours(count):
    """Black, then from light yellow to dark red."""
    if count in CLASS_COLOURS:
        return list(CLASS_COLOURS[count])
    steps = CLASS_COLOURS[5][1:]
    places = [i * (len(steps) - 1) / max(1, count - 2) for i in range(count - 1)]
    ramp = []
    for place in places:
        low = min(int(place), len(steps) - 2)
        pairs = zip(steps[low], steps[low + 1], strict=True)
        ramp.append(tuple(round(a + (place - low) * (b - a)) for a, b in pairs))
    return [(0, 0, 0), *ramp]


def unlike(used, wanted, number):
    """The first colour that differs from all that are used: the wanted one, its shades, those told apart by most people, further hues."""
    candidates = [] if wanted is None else [wanted, *(shade(wanted, towards, part) for part in (0.4, 0.65) for towards in (255, 0))]
    candidates += [OTHER_COLOURS[(number + i) % len(OTHER_COLOURS)] for i in range(len(OTHER_COLOURS))]
    for k in range(number, number + 64):
        hue, saturation, value = 0.618034 * k % 1.0, (0.85, 0.5)[k % 2], (0.9, 0.65, 0.4)[k % 3]
        candidates.append(tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value)))
    for apart in (APART, APART / 3, 1) if len(used) < MANY else (1,):
        for colour in candidates:
            if all(sum((a - b) ** 2 for a, b in zip(colour, other, strict=True)) >= apart**2 for other in used):
                return colour
    return candidates[-1]


def shade(colour, towards, part):
    """A colour mixed with white (towards 255) or black (0)."""
    return tuple(round(value + part * (towards - value)) for value in colour)
