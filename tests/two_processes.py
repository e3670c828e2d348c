"""One training step and one validation as train.py does them, for test_train_torchrun.py: alone, or under torchrun as one of several."""

import sys

import torch

import train
from dataset import WildfireDataModule, band_statistics
from losses import CombinedLoss
from metrics import CombinedMetrics
from model import create_segmentation_model
from runtime import distributed
from runtime.device import Compute, gradient_scaler
from runtime.errors import leave
from runtime.settings import group_of
from runtime.unreadable import Unreadable


def step_and_validate(patches, processes, accumulate=1):
    """→ {"gradients", "weights" and running statistics after the step, "losses", "train": counts, "val": scores before the step}."""
    cpu = torch.device("cpu")
    torch.manual_seed(0)
    data = WildfireDataModule(patches, batch_size=6, num_workers=0, processes=processes)
    data.setup()
    mean, std = band_statistics(data.patch_set, data.train.patches)
    model = create_segmentation_model(architecture="smallunet", encoder_weights=None, mean=mean, std=std)
    # Rounding can tip a pixel over the kink of a ReLU or to another maximum, and its gradient jumps; smooth parts show the
    # arithmetic alone.
    for block in [*model.network.down, *model.network.up]:
        block[2], block[5] = torch.nn.SiLU(), torch.nn.SiLU()
    model.network.pool = torch.nn.AvgPool2d(2)
    model = distributed.share_batch_statistics(model, processes)
    criterion = CombinedLoss([1.0, 3.0], reduce=processes.sum_with_gradient)
    metrics = CombinedMetrics(2)
    train.import_libraries()
    options = group_of(train.Options, train.build_parser().parse_args(["--accumulate", str(accumulate)]))
    learner = train.Learner(model=model, network=model, criterion=criterion, optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                            scaler=gradient_scaler(cpu, "fp32"), compute=Compute(device=cpu), processes=processes)
    val, threshold = train.validate(learner, data, options, Unreadable("patches", patches, len(data.val), strict=True))
    model.train()
    batch, draws = next(data.training_batches(0))
    losses, prediction, target = train.train_step(learner, batch, draws, 0, options, data.patch_set)
    metrics.update(prediction, target)
    return {
        "gradients": {name: p.grad for name, p in model.named_parameters()}, "state": model.state_dict(), "losses": losses, "val": val,
        "train": {name: processes.sum(t) for name, t in metrics.tensors().items()}, "patches": len(target),
    }


if __name__ == "__main__":
    patches, output = sys.argv[1:]
    with distributed.start("cpu") as processes:
        result = step_and_validate(patches, processes)
        result["gathered"] = processes.gather(processes.rank)
        result["highest"] = processes.highest(processes.rank * 2)
        if processes.is_first:
            torch.save(result, output)
    leave(0)
