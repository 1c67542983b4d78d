"""Practical 2, where a network looks: maps of how much each pixel matters to a class score.

Every method has one call shape, `method(network, images, labels, **options)`, and returns one map
an image, (N, H, W). A network is in eval mode and gives class scores (N, K) for images
(N, 3, H, W) in [0, 1]; no call changes it or the images.
"""

from dlapps.models.gradients import score_gradients


def gradient(network, images, labels):
    """Return the saliency maps (N, H, W): max over the channels of |d score / d pixel|.

    images: float (N, 3, H, W) in [0, 1]; labels: integers (N,), the class whose score is explained,
    one an image. A map is in score per unit of pixel value, at least 0.
    Raises as `score_gradients` does.

    Simonyan, Vedaldi, Zisserman: "Deep Inside Convolutional Networks: Visualising Image
    Classification Models and Saliency Maps", ICLR workshop 2014, section 3.1.
    """
    _, gradients = score_gradients(network, images, labels)
    return gradients.abs().amax(dim=1)
