"""A pretend CUDA graph: it records operators and runs them again on the same tensors.

What a real graph would not notice, it does not either: Python between the operators, numbers that
were read, tensors that are made anew in each step. So a training that is replayed ends with the
numbers of one that is not only if all that changes lies in tensors.
"""

from contextlib import contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dlapps import training


class PretendGraph(TorchDispatchMode):
    """Stands for `torch.cuda.CUDAGraph`; as a context it captures, as `torch.cuda.graph` does."""

    def __init__(self):
        super().__init__()
        self.calls, self.before, self.replays = [], {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # Batch norm changes its averages without a word in its schema: all inputs are kept.
        for storage in (x.untyped_storage() for x in _tensors((args, kwargs))):
            if storage.data_ptr() not in self.before:
                self.before[storage.data_ptr()] = storage, storage.clone()
        result = function(*args, **kwargs)
        self.calls.append((function, args, kwargs, result))
        return result

    def __enter__(self):
        self.random_state = torch.get_rng_state()
        return super().__enter__()

    def __exit__(self, *error):
        """Take back what was computed: a capture computes nothing."""
        super().__exit__(*error)
        for storage, values in self.before.values():
            storage.copy_(values)
        self.before = {}
        torch.set_rng_state(self.random_state)

    def replay(self):
        self.replays += 1
        with torch.no_grad():
            for function, args, kwargs, result in self.calls:
                again = function(*args, **kwargs)
                for old, new in zip(_tensors(result), _tensors(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def _tensors(values):
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


@contextmanager
def pretend_graphs():
    """Let trainings on the CPU capture and replay their steps; yield the list of the graphs."""
    graphs, init = [], training._StepRunner.__init__

    def capturing(runner, *arguments):
        init(runner, *arguments)
        runner.captures, runner.at_once = True, training.LOOK_EVERY

    def graph():
        graphs.append(PretendGraph())
        return graphs[-1]

    with (
        mock.patch.object(training._StepRunner, "__init__", capturing),
        mock.patch.object(training._StepRunner, "_warm_up", lambda runner: runner.advance()),
        mock.patch("torch.cuda.CUDAGraph", graph),
        mock.patch("torch.cuda.graph", lambda graph: graph),
    ):
        yield graphs
