"""When a scene was taken: as its product's metadata, its tags or its name tell."""

import datetime
import re

from raster.product_scene import ProductScene
from raster.source import describe, scene_name
from runtime.errors import UserError

TAGS = ("ACQUIRED", "ACQUISITIONDATETIME", "ACQUISITION_DATETIME", "ACQUISITION_DATE", "SENSING_TIME", "DATE_ACQUIRED")
# 20220205, 20220205T101211 or 2022-02-05 between other characters than digits; of HLS year and day of the year.
IN_NAME = re.compile(r"(?<!\d)((?:19|20)\d\d)(-?)(\d\d)\2(\d\d)(?:T(\d{6}))?(?!\d)")
HLS_NAME = re.compile(r"HLS\.[SL]30\.\w+\.(\d{7})(?:T(\d{6}))?(?!\d)")
DAY = datetime.timedelta(days=1) - datetime.timedelta(seconds=1)


def time_of(text):
    """(first, last) moment, UTC, of a date or time in ISO form: a date is all of its day. None for other text."""
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    moment = moment.replace(tzinfo=moment.tzinfo or datetime.UTC)
    try:
        moment = moment.astimezone(datetime.UTC)
        return (moment, moment) if len(text.strip()) > 10 else (moment, moment + DAY)
    except OverflowError:  # at the ends of the calendar
        return None


def time_in_name(name):
    """As time_of, of the first date in a scene's name."""
    found = date_in_name(name)
    return found and found[0]


def date_in_name(name):
    """(time_of, first, last + 1 character) of the first date in a scene's name, None without one."""
    if found := HLS_NAME.search(name):
        time = parsed("%Y%j", *found.groups())
        return time and (time, found.start(1), found.end())
    for found in IN_NAME.finditer(name):
        if time := parsed("%Y%m%d", "".join(found.group(1, 3, 4)), found[5]):
            return time, found.start(), found.end()
    return None


def parsed(form, day, clock):
    try:
        moment = datetime.datetime.strptime(day + (clock or ""), form + ("%H%M%S" if clock else ""))
    except ValueError:
        return None
    return time_of(moment.isoformat() if clock else moment.date().isoformat())


def year_and_day(day):
    """(year, day of the year from 1) of an ISO day, floats."""
    date = datetime.date.fromisoformat(day)
    return float(date.year), float(date.timetuple().tm_yday)


def time_of_scene(info):
    """(first, last) moment, UTC, in which a scene (RasterInfo) was taken, None where nothing tells."""
    stated = [info.path.product.time] if isinstance(info.path, ProductScene) else []
    tags = {key.upper(): value for key, value in info.tags.items()}
    stated += [tags[key] for key in TAGS if key in tags]
    return next((time for time in map(time_of, stated) if time), None) or time_in_name(scene_name(info.path))


def of_dates(scenes, dates):
    """
    Those of {name: path} that were taken in `dates`. dates: (first, last) datetime.date of runtime.values.dates, None for no end.

    Scenes that cannot be opened, or not be used, stay: they are told where they are read. UserError where nothing tells when a scene was
    taken, and where none is left.
    """
    first, last = dates
    kept, seen = {}, []
    for name, path in scenes.items():
        time = time_of_path(path)
        if time is None:
            kept[name] = path
            continue
        seen.append(time[0].date())
        if (first is None or time[1].date() >= first) and (last is None or time[0].date() <= last):
            kept[name] = path
    if not kept:
        raise UserError(f"--dates leaves no scene: the {len(seen)} found are of {min(seen)} to {max(seen)}")
    return kept


def time_of_path(path):
    """time_of_scene of a path, None where it cannot be opened. UserError where nothing tells."""
    if isinstance(path, ProductScene):
        product = path.product
        time, problem = time_of(product.time) or time_in_name(path.name), product.problem
    else:
        try:
            time, problem = time_of_scene(describe(path)), None
        except UserError as error:
            time, problem = None, error
    if time is None and not problem:
        raise UserError(f"--dates: neither metadata, tags nor name of {path} tell when it was taken; leave the scene out, or --dates")
    return time
