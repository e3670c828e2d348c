"""link-chips: one folder of symbolic links to the chips of several, in an order of which any beginning is a fair mix.

No chip is opened: what is linked is what is called <integer>.pt and, where there is a manifest, listed in it. The order is that
of multiples of the golden ratio, so it depends on nothing but the sources as given and the chips in them.

A new destination gets its name when everything is in it. In a folder that exists, links that are right already stay, so that a run that
was killed can be run again; other links are in the way, and files always.
"""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np

from chipping.chipset import DESCRIPTION, FORMAT, MANIFEST, lock, read_chipset, read_manifest
from chipping.splits import SPLITS
from constants import VERSION
from runtime.errors import UserError
from runtime.files import atomic_path, describe_difference, require_writable, settings_hash
from vectors.footprint import TOUCH, outline, overlapping_pairs, penetration, to_lonlat, window_transform

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: no two items share a key
MUST_AGREE = ("kind", "chip_size", "bands", "ratio", "layers", "classes")
PATCHES_MUST_AGREE = ("divide_by", "offset", "nodata")  # pan/ms chips hold reflectance, whatever they were made of
LINK_NAME = re.compile(r"(0|[1-9][0-9]*)(\.pt|_(image|mask)\..+)")  # what a chip is called in a mix


def fair_order(count):
    """(count,) indices: item i comes at the rank of i * GOLDEN mod 2^64."""
    return np.argsort(np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN), kind="stable")


def find_chips(folder):
    """([integer, …] sorted, number of broken links, number of .pt files with other names) of a folder."""
    numbers, broken, foreign = [], 0, 0
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix != ".pt" or entry.name.startswith("."):
                continue
            if not (stem.isdecimal() and stem.isascii() and stem == str(int(stem))):
                foreign += 1
            elif entry.is_symlink() and not os.path.exists(entry.path):
                broken += 1
            else:
                numbers.append(int(stem))
    return sorted(numbers), broken, foreign


def link_chips(sources, destination, overwrite=False, say=print, allow_overlap=False):
    """
    Fill `destination` with links to the chips of all sources. All or nothing. say(text) hears what the mix is not good for.

    Returns {source: {"linked", "broken", "foreign", "unlisted"}}. UserError where a source is no folder, sources can't be mixed, nothing is
    found, a name is taken, or patches of one ground come into several splits (with allow_overlap that is only said).
    """
    destination = Path(destination)
    for source in sources:
        if not Path(source).is_dir():
            raise UserError(f"{source} is no folder; expected a folder of chips")
        if destination.exists() and os.path.samefile(source, destination):
            raise UserError(f"{source} is both source and destination; link into another folder")
    repeated = [s for i, s in enumerate(sources) if any(os.path.samefile(s, other) for other in sources[:i])]
    if repeated:
        raise UserError(f"{repeated[0]} is given twice; its chips would count double")
    descriptions = agree([read_chipset(s) if (Path(s) / DESCRIPTION).exists() else None for s in sources], sources)
    if descriptions[0] and descriptions[0]["kind"] == "patches":
        if not all(descriptions):
            raise UserError("patch sets can only be linked with patch sets; a source has no chipset.json")
        refuse_leaks(sources, allow_overlap, say)
        links, manifest, report = plan_patches(sources)
    else:
        links, manifest, report = plan_pan_chips(sources, with_manifest=all(descriptions))
    if not links:
        raise UserError(f"no chips in {', '.join(map(str, sources))}; expected files 0.pt, 1.pt …")
    texts = {}
    if manifest is not None:
        settings = {"linked": [{"from": str(s), "chips": report[str(s)]["linked"]} for s in sources]}
        texts = {MANIFEST: "\n".join(manifest) + "\n", DESCRIPTION: describe(descriptions, settings)}
    if os.path.lexists(destination):
        require_writable(destination)
        with locked(destination / ".link-chips.lock", destination):
            fill(destination, links, texts, overwrite)
    else:
        make_whole(destination, links, texts)
    with_bands = [s for d, s in zip(descriptions, sources, strict=True) if d and d.get("store") in ("bands", "both")]
    only_oklab = [s for d, s in zip(descriptions, sources, strict=True) if d and d.get("store") == "oklab"]
    if with_bands and only_oklab:
        say(f"{only_oklab[0]} keeps only oklab, {with_bands[0]} bands: {destination} is good for --target oklab, not for --target bands")
    return report


