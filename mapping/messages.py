"""What a run tells about its scenes: before one is mapped, after it, and at the end."""

from mapping.inputs import sample_range


def plan_words(plan, facts):
    """A line about how a scene is read. plan: SceneInput. facts: ModelFacts."""
    info, seen = plan.info, reflectance_words(plan, facts.bands, facts.mean)
    divisors, offsets = (", ".join(f"{v:g}" for v in dict.fromkeys(values)) for values in (plan.scale.divide_by, plan.scale.offset))
    scale = f"(value + {offsets}) / {divisors}" if any(plan.scale.offset) else f"value / {divisors}"
    found = f"bands {plan.matched} ({', '.join(map(str, plan.indexes))}), {scale} {plan.scaled}"
    return f"{info.width} × {info.height}, {found}{f'; {plan.alpha}' if plan.alpha else ''}{f'; {seen}' if seen else ''}"


def reflectance_words(plan, bands, mean):
    """A sample's reflectance of each band, beside the mean of the training images where that is known; "" without a sample."""
    sample = sample_range(plan) if plan.sample is None else plan.sample
    if sample is None:
        return ""
    means = [None] * len(bands) if mean is None else mean
    words = (f"{band} {low:.3g}/{middle:.3g}/{high:.3g}" + (f" ({usual:.3g})" if usual is not None else "")
             for band, low, middle, high, usual in zip(bands, *sample, means, strict=True))
    return "reflectance, least/median/most" + (" (training)" if mean is not None else "") + f": {', '.join(words)}"


def tell_record(console, record, said):
    """A line about a finished scene; remarks that hold for many scenes (no CRS) only once. said: set of those told already."""
    if record["valid_fraction"] == 0:
        console.say(f"  {record['scene']}: no valid pixel")
    elif not record["has_fire"]:
        console.say(f"  {record['scene']}: no fire; highest probability {record['fire_confidence']:.2f}")
    else:
        burned = record["burned_hectares"]
        area = f", {burned:,.1f} ha" if burned is not None else ""
        outlines = f", {record['polygons']} polygon{'s' if record['polygons'] != 1 else ''}" if record["polygons"] is not None else ""
        console.say(f"  {record['scene']}: {100 * record['fire_fraction']:.1f} % burned{area}{outlines}")
    for block in record["unreadable"]:
        where = f"row {block['row']}, column {block['column']} ({block['height']} × {block['width']} pixels)"
        console.warn(f"{record['source']}: can't be read at {where}, left out ({block['reason']})")
    for remark in record["remarks"]:
        if remark not in said:
            said.add(remark)
            console.say(f"  {record['scene']}: {remark}")


def conclude(records, failures, output_dir):
    """
    (the last line, the exit code): 0; 1 where some scenes failed; 2 where all of them did, for what the user can change.

    records: {name: record}. failures: {name: (kind of error, text)}.
    """
    outside = [name for name, (kind, _) in failures.items() if kind == "OutsideArea"]
    failed = [name for name in failures if name not in outside]
    damaged = [name for name, record in records.items() if record["unreadable_blocks"]]
    line = f"mapped {len(records)} of {len(records) + len(failures)} into {output_dir}"
    for words, names in (("with unreadable blocks", damaged), ("outside the area", outside), ("failed", failed)):
        line += f"; {words}: {', '.join(names)}" if names else ""
    if not failed:
        return line, 0
    return line, 2 if not records and all(failures[name][0] == "UserError" for name in failed) else 1
