"""What a run tells about its scenes: before one is mapped, after it, and at the end."""

from classes import spoken
from mapping.inputs import sample_range
from mapping.summary import classes_of
from nets.model_config import answers_classes, answers_values

TOLD = 6  # classes of a map that its line names


def plan_words(plan, facts):
    """A line about how a scene is read. plan: SceneInput. facts: ModelFacts."""
    info = plan.info
    divisors, offsets = (", ".join(f"{v:g}" for v in dict.fromkeys(values)) for values in (plan.scale.divide_by, plan.scale.offset))
    scale = f"(value + {offsets}) / {divisors}" if any(plan.scale.offset) else f"value / {divisors}"
    found = f"bands {plan.matched} ({', '.join(map(str, plan.indexes))}), {scale} {plan.scaled}"
    if plan.product:
        clouds = f"clouds by its {plan.clouds.layer.form} layer are not mapped" if plan.clouds else (
            "clouds are mapped too" if plan.product.clouds else f"clouds are mapped too: {plan.product.no_clouds}")
        found = "; ".join([f"{plan.product.words}, {found}", clouds, *plan.product.remarks])
    if plan.days:
        found = f"dates {', '.join(plan.days)}; {found}"
    return f"{info.width} × {info.height}, {found}{f'; {plan.alpha}' if plan.alpha else ''}"


def reflectance_table(plan, facts):
    """Lines: a sample's reflectance of each band, beside the mean of the training images where that is known. None without a sample."""
    sample = sample_range(plan) if plan.sample is None else plan.sample
    if sample is None:
        return []
    means = [None] * len(facts.bands) if facts.mean is None else facts.mean
    wide = max(len("reflectance"), *map(len, facts.bands))
    lines = [f"  {'reflectance':{wide}}   least  median    most{'  training' if facts.mean is not None else ''}"]
    for band, low, middle, high, usual in zip(facts.bands, *sample, means, strict=True):
        lines.append(f"  {band:{wide}} {low:7.4f} {middle:7.4f} {high:7.4f}{f' {usual:9.4f}' if usual is not None else ''}")
    return lines


def decision_words(threshold, given, classes, task="segmentation"):
    """How a map is decided. threshold: see decide_classes; given: by the user, else by the checkpoint; classes: their names."""
    if answers_values(task):
        return f"each pixel gets its {spoken(classes[0])}"
    if not answers_classes(task):
        several = f"each label that reaches {threshold:.2f}" if threshold is not None else "its most likely label"
        return f"each tile gets {several}"
    if threshold is None:
        return "each pixel gets its most likely class"
    what = classes[1] if len(classes) == 2 else f"a class other than {classes[0]}"
    return f"a pixel is {what} from probability {threshold:.2f} on ({'--threshold' if given else 'chosen on validation'})"


def tell_record(console, record, said):
    """A line about a finished scene; remarks that hold for many scenes (no CRS) only once. said: set of those told already."""
    if record["valid_fraction"] == 0:
        console.say(f"  {record['scene']}: no valid pixel")
    else:
        console.say(f"  {record['scene']}: {mapped_words(record)}")
    tell_faults(console, record["scene"], record, said)


def tell_faults(console, name, record, said):
    """Lines about what could not be read of a finished scene or image, and its remarks."""
    for block in record["unreadable"]:
        where = f"row {block['row']}, column {block['column']} ({block['height']} × {block['width']} pixels)"
        console.warn(f"{record['source']}: can't be read at {where}, left out ({block['reason']})")
    for remark in record["remarks"]:
        if remark not in said:
            said.add(remark)
            console.say(f"  {name}: {remark}")


def mapped_words(record):
    """What a map shows: `48.8 % water, 502.8 ha, 12 polygons`; `no water; …`; of several classes the largest with their areas."""
    if not record["valid_fraction"]:
        return "no valid pixel"
    if record.get("mean") is not None:
        name, numbers = next(iter(record["classes"].items()))
        area = f", {numbers['hectares']:,.1f} ha" if numbers["hectares"] is not None else ""
        return f"{name} {record['mean']:.4g} on average, from {record['least']:.4g} to {record['most']:.4g}{area}"
    if "label" in record:
        chance = f" ({record['probability']:.2f})" if record["label"] else ""
        return f"{record['label'] or 'none of the labels'}{chance}; tiles: {several_words(record)}"
    classes, key = classes_of(record), classes_of(record).key
    outlines = f", {record['polygons']} polygon{'s' if record['polygons'] != 1 else ''}" if record["polygons"] is not None else ""
    if key and not record[f"has_{key}"]:
        return f"no {classes.word}; highest probability {record[f'{key}_confidence']:.2f}"
    if key:
        area = record[classes.area_key]
        span = [record[name] for name in (f"least_{classes.area_key}", f"most_{classes.area_key}") if name in record]
        span = f" (all networks {span[0]:,.1f}, any of them {span[1]:,.1f})" if span else ""
        return f"{100 * record[f'{key}_fraction']:.1f} % {classes.mapped}{f', {area:,.1f} ha{span}' if area is not None else ''}{outlines}"
    return f"{several_words(record)}{outlines}"


def several_words(record):
    """The largest of several classes with their areas."""
    classes = classes_of(record)
    found = [(name, record["classes"][name]) for name in classes.names[classes.first :] if record["classes"][name]["pixels"]]
    if not found:
        return "none of them" if classes.each else f"nothing but {spoken(classes.names[0])}"
    found.sort(key=lambda pair: -pair[1]["pixels"])
    valid, words = sum(numbers["pixels"] for numbers in record["classes"].values()), []  # of labels that overlap see "fraction"
    for name, numbers in found[:TOLD]:
        area = f" ({numbers['hectares']:,.1f} ha)" if numbers["hectares"] is not None else ""
        share = numbers["fraction"] if classes.each else numbers["pixels"] / valid
        words.append(f"{spoken(name)} {100 * share:.1f} %{area}")
    more = f", {len(found) - TOLD} more" if len(found) > TOLD else ""
    return f"{', '.join(words)}{more}"


def conclude(records, failures, output_dir):
    """
    (the last line, the exit code): 0; 1 where some scenes failed; 2 where all of them did, for what the user can change.

    records: {name: record}. failures: {name: (kind of error, text)}.
    """
    return last_line(f"mapped {len(records)} of {len(records) + len(failures)} into {output_dir}", records, failures)


def last_line(line, records, failures, further=()):
    """
    (`line` with the names of those that were damaged, outside or failed; the exit code): see conclude. further: (words, names) that are
    named too.
    """
    outside = [name for name, (kind, _) in failures.items() if kind == "OutsideArea"]
    failed = [name for name in failures if name not in outside]
    damaged = [name for name, record in records.items() if record["unreadable_blocks"]]
    for words, names in (("with unreadable blocks", damaged), *further, ("outside the area", outside), ("failed", failed)):
        line += f"; {words}: {', '.join(names)}" if names else ""
    if not failed:
        return line, 0
    return line, 2 if not records and all(failures[name][0] == "UserError" for name in failed) else 1