def describe(descriptions, settings):
    """The text of the mix's chipset.json: what the first set says, but of what is kept only as much as every chip offers."""
    shared = {k: v for k, v in descriptions[0].items() if k not in ("format", "version", "settings", "settings_hash", "store", "dtype")}
    stores = {d.get("store") for d in descriptions}
    if None not in stores:  # oklab can be had from bands, not the other way round
        shared["store"] = stores.pop() if len(stores) == 1 else "oklab" if "oklab" in stores else "bands"
    dtypes = {d.get("dtype") for d in descriptions}
    if None not in dtypes:
        shared["dtype"] = " and ".join(sorted(dtypes))
    whole = {"format": FORMAT, "version": VERSION, **shared, "settings": settings, "settings_hash": settings_hash(settings)}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def agree(descriptions, sources):
    """The descriptions, if the sets can be read as one."""
    known = [(d, s) for d, s in zip(descriptions, sources, strict=True) if d]
    for description, source in known[1:]:
        keys = (*MUST_AGREE, *(PATCHES_MUST_AGREE if description["kind"] == "patches" else ()))
        first, other = ({k: d.get(k) for k in keys} for d in (known[0][0], description))
        if first != other:
            raise UserError(f"{known[0][1]} and {source} can't be mixed ({describe_difference(first, other)})")
    return descriptions


def plan_pan_chips(sources, with_manifest):
    """({link name: target}, manifest lines or None, report)."""
    items, lines, report = [], [], {}
    for source in sources:
        numbers, broken, foreign = find_chips(source)
        known, found = lines_by_file(source), len(numbers)
        if all((Path(source) / name).exists() for name in (DESCRIPTION, MANIFEST)):  # a chip without a line is one that a kill has left
            numbers = [n for n in numbers if f"{n}.pt" in known]
        report[str(source)] = {"linked": len(numbers), "broken": broken, "foreign": foreign, "unlisted": found - len(numbers)}
        base = os.path.realpath(source)
        # a link to a link would break when the middle one goes
        items += [real(os.path.join(base, f"{n}.pt")) for n in numbers]
        if with_manifest:
            lines += [known.get(f"{n}.pt") for n in numbers]
    order = fair_order(len(items))
    links = {f"{place}.pt": items[i] for place, i in enumerate(order.tolist())}
    if not with_manifest or any(line is None for line in lines):
        return links, None, report
    manifest = [rename(lines[i], place) for place, i in enumerate(order.tolist())]
    return links, manifest, report


def real(path):
    return os.path.realpath(path) if os.path.islink(path) else path


def lines_by_file(folder):
    """{file: its manifest line as text}."""
    path = Path(folder) / MANIFEST
    if not path.exists():
        return {}
    found = {}
    for text in path.read_text(encoding="utf-8").split("\n")[:-1]:
        # our own writer puts "file" first; parsing a hundred thousand lines of JSON for one word takes a second
        file = text.split('"', 4)[3] if text.startswith('{"file": "') else json.loads(text)["file"]
        found[file] = text
    return found


def rename(text, place):
    """A manifest line with its "file" replaced."""
    if text.startswith('{"file": "'):
        return f'{{"file": "{place}.pt"' + text[text.index('"', 10) + 1 :]
    return json.dumps({**json.loads(text), "file": f"{place}.pt"}, ensure_ascii=False, separators=(", ", ": "))


def plan_patches(sources):
    """As plan_pan_chips, for patch sets: an image and its mask keep their split and share a number."""
    items, report = [], {}
    for source in sources:
        lines, broken = [], 0
        for line in read_manifest(source):
            missing = [line[k] for k in ("file", "mask") if line.get(k) and not os.path.exists(Path(source) / line[k])]
            broken += bool(missing)
            if not missing:
                lines.append((os.path.realpath(source), line))
        report[str(source)] = {"linked": len(lines), "broken": broken, "foreign": 0, "unlisted": 0}
        items += lines
    links, manifest = {}, []
    for place, i in enumerate(fair_order(len(items)).tolist()):
        base, line = items[i]
        new = dict(line)
        for key, ending in (("file", "image"), ("mask", "mask")):
            if line.get(key):
                folder = os.path.dirname(line[key])
                new[key] = os.path.join(folder, f"{place}_{ending}{os.path.splitext(line[key])[1]}")
                links[new[key]] = real(os.path.join(base, line[key]))
        manifest.append(json.dumps(new, ensure_ascii=False, separators=(", ", ": ")))
    return links, manifest, report


