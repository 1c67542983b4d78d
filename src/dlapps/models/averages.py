"""The running average of a network's weights."""

import torch


def follow(average, network, decay):
    """Move the average's weights towards the network's, in place: decay of the old, the rest new.

    What is no weight, such as batch norm's averages, is taken over as it is (Tarvainen, Valpola:
    "Mean teachers are better role models", NeurIPS 2017).
    """
    with torch.no_grad():
        for mine, theirs in zip(average.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for mine, theirs in zip(average.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
