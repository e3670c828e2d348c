"""Which scene is for training, which for validation, which for testing."""

import random
from dataclasses import dataclass

import numpy as np

from runtime.errors import UserError, did_you_mean
from vectors.footprint import overlapping_pairs, shared_grounds


def event_of(scene):
    """What happened there: the first underscore-delimited part of the scene's name. DOVE_20241019 → DOVE, EMSR382_AOI01_01 → EMSR382."""
    return scene.split("_", 1)[0]


def matches(scene, name):
    """A name stands for the scene itself, or for every scene whose leading underscore-delimited parts it is."""
    return scene == name or scene.startswith(name + "_")


def select(scenes, names, flag):
    """The scenes that the names stand for. A name that stands for none is an error."""
    chosen = set()
    for name in names:
        found = {s for s in scenes if matches(s, name)}
        if not found:
            known = sorted({*scenes, *(event_of(s) for s in scenes)})
            hint = did_you_mean(name, known) or f" Scenes are {', '.join(sorted(scenes)[:3])}{' …' if len(scenes) > 3 else ''}."
            raise UserError(f"{flag} {name!r} matches no scene.{hint}")
        chosen |= found
    return chosen


def parse_names(text, flag, expected="names separated by commas"):
    """`DOVE,CANAL` → ["DOVE", "CANAL"], None → []."""
    if not text:
        return []
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(f"{flag} {text!r} has an empty name; expected {expected}")
    return names


def parse_share_or_names(text, flag, scenes=()):
    """`0.2` → 0.2, `DOVE,CANAL` → ["DOVE", "CANAL"], None → []. A number that stands for one of `scenes` is its name."""
    names = parse_names(text, flag, "names separated by commas, or a share such as 0.2")
    try:
        share = float(text or "none")
    except ValueError:
        return names
    if any(matches(scene, names[0]) for scene in scenes):
        return names
    if not 0 < share < 1:
        raise UserError(f"{flag} expects a share between 0 and 1 or names separated by commas, got {text}")
    return share


def ground_groups(names, outlines, split_by, events=None):
    """
    Lists of scenes that must stay together, sorted: those of one event (or just each scene), joined where they share ground.

    names: scenes, sorted. outlines: {scene: Outline or None}. events: {scene: event} of those whose names do not begin with it.
    """
    events = events or {}
    parent = {name: name for name in names}

    def root(name):
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    first = {}
    for name, ground in zip(names, shared_grounds([outlines[name] for name in names]).tolist(), strict=True):
        for key in (("ground", ground), *([("event", events.get(name) or event_of(name))] if split_by == "event" else [])):
            parent[root(name)] = root(first.setdefault(key, name))
    groups = {}
    for name in names:
        groups.setdefault(root(name), []).append(name)
    return sorted(groups.values())


def assign(scenes, outlines, val=(), test=(), split_by="event", seed=0, given=None, events=None):
    """
    {scene: "train" | "val" | "test"}.

    scenes: names. outlines: {scene: Outline or None}. val, test: lists of names, or a share 0..1 of the scenes that is drawn with `seed` in
    whole events (or scenes), neighbours that share ground kept together. given: {scene: split} of a data set that comes in split folders.
    events: of ground_groups.
    """
    if given:
        return dict(given)
    split = {}
    for flag, wanted in (("--val", val), ("--test", test)):
        if isinstance(wanted, list) and wanted:
            for scene in select(scenes, wanted, flag):
                if scene in split:
                    raise UserError(f"{scene} is in both --val and --test; name it in one of them")
                split[scene] = flag.removeprefix("--")
    shares = [(name, share) for name, share in (("val", val), ("test", test)) if isinstance(share, float)]
    if sum(share for _, share in shares) >= 1:
        raise UserError(f"--val {val} and --test {test} leave nothing for training; pass shares whose sum is below 1")
    if shares:
        groups = ground_groups(sorted(scene for scene in scenes if scene not in split), outlines, split_by, events)
        if len(groups) <= len(shares):
            raise UserError(
                f"a share for {' and '.join('--' + n for n, _ in shares)} needs at least {len(shares) + 1} {split_by}s apart, "
                f"found {len(groups)}; pass more scenes, or name scenes instead"
            )
        random.Random(seed).shuffle(groups)
        total = sum(map(len, groups))
        for number, (name, share) in enumerate(shares):
            taken = 0
            # One group at least, and one left for each of those that come after; then as long as it comes nearer to the share.
            while len(groups) > len(shares) - number and (not taken or taken + len(groups[-1]) / 2 <= share * total):
                group = groups.pop()
                taken += len(group)
                split.update(dict.fromkeys(group, name))
    split = {scene: split.get(scene, "train") for scene in scenes}
    if "train" not in split.values():
        raise UserError("no scene is left for training; name fewer in --val and --test")
    return split


@dataclass(frozen=True, eq=False)
class Leaks:
    """Pairs of scenes in different splits that share ground. names: scenes. split: {scene: split}. pairs: (K, 2) indices of names."""

    names: list
    split: dict
    pairs: np.ndarray

    def __len__(self):
        return len(self.pairs)

    def first(self, most):
        """[(scene, its split, scene, its split)] of at most so many pairs."""
        return [tuple(word for k in pair for word in (self.names[k], self.split[self.names[k]])) for pair in self.pairs[:most].tolist()]


def leaks(split, outlines):
    """Leaks of {scene: split}. outlines: {scene: Outline or None}."""
    names = sorted(split)
    return Leaks(names, split, overlapping_pairs([outlines[n] for n in names], [split[n] for n in names]))


def describe_leaks(found, most=5):
    words = [f"{a} ({sa}) and {b} ({sb})" for a, sa, b, sb in found.first(most)]
    more = f" and {len(found) - most} more pairs" if len(found) > most else ""
    return f"{'; '.join(words)}{more}"
