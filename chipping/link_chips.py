"""
link-chips: one folder of symbolic links to the chips of several, in an order of which every prefix mixes the sources proportionally.

No chip is opened: what is linked is what is called <integer>.pt and, where there is a manifest, listed in it. The order is that
of multiples of the golden ratio, so it depends on nothing but the sources as given and the chips in them.

The folder is built under a hidden name beside the destination and renamed when everything is in it. Of a folder that exists, what
link-chips did not make is kept.
"""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np

from chipping.chipset import (
    DESCRIPTION,
    MANIFEST,
    UNFINISHED,
    complete,
    find_chips,
    lock,
    read_chipset,
    read_manifest,
    unfinished_words,
)
from chipping.patch_set import SPLITS
from raster.crs import as_crs
from runtime.errors import UserError
from runtime.files import (
    describe_difference,
    open_own,
    parse_object,
    remove_tree,
    require_regular,
    require_writable,
    shorten,
    to_json,
    write_text,
)
from runtime.stop_signals import held, removed_on_stop
from vectors.footprint import TOUCH, any_overlap, outline, overlapping_pairs, to_lonlat, window_transform

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: no two items share a key
MUST_AGREE = ("kind", "chip_size", "bands", "ratio", "layers", "classes")
PATCHES_MUST_AGREE = ("divide_by", "offset", "nodata")  # pan/ms chips hold reflectance, whatever they were made of
LINK_NAME = re.compile(r"(0|[1-9][0-9]*)(\.pt|_(image|mask)\..+)")  # what a chip is called in a mix


def proportional_order(count):
    """(count,) indices, of which every prefix holds of each source its share: item i comes at the rank of i * GOLDEN mod 2^64."""
    return np.argsort(np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN), kind="stable")


def link_chips(sources, destination, overwrite=False, say=print, allow_overlap=False):
    """
    Make `destination` a folder of links to the chips of all sources. say(text) is called with what the mix cannot be used for.

    Returns {source: {"linked", "broken", "foreign", "unlisted"}}. UserError where a source is not a folder, sources cannot be mixed,
    nothing is found, a name is taken, or patches of one ground come into several splits (with allow_overlap that is only said).
    """
    destination = Path(destination)
    for source in sources:
        if not Path(source).is_dir():
            raise UserError(f"{source} is not a folder; expected a folder of chips")
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
        texts = {MANIFEST: "\n".join(manifest) + "\n", DESCRIPTION: to_json(description_of_mix(descriptions, settings))}
    make_folder(destination, links, texts, overwrite)
    for source, description in zip(sources, descriptions, strict=True):
        if words := unfinished_words(source, description or {}, report[str(source)]["linked"]):
            say(words)
    with_bands = [s for d, s in zip(descriptions, sources, strict=True) if d and d.get("store") in ("bands", "both")]
    only_oklab = [s for d, s in zip(descriptions, sources, strict=True) if d and d.get("store") == "oklab"]
    if with_bands and only_oklab:
        say(f"{only_oklab[0]} keeps only oklab, {with_bands[0]} bands: {destination} is good for --target oklab, not for --target bands")
    return report


def description_of_mix(descriptions, settings):
    """The content of the mix's chipset.json: what the first set says, but of what is kept only as much as every chip offers."""
    own = ("format", "version", "settings", "settings_hash", "store", "dtype", UNFINISHED)
    shared = {k: v for k, v in descriptions[0].items() if k not in own}
    stores = {d.get("store") for d in descriptions}
    if None not in stores:  # oklab can be had from bands, not the other way round
        shared["store"] = stores.pop() if len(stores) == 1 else "oklab" if "oklab" in stores else "bands"
    dtypes = {d.get("dtype") for d in descriptions}
    if None not in dtypes:
        shared["dtype"] = " and ".join(sorted(dtypes))
    return complete({**shared, "settings": settings})


def agree(descriptions, sources):
    """The descriptions, if the sets can be read as one."""
    known = [(d, s) for d, s in zip(descriptions, sources, strict=True) if d]
    for description, source in known[1:]:
        keys = (*MUST_AGREE, *(PATCHES_MUST_AGREE if description["kind"] == "patches" else ()))
        first, other = ({k: d.get(k) for k in keys} for d in (known[0][0], description))
        if first != other:
            raise UserError(f"{known[0][1]} and {source} cannot be mixed ({describe_difference(first, other)})")
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
    order = proportional_order(len(items))
    links = {f"{number}.pt": items[i] for number, i in enumerate(order.tolist())}
    if not with_manifest or any(line is None for line in lines):
        return links, None, report
    manifest = [rename(lines[i], number) for number, i in enumerate(order.tolist())]
    return links, manifest, report


