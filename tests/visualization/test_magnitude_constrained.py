"""Class images of fixed magnitudes: what is fixed, one step by hand, what a call depends on."""

import numpy as np
import pytest
import torch
from test_class_images import Small, random_images

from dlapps.visualization import class_images
from dlapps.visualization import magnitude_constrained as constrained


def photographs(count=3, size=20):
    return [(255 * image).to(torch.uint8) for image in random_images(count, size).float()]


def magnitude(size=12):
    return constrained.mean_magnitude(photographs(), size).double()


def spectra(images):
    """Return the spectra of images (N, 3, S, S), taken back to planes of uncorrelated colours."""
    logits = np.log(images / (1 - images))
    planes = np.einsum("kc,nchw->nkhw", np.linalg.inv(constrained.colours().numpy()), logits)
    return np.fft.rfft2(planes)


def test_the_mean_magnitude_of_one_photograph_is_its_own():
    photograph = photographs(1, 12)[0]
    found = constrained.mean_magnitude([photograph], 12)
    pixels = (photograph / 255).double().clamp(0.02, 0.98).numpy()[None]
    expected = np.abs(spectra(pixels))[0]
    expected[:, 0, 0] = 0
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)
    several = photographs()
    each = [constrained.mean_magnitude([one], 12) for one in several]
    torch.testing.assert_close(constrained.mean_magnitude(several, 12), sum(each) / 3)


def test_the_centre_square_of_grey_photographs_counts():
    wide = torch.zeros(1, 10, 30, dtype=torch.uint8)
    wide[..., 10:20] = (255 * random_images(1, 10)[0, :1]).to(torch.uint8)
    square = wide[..., 10:20].expand(3, -1, -1)
    found = constrained.mean_magnitude([wide], 10)
    torch.testing.assert_close(found, constrained.mean_magnitude([square], 10))


def test_an_image_has_the_magnitudes_it_was_given():
    r = magnitude(13)  # of an odd side no frequency is its own mirror but 0
    phase = torch.randn(2, *r.shape, generator=torch.Generator().manual_seed(0)).double()
    phase[..., 0] = 0  # the rows of frequency 0 mirror each other: other phases contradict
    found = spectra(constrained.image_of(phase, r).numpy())[..., 1:]
    r, phase = r.numpy()[None, ..., 1:], phase.numpy()[..., 1:]
    np.testing.assert_allclose(np.abs(found), np.broadcast_to(r, found.shape), rtol=1e-5)
    np.testing.assert_allclose(np.exp(1j * phase), found / r, atol=1e-5)


def test_magnitudes_stay_while_the_score_climbs():
    network, r = Small(), magnitude(13)
    result = constrained.maximise_phase(
        network, [0, 3], r, iterations=60, sides=(1, 1), noise=1e-6, snapshots_at=[0, 60]
    )
    assert result.images.shape == (2, 3, 13, 13) and result.scores.shape == (60, 2)
    assert (result.scores[-1] > result.scores[0] + 0.1).all()
    before, after = (np.abs(spectra(x.numpy()))[..., 1:] for x in result.snapshots)
    np.testing.assert_allclose(before, after, rtol=1e-5)
    assert torch.equal(result.snapshots[1], result.images)


def test_the_first_step_goes_along_the_sign_of_the_gradient():
    network, r, rate = Small(), magnitude(), 0.01
    options = {"sides": (1, 1), "noise": 1e-9, "learning_rate": rate, "seed": 5}
    found = constrained.maximise_phase(network, [2], r, iterations=1, **options)
    # Adam's first step is its rate in each number, with Nesterov's factor.
    phase = torch.randn(1, *r.shape, generator=torch.Generator().manual_seed(5)).double()
    phase.requires_grad_()
    network(constrained.image_of(phase, r))[0, 2].backward()
    step = found.images - constrained.image_of(phase, r).detach()
    moved = constrained.image_of(phase.detach() + 1e-4 * phase.grad.sign(), r)
    along = moved - constrained.image_of(phase, r).detach()
    assert torch.corrcoef(torch.stack([step.flatten(), along.flatten()]))[0, 1] > 0.99


def test_seed_and_class_decide_and_nothing_else():
    network, r, options = Small(), magnitude(16), {"iterations": 5, "crops": 3, "seed": 3}
    first, again, other = (
        constrained.maximise_phase(network, [0, 1], r, **options | {"seed": seed})
        for seed in (3, 3, 4)
    )
    assert torch.equal(first.images, again.images) and torch.equal(first.scores, again.scores)
    assert not torch.equal(first.images, other.images)
    alone = constrained.maximise_phase(network, [1], r, **options)
    torch.testing.assert_close(alone.images[0], first.images[1])


def test_galleries_of_it_are_kept(tmp_path):
    network, options = Small(), {"magnitude": magnitude(), "iterations": 2}
    kept = tmp_path / "gallery.pt"
    paint = constrained.maximise_phase
    made, again = (
        class_images.gallery(
            paint, network, [0, 1, 2], batch_size=2, checkpoint=kept, seed=1, **options
        )
        for _ in range(2)
    )
    assert torch.equal(made, again) and len(list(tmp_path.glob("*.pt"))) == 1
    other = options | {"magnitude": 2 * magnitude()}
    class_images.gallery(paint, network, [0, 1, 2], checkpoint=kept, seed=1, **other)
    assert len(list(tmp_path.glob("*.pt"))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"magnitude": torch.ones(3, 12, 12)}, r"magnitude has shape \(3, 12, 12\), expected"),
        ({"magnitude": -torch.ones(3, 12, 7)}, "at least 0"),
        ({"sides": (0.5, 1.1)}, r"sides is \(0.5, 1.1\), expected 0 < smallest <= largest <= 1"),
        ({"crops": 0}, "crops is 0"),
        ({"noise": 0.0}, "noise is 0.0, expected above 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"classes": []}, "classes is empty"),
        ({"classes": [4]}, "classes holds 4, expected 0 to 3"),
        ({"snapshots_at": [6]}, "snapshots_at holds 6"),
    ],
)
def test_refuses(change, message):
    arguments = {"classes": [0], "magnitude": magnitude(), "iterations": 1} | change
    with pytest.raises(ValueError, match=message):
        constrained.maximise_phase(Small(), **arguments)


def test_a_magnitude_needs_photographs():
    with pytest.raises(ValueError, match="photographs is empty"):
        constrained.mean_magnitude([], 8)
    with pytest.raises(ValueError, match="size is 1, expected at least 2"):
        constrained.mean_magnitude(photographs(), 1)
