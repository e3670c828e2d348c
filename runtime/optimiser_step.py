"""One optimiser step of the global batch."""

import torch


def optimiser_step(model, optimizer, scaler, processes, *, samples=1, grad_clip=0.0, took_part=True):
    """
    Gradients added over the processes, unscaled, divided by `samples`, clipped to the norm `grad_clip` (0: not), then the step.

    took_part: False for a process that had no share of the batch; its gradients are zeros, since all processes take part in the sum.
    """
    parameters = list(model.parameters())
    if not took_part:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
    processes.add_gradients(parameters)
    scaler.unscale_(optimizer)
    if samples != 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= samples
    if grad_clip:
        torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
    scaler.step(optimizer)
    scaler.update()
