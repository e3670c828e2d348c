"""link-chips: one folder of symbolic links to the chips of several, in an order of which any beginning is a fair mix.

No chip is opened: what is linked is what is called <integer>.pt (or, for patch sets, what the manifest lists). The order is that
of multiples of the golden ratio, so it depends on nothing but the sources as given and the chips in them.
"""

import json
import os
from pathlib import Path

import numpy as np

from chipping.chipset import DESCRIPTION, FORMAT, MANIFEST, read_chipset, read_manifest
from constants import VERSION
from runtime.errors import UserError
from runtime.files import describe_difference, settings_hash, write_json, write_text

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: no two items share a key
MUST_AGREE = ("kind", "chip_size", "bands", "ratio", "layers", "classes")
PATCHES_MUST_AGREE = ("divide_by", "offset", "nodata")  # pan/ms chips hold reflectance, whatever they were made of


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


def link_chips(sources, destination, overwrite=False):
    """
    Fill `destination` with links to the chips of all sources. All or nothing.

    Returns {source: {"linked", "broken", "foreign"}}. UserError where a source is no folder, sources can't be mixed, nothing is
    found, or a name is taken.
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
        links, manifest, report = plan_patches(sources)
    else:
        links, manifest, report = plan_pan_chips(sources, with_manifest=all(descriptions))
    if not links:
        raise UserError(f"no chips in {', '.join(map(str, sources))}; expected files 0.pt, 1.pt …")
    make_links(destination, links, overwrite)
    if manifest is not None:
        settings = {"linked": [{"from": str(s), "chips": report[str(s)]["linked"]} for s in sources]}
        shared = {k: v for k, v in descriptions[0].items() if k not in ("format", "version", "settings", "settings_hash")}
        write_text(destination / MANIFEST, "\n".join(manifest) + "\n")
        write_json(destination / DESCRIPTION, {
            "format": FORMAT, "version": VERSION, **shared, "settings": settings, "settings_hash": settings_hash(settings)})  # fmt: skip
    return report


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
        report[str(source)] = {"linked": len(numbers), "broken": broken, "foreign": foreign}
        base = os.path.realpath(source)
        # a link to a link would break when the middle one goes
        items += [real(os.path.join(base, f"{n}.pt")) for n in numbers]
        if with_manifest:
            known = lines_by_file(source)
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
        report[str(source)] = {"linked": len(lines), "broken": broken, "foreign": 0}
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


def make_links(destination, links, overwrite):
    """Create every link or none. overwrite: links that are there go first; anything but a link is never touched."""
    existing = {}
    for folder in sorted({os.path.dirname(name) for name in links}):
        place = destination / folder
        if place.is_dir():
            with os.scandir(place) as entries:
                existing |= {os.path.join(folder, e.name): e.is_symlink() for e in entries}
    taken = [name for name in links if name in existing]
    if taken and not overwrite:
        raise UserError(f"{destination / taken[0]} exists already ({len(taken)} are taken); choose another folder, or pass --overwrite")
    solid = [name for name in taken if not existing[name]]
    if solid:
        raise UserError(f"{destination / solid[0]} is a file, not a link; --overwrite replaces links only")
    suffixes = {os.path.splitext(name)[1] for name in links}
    # links of an earlier, longer mix would stay behind as chips that nobody asked for
    stale = [name for name, is_link in existing.items() if is_link and os.path.splitext(name)[1] in suffixes] if overwrite else []
    made = []
    try:
        for folder in {os.path.dirname(name) for name in links}:
            (destination / folder).mkdir(parents=True, exist_ok=True)
        for name in stale:
            os.unlink(destination / name)
        base = str(destination)
        for name, target in links.items():
            path = f"{base}/{name}"
            os.symlink(target, path)
            made.append(path)
    except BaseException:
        for path in made:
            os.unlink(path)
        raise