def real(path):
    return os.path.realpath(path) if os.path.islink(path) else path


def lines_by_file(folder):
    """{file: its manifest line as text}."""
    path = Path(folder) / MANIFEST
    if not path.exists():
        return {}
    try:
        require_regular(path)
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected a file of JSON lines") from error
    found = {}
    for number, text in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            # our own writer puts "file" first; parsing a hundred thousand lines of JSON for one word takes a second
            whole = text.startswith(b'{"file": "') and text.endswith(b"}")
            file = text.decode("utf-8").split('"', 4)[3] if whole else parse_object(text)["file"]
            if not isinstance(file, str):
                raise ValueError(f"names {shorten(file)} as a file")
        except (ValueError, KeyError) as error:
            problem = f"lacks {error}" if isinstance(error, KeyError) else error
            raise UserError(f"{path}, line {number} {problem}; run the command that made {folder} again") from error
        found[file] = text.decode("utf-8")
    return found


def rename(text, number):
    """A manifest line with its "file" replaced."""
    if text.startswith('{"file": "'):
        return f'{{"file": "{number}.pt"' + text[text.index('"', 10) + 1 :]
    return json.dumps({**json.loads(text), "file": f"{number}.pt"}, ensure_ascii=False, separators=(", ", ": "))


def plan_patches(sources):
    """As plan_pan_chips, for patch sets: an image and its mask keep their split and share a number."""
    items, report = [], {}
    for source in sources:
        lines, broken = [], 0
        for line in read_manifest(source, ("file",)):
            missing = [line[k] for k in ("file", "mask") if line.get(k) and not os.path.exists(Path(source) / line[k])]
            broken += bool(missing)
            if not missing:
                lines.append((os.path.realpath(source), line))
        report[str(source)] = {"linked": len(lines), "broken": broken, "foreign": 0, "unlisted": 0}
        items += lines
    links, manifest = {}, []
    for number, i in enumerate(proportional_order(len(items)).tolist()):
        base, line = items[i]
        new = dict(line)
        for key, ending in (("file", "image"), ("mask", "mask")):
            if line.get(key):
                folder = os.path.dirname(line[key])
                new[key] = os.path.join(folder, f"{number}_{ending}{os.path.splitext(line[key])[1]}")
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

    around = overlapping_pairs([grounds[name][3] for name in names], [grounds[name][1] for name in names])
    pairs = {(i, j) for i, j in around.tolist() if is_leak(i, j) and patches_meet(grounds[names[i]][3:], grounds[names[j]][3:])}
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
        raise UserError(f"scenes of different splits share ground: {text}; make the sets with the same --val and --test")
    say(f"scenes of different splits share ground, so scores will flatter: {text}")


def by_scene(lines):
    """{(scene, split): its manifest lines}."""
    found = {}
    for line in lines:
        found.setdefault((line.get("scene"), line.get("split")), []).append(line)
    return found


def outline_of(lines):
    """Outline of the rectangle around patches of one scene, or None where they don't say where they lie."""
    if any(not line.get("crs") or not line.get("transform") or not line.get("window") for line in lines):
        return None
    left, top = (min(line["window"][k] for line in lines) for k in (0, 1))
    right, bottom = (max(line["window"][k] + line["window"][k + 2] for line in lines) for k in (0, 1))
    col, row = lines[0]["window"][:2]
    corner = window_transform(lines[0]["transform"], left - col, top - row)  # the first one's own grid begins at its own corner
    return outline(as_crs(lines[0]["crs"]), corner, right - left, bottom - top)


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
    return any_overlap(mine, theirs, least, one[0].turn if same else 360.0)


def corners_of(lines, crs=None):
    """(N, 4, 2) corners of patches in their own CRS; in lon/lat where that one is named, or None where it does not lead there."""
    a, b, c, d, e, f = np.array([line["transform"][:6] for line in lines], float).T[:, :, None]
    columns, rows = np.array([(0, 1, 1, 0), (0, 0, 1, 1)])[:, None] * np.array([line["window"][2:] for line in lines]).T[:, :, None]
    corners = np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=2)
    if crs is None:
        return corners
    lonlat = to_lonlat(crs, corners.reshape(-1, 2))
    return None if lonlat is None else lonlat.reshape(-1, 4, 2)


