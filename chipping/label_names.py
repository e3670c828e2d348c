"""Classes by name: those of a data set, renamed, dropped or ignored by --label-map."""

from dataclasses import dataclass

from runtime.errors import UserError, did_you_mean

DROP, IGNORE = "drop", "ignore"


def parse_label_map(text):
    """`unknown=drop,Dead=Tree` → {"unknown": "drop", "Dead": "Tree"}; None → {}; a dict stays. The last = of an entry separates."""
    if not text or isinstance(text, dict):
        return dict(text or {})
    found = {}
    for entry in str(text).split(","):
        name, equals, target = (word.strip() for word in entry.rpartition("="))
        if not equals or not name or not target:
            raise UserError(f"--label-map {entry.strip()!r}: expected NAME=CLASS, NAME=drop or NAME=ignore, separated by commas")
        if found.setdefault(name, target) != target:
            raise UserError(f"--label-map names {name!r} twice; name it once")
    return found


@dataclass(frozen=True)
class LabelNames:
    """classes: names, the labels 1 … K. targets: {name in the annotations: label, 0 for ignore, None for drop}."""

    classes: tuple
    targets: dict


def decide_labels(names, label_map, classes=None, where="the annotations", note=lambda text: None):
    """
    LabelNames of the names that boxes of the annotations have, in their order.

    label_map: {name: class, "drop" or "ignore"}. classes: those that are wanted (of a training or a checkpoint), or None for all that the
    annotations have. UserError for a name of label_map that is a misspelling of one that is there, and for a class beyond `classes`.
    """
    for name in label_map:
        if name not in names:
            hint = did_you_mean(name, [n for n in names if n not in label_map])
            if hint:
                raise UserError(f"--label-map: {where} has no class {name!r}.{hint}")
            note(f"--label-map: {where} has no class {name!r}")
    targets = {name: label_map.get(name, name) for name in names}
    found = tuple(dict.fromkeys(target for target in targets.values() if target not in (DROP, IGNORE)))
    if classes is None:
        classes = found
        if not classes:
            left = " that --label-map leaves" if names else ""
            raise UserError(f"{where} has no box of a class{left}; expected one at least")
    elif beyond := [name for name in found if name not in classes]:
        sources = [name for name, target in targets.items() if target == beyond[0]]
        raise UserError(f"{where} has boxes of class {beyond[0]!r}, which is none of {', '.join(classes)}; "
                        f"pass --label-map {sources[0]}=drop, =ignore or =CLASS")
    labels = {name: number for number, name in enumerate(classes, start=1)} | {DROP: None, IGNORE: 0}
    return LabelNames(tuple(classes), {name: labels[target] for name, target in targets.items()})
