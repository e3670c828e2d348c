"""
Which scenes are of one place, and which of its dates make a sample: decided here for cutting and for mapping.

    scenes = dated_scenes({"20240101_lake": "a.tif", "20240611_lake": "b.tif"}, 2)      # {"20240611_lake": DatedRasters}
"""

from raster.acquired import date_in_name, time_in_name, time_of_path
from raster.dated import DatedProducts, DatedRasters
from raster.product_scene import ProductScene
from runtime.errors import UserError


def dated_scenes(scenes, count, ends=None, note=lambda text: None):
    """
    {name of the last scene: DatedProducts or DatedRasters} of {name: path}: samples of `count` dates of one place, which it ends with.

    ends: names of the scenes that samples end with (those that have labels); without them the last of each place. Those with fewer dates
    before them are left out. note(text): what is left out. UserError where nothing tells a scene's date or it cannot be opened, for two
    scenes of one place and day, and for a place with fewer dates.
    """
    samples, early, unused = {}, [], 0
    for label, series in places_of(scenes).items():
        names = [name for _, name in series]
        if len(names) < count:
            days = ", ".join(str(day) for day, _ in series)
            raise UserError(f"{label} has {of_dates_words(len(names))} ({days}), expected {count}; add scenes of it, or leave "
                            f"{names[0]} out")
        wanted = names[-1:] if ends is None else [name for name in names if name in ends]
        early += [name for name in wanted if names.index(name) < count - 1]
        used = set()
        for last in (names.index(name) for name in wanted if names.index(name) >= count - 1):
            chosen = series[last - count + 1 : last + 1]
            used |= set(chosen)
            samples[names[last]] = dated({name: scenes[name] for _, name in chosen}, [day for day, _ in chosen])
        unused += len(series) - len(used)
    if not samples:
        raise UserError(f"no label is of a scene with {of_dates_words(count - 1)} of its place before it; expected labels of the last "
                        f"dates, or a smaller --dates than {count}")
    if early:
        more = f" and {len(early) - 1} more scenes with labels" if len(early) > 1 else ""
        note(f"no sample ends with {early[0]}{more}: fewer than {of_dates_words(count - 1)} of its place before it")
    if unused:
        note(f"{unused} of {len(scenes)} scenes are in no sample of {of_dates_words(count)}, which ends with the last or with labels")
    return samples


def of_dates_words(count):
    return f"{count} date" if count == 1 else f"{count} dates"


def places_of(scenes):
    """{place in words: [(datetime.date, name), …] in the order of time} of {name: path}. UserError, see dated_scenes."""
    found = {}
    for name, path in scenes.items():
        time = time_of_path(path) or time_in_name(name)
        if time is None:
            raise UserError(f"{path} cannot be opened, and its name has no date: a sample would lack it; leave it out")
        found.setdefault(place_of(name, path), []).append((*time, name))
    series = {}
    for place, members in found.items():
        members.sort()
        for (first, _, one), (second, _, other) in zip(members, members[1:], strict=False):
            if first.date() == second.date():
                raise UserError(f"{one} and {other} are both of {place[-1]} on {first.date()}; leave one of them out")
        label = place[-1] if all(key == place or key[-1] != place[-1] for key in found) else " ".join(place)
        series[label] = [(first.date(), name) for first, _, name in members]
    return series


def place_of(name, path):
    """What scenes of one place have in common: product and tile, or their names without the date."""
    if isinstance(path, ProductScene) and path.product.tile:
        return path.product.kind, path.product.tile
    found = date_in_name(name)
    if found is None:
        return (name,)
    before, after = name[: found[1]], name[found[2] :]
    return before, after, f"{before}*{after}"  # apart, so that a_*b and a*_b are two places


def place_words(name):
    """A name without its date: `lake` of 20240101_lake and lake_20240101; None without a date or with nothing else."""
    found = date_in_name(name)
    if found is None:
        return None
    parts = [part.strip("_-. ") for part in (name[: found[1]], name[found[2] :])]
    return "_".join(part for part in parts if part) or None


def last_of_places(scenes):
    """{place: name of its last scene} of {name: path}: tiles as products name them (T32TQM and 32TQM), names without dates."""
    found = {}
    for series in places_of(scenes).values():
        names = [name for _, name in series]
        words = {place_words(name) for name in names}
        for name in names:
            if isinstance(scenes[name], ProductScene) and (tile := scenes[name].product.tile):
                words |= {tile, tile.removeprefix("T")}
        for word in words - {None}:
            found.setdefault(word, set()).add(names[-1])
    return {word: names.pop() for word, names in found.items() if len(names) == 1}


def dated(scenes, days):
    """DatedProducts or DatedRasters of {name: path} in the order of time. days: datetime.date of each."""
    paths = list(scenes.values())
    products = [isinstance(path, ProductScene) for path in paths]
    if any(products) and not all(products):
        raise UserError(f"{paths[0]} and {paths[-1]} are of one place, a product and a raster; pass those of one kind")
    return (DatedProducts if all(products) else DatedRasters)(paths, [str(day) for day in days], tuple(scenes))


def samples_among(scenes, count, holds_all, ends=None, note=lambda text: None):
    """
    {name: path} of what a model of `count` dates maps: rasters that hold all dates themselves as they are, of the others a sample of the
    last dates of each place. holds_all(path): how the bands of a raster are found if it is one ("by name" …), or None. ends, note,
    UserError: see dated_scenes; also for a raster that may be either.
    """
    rasters = {name: path for name, path in scenes.items() if not isinstance(path, ProductScene)}
    how = {name: holds_all(path) for name, path in rasters.items()}
    whole = {name: path for name, path in rasters.items() if how[name] or not knows_day(path)}
    others = {name: path for name, path in scenes.items() if name not in whole}
    places = [place_of(name, path) for name, path in scenes.items()]
    for name, path in whole.items():
        if how[name] == "by order" and places.count(place_of(name, path)) > 1:
            raise UserError(f"{path} may hold one date or {count}: its bands have no names, and others are of its place; pass --bands, "
                            f"those of one date or of {count}")
    return {**whole, **(dated_scenes(others, count, ends, note) if others else {})}


def knows_day(path):
    """Whether anything tells when a scene was taken; what cannot be opened is told where it is needed."""
    try:
        return time_of_path(path) is not None
    except UserError:
        return False