def make_folder(destination, links, texts, overwrite):
    """
    Make `destination` hold every link ({name: target}) and text ({name: text}); a folder that is so already stays untouched.

    It is replaced as a whole: killed at any moment, what has its name is the earlier folder or the new one. Between two renames it has
    neither name for a moment; then the next run finds the earlier one beside it.
    """
    destination = Path(os.path.realpath(destination)) if destination.is_dir() else destination
    if os.path.lexists(destination) and not (destination.is_dir() and os.access(destination, os.W_OK)):
        raise UserError(f"cannot write to {destination}: it is not a folder, or not writable; choose another folder")
    require_writable(destination.parent)
    hidden, earlier = (destination.with_name(f".{destination.name}{ending}") for ending in (".part", ".old.part"))
    with locked(destination.with_name(f".{destination.name}.lock"), destination):
        if earlier.exists() and not destination.exists():
            os.rename(earlier, destination)
        for leftover in (hidden, earlier):  # of a run that was killed
            remove_tree(leftover)
        made_before = read_earlier(destination, links, texts, overwrite)
        if made_before == {**links, **texts}:
            return
        hidden.mkdir()
        try:
            with removed_on_stop(hidden):
                build(hidden, links, texts)
                if destination.exists():
                    keep_others(destination, hidden, made_before)
                with held():
                    if destination.exists():
                        os.rename(destination, earlier)
                    os.rename(hidden, destination)
        except BaseException:
            if earlier.exists() and not destination.exists():
                os.rename(earlier, destination)
            raise
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


@contextlib.contextmanager
def locked(path, folder):
    """Keep other runs of link-chips out of `folder` by the lock file `path`, which is gone afterwards."""
    with open_own(path, "a", encoding="utf-8") as file:
        lock(file, folder)
        try:
            with removed_on_stop(path):
                yield
        finally:
            path.unlink(missing_ok=True)


def build(folder, links, texts):
    """Links and texts in an empty folder."""
    for place in {os.path.dirname(name) for name in links}:
        (folder / place).mkdir(parents=True, exist_ok=True)
    base = str(folder)
    for name, target in links.items():
        os.symlink(target, f"{base}/{name}")
    for name, text in texts.items():
        write_text(folder / name, text)


def keep_others(old, new, made_before):
    """Put what folder `old` holds beside `made_before` ({name: …}) into `new` too: files as hard links, or copies where there are none."""
    for place, folders, files in os.walk(old):
        for path in (Path(place) / name for name in folders + files):
            name = path.relative_to(old)
            if path.is_symlink():
                if str(name) not in made_before:
                    os.symlink(os.readlink(path), new / name)
            elif path.is_dir():
                (new / name).mkdir(exist_ok=True)
            elif str(name) not in made_before:
                try:
                    os.link(path, new / name)
                except OSError:
                    shutil.copy2(path, new / name)
    shutil.copystat(old, new)


def read_earlier(folder, links, texts, overwrite):
    """
    {name: target of a link, or text} of the mix that a folder holds; {} of none.

    UserError where it holds chips or a description that link-chips did not make, and without `overwrite` where the mix is another one.
    """
    if not folder.is_dir():
        return {}
    earlier, wanted = {**links_there(folder, {os.path.dirname(name) for name in links}), **texts_there(folder)}, {**links, **texts}
    others = [name for name, content in earlier.items() if wanted.get(name) != content]
    if others and not overwrite:
        raise UserError(f"{folder / others[0]} exists already and is not of this mix ({len(others)} such); choose another folder, "
                        "or pass --overwrite")
    return earlier


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
    """{name: text} of the description and the manifest that a folder has. UserError where link-chips did not make them."""
    if (folder / DESCRIPTION).exists() and "linked" not in (read_chipset(folder).get("settings") or {}):
        raise UserError(f"{folder} is a chip set that link-chips did not make; choose another folder")
    return {name: (folder / name).read_text(encoding="utf-8") for name in (DESCRIPTION, MANIFEST) if os.path.lexists(folder / name)}