def refuse_leaks(sources, allow_overlap, say):
    """
    UserError where ground that one set has for training is for validation or testing in another: scores would flatter.

    What shares ground within one set was allowed when that set was made.
    """
    grounds = {}  # "scene of source": (source, split, path of the image, outline, manifest lines)
    for source in sources:
        for (scene, split), lines in by_scene(read_manifest(source)).items():
            path = (lines[0].get("source") or {}).get("path")
            grounds[f"{scene} of {source}, {split}"] = str(source), split, path, outline_of(lines), lines
    names = sorted(grounds)

    def is_leak(i, j):
        return all(grounds[names[i]][k] != grounds[names[j]][k] for k in (0, 1))

    around = overlapping_pairs([grounds[name][3] for name in names])
    pairs = {(i, j) for i, j in around if is_leak(i, j) and patches_meet(grounds[names[i]][3:], grounds[names[j]][3:])}
    same = {}
    for i, name in enumerate(names):  # scenes without a place are the same where they are the same file
        if path := grounds[name][2]:
            pairs |= {(j, i) for j in same.setdefault(path, [])}
            same[path].append(i)
    found = [(names[i], names[j]) for i, j in sorted(pairs) if is_leak(i, j)]
    if not found:
        return
    more = f" and {len(found) - 3} more pairs" if len(found) > 3 else ""
    text = f"{'; '.join(f'{one} and {other}' for one, other in found[:3])}{more}"
    if not allow_overlap:
        raise UserError(f"scenes of different splits share ground: {text}; make the sets with the same --val and --test, "
                        "or pass --allow-overlap")
    say(f"scenes of different splits share ground, so scores will flatter: {text}")


def by_scene(lines):
    """{(scene, split): its manifest lines}."""
    found = {}
    for line in lines:
        found.setdefault((line.get("scene"), line.get("split")), []).append(line)
    return found


def outline_of(lines):
    """Outline of the rectangle around patches of one scene, or None where they don't say where they lie."""
    from rasterio.crs import CRS  # 0.3 s that links to pan/ms chips need not wait for

    if any(not line.get("crs") or not line.get("transform") or not line.get("window") for line in lines):
        return None
    left, top = (min(line["window"][k] for line in lines) for k in (0, 1))
    right, bottom = (max(line["window"][k] + line["window"][k + 2] for line in lines) for k in (0, 1))
    col, row = lines[0]["window"][:2]
    corner = window_transform(lines[0]["transform"], left - col, top - row)  # the first one's own grid begins at its own corner
    return outline(CRS.from_user_input(lines[0]["crs"]), corner, right - left, bottom - top)


def patches_meet(one, other):
    """
    Whether patches of two scenes share ground, each (outline_of its patches, their lines): where only some windows became patches, the
    rectangles around them may meet over ground that is in neither set.
    """
    same = one[0].crs == other[0].crs
    mine, theirs = (corners_of(lines, None if same else rectangle.crs) for rectangle, lines in (one, other))
    if mine is None or theirs is None:
        return True
    least = TOUCH * min(rectangle.pixel if same else rectangle.pixel_degrees for rectangle, _ in (one, other))
    turn = one[0].turn if same else 360.0
    for shift in {-turn, 0.0, turn}:
        moved = theirs + (shift, 0.0)
        low, high = moved.min(axis=1), moved.max(axis=1)
        for patch in mine:
            depth = np.minimum(patch.max(axis=0), high) - np.maximum(patch.min(axis=0), low)  # of boxes: at least that of what they hold
            if any(penetration(patch, moved[k]) > least for k in np.flatnonzero((depth > least).all(axis=1))):
                return True
    return False


def corners_of(lines, crs=None):
    """(N, 4, 2) corners of patches in their own CRS; in lon/lat where that one is named, or None where it does not lead there."""
    a, b, c, d, e, f = np.array([line["transform"][:6] for line in lines], float).T[:, :, None]
    columns, rows = np.array([(0, 1, 1, 0), (0, 0, 1, 1)])[:, None] * np.array([line["window"][2:] for line in lines]).T[:, :, None]
    corners = np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=2)
    if crs is None:
        return corners
    lonlat = to_lonlat(crs, corners.reshape(-1, 2))
    return None if lonlat is None else lonlat.reshape(-1, 4, 2)


