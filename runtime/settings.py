"""Settings of an earlier run: adopted from its checkpoint, refused where they would change the network's shape."""

import dataclasses

from runtime.errors import UserError


def adopt_settings(args, given, saved, *, run_flags, shape_flags, shape_only=False):
    """
    Give every flag that the user did not set the value that it had in the checkpoint's run.

    args: parsed flags, changed in place. given: names that the user set. saved: checkpoint["settings"]. run_flags: what a run is asked to
    do, never adopted. shape_flags: what decides the network's shape, always adopted; UserError where the user set another value.
    shape_only: adopt nothing but these.
    """
    for name, value in saved.items():
        if name in run_flags or not hasattr(args, name):
            continue
        if name in shape_flags and name in given and getattr(args, name) != value:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} {getattr(args, name)} disagrees with the checkpoint, which has {value or 'none'}; leave --{flag} "
                            "out")
        if name in shape_flags or (name not in given and not shape_only):
            setattr(args, name, value)


def settings_of(args, run_flags):
    """{flag: value} that a checkpoint keeps: everything but what a run is asked to do."""
    return {name: value for name, value in vars(args).items() if name not in run_flags}


def group_of(kind, args):
    """An instance of the dataclass `kind`, each field from the flag of its name."""
    return kind(**{field.name: getattr(args, field.name) for field in dataclasses.fields(kind)})
