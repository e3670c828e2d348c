"""A detector with what trains it."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """average: of the model's weights (runtime/averaged_weights.py), what is validated and used."""

    model: object
    average: object
    optimizer: object
    scaler: object
    compute: object
    processes: object