def make_whole(destination, links, texts):
    """Make a folder under a hidden name beside the destination, and rename it when everything is in it."""
    require_writable(destination.parent)
    hidden = destination.with_name(f".{destination.name}.part")
    with locked(destination.with_name(f".{destination.name}.lock"), destination):
        shutil.rmtree(hidden, ignore_errors=True)  # of a run that was killed
        hidden.mkdir()
        try:
            fill(hidden, links, texts, overwrite=False)
            os.rename(hidden, destination)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise


@contextlib.contextmanager
def locked(path, folder):
    """Keep other runs of link-chips out of `folder` by the lock file `path`, which is gone afterwards."""
    with open(path, "a", encoding="utf-8") as file:
        lock(file, folder)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def fill(folder, links, texts, overwrite):
    """
    Make every link ({name: target}) and text ({name: text}) in a folder, or leave it as it was.

    overwrite: links of an earlier mix go, also those that this one does not need, and so do its manifest and description. UserError where
    they are in the way without it, and where chips are that link-chips did not make, with it or not.
    """
    there = links_there(folder, {os.path.dirname(name) for name in links})
    before = texts_there(folder)
    # links of an earlier, longer mix would stay behind as chips that nobody asked for
    others = [name for name, target in there.items() if links.get(name) != target]
    in_the_way = others + [name for name, content in before.items() if name not in texts or texts[name].encode() != content]
    if in_the_way and not overwrite:
        raise UserError(f"{folder / in_the_way[0]} exists already and is not of this mix ({len(in_the_way)} such); choose another folder, "
                        "or pass --overwrite")
    if there == links and not in_the_way and before.keys() == texts.keys():
        return
    made = [place for place in {os.path.dirname(name) for name in links} if not (folder / place).exists()]
    changed = []
    try:
        for place in made:
            require_writable(folder / place)
        change(folder, links, texts, there, before, changed)
    except BaseException:
        for name in dict.fromkeys(changed):
            put_back(folder / name, there.get(name), before.get(name))
        for place in made:
            with contextlib.suppress(OSError):
                os.rmdir(folder / place)
        raise


def change(folder, links, texts, there, before, changed):
    """From the links `there` and the texts `before` to `links` and `texts`. Each name is added to `changed` before it is touched."""
    for name in before:  # first: no moment shows a set that claims other chips than its own
        changed.append(name)
        os.unlink(folder / name)
    base = str(folder)
    for name, target in links.items():
        old = there.get(name)
        if old == target:
            continue
        changed.append(name)
        path = f"{base}/{name}"
        if old is not None:
            os.unlink(path)
        os.symlink(target, path)
    for name in there.keys() - links.keys():
        changed.append(name)
        os.unlink(folder / name)
    for name, text in texts.items():
        changed.append(name)
        write_bytes(folder / name, text.encode())


def links_there(folder, places):
    """{name: target} of the links called like chips in a folder and its `places`. UserError where such a name is a file."""
    found = {}
    for place in sorted({"", *SPLITS, *places}):
        if not (folder / place).is_dir():
            continue
        with os.scandir(folder / place) as entries:
            for entry in entries:
                if not LINK_NAME.fullmatch(entry.name):
                    continue
                if not entry.is_symlink():
                    raise UserError(f"{entry.path} is a file, not a link; link-chips never replaces files, choose another folder")
                found[os.path.join(place, entry.name)] = os.readlink(entry.path)
    return found


def texts_there(folder):
    """{name: bytes} of the description and the manifest that a folder has. UserError where link-chips did not make them."""
    if (folder / DESCRIPTION).exists() and "linked" not in (read_chipset(folder).get("settings") or {}):
        raise UserError(f"{folder} is a chip set that link-chips did not make; choose another folder")
    return {name: (folder / name).read_bytes() for name in (DESCRIPTION, MANIFEST) if os.path.lexists(folder / name)}


def put_back(path, target, content):
    """A link to `target`, a file with `content`, or nothing, as it was before."""
    path.unlink(missing_ok=True)
    if target is not None:
        os.symlink(target, path)
    elif content is not None:
        write_bytes(path, content)


def write_bytes(path, content):
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
