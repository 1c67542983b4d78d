"""What tests of several trainings share."""

import pytest
import torch

from dlapps import runtime, training

# What tests compare on a GPU has the precision of float32, as in the notebooks.
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@pytest.fixture
def interrupted_twice(monkeypatch):
    """Return a function that stops a training after its first and third step, then lets it end.

    `make()` returns what is trained, anew each time, as in another process, and `train(it)` trains
    it with a checkpoint. Returned are the last one and what its training returned.
    """

    def interrupt(make, train):
        progress = runtime.progress

        def stopping(*arguments, steps, **options):
            bar = progress(*arguments, **options)
            update, left = bar.update, [steps]

            def stop(count=1):
                update(count)
                left[0] -= count
                if left[0] <= 0:
                    raise KeyboardInterrupt

            bar.update = stop
            return bar

        monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0)
        for steps in (2, 3):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(
                    runtime, "progress", lambda *a, n=steps, **o: stopping(*a, steps=n, **o)
                )
                train(make())
        last = make()
        return last, train(last)

    return interrupt
