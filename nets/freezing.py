"""Freezes parts of a network: no gradients, and eval mode, so that statistics of batch normalisation stay too."""


def freeze(module, frozen=True):
    """
    Stop the training of a part, or allow it again: of the weights that were trained before. A network with such parts calls rest_in_eval()
    in its train().
    """
    if getattr(module, "frozen", False) == frozen:
        return
    if frozen:
        module.stopped = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in module.stopped:
        parameter.requires_grad_(not frozen)
    module.frozen = frozen
    module.train(not frozen)


def rest_in_eval(network):
    """Put the frozen parts of a network back into eval mode."""
    for module in network.modules():
        if getattr(module, "frozen", False):
            module.eval()
