"""The classifier that judges generated images."""

from torch import Tensor, nn

from dlapps.checks import check_image_form


class Judge(nn.Module):
    """Images (N, channels, 32, 32) in [0, 1] -> class scores (N, classes), by three convolutions.

    Its last hidden layer, `width` numbers per image, is the space in which images are compared.
    """

    def __init__(self, classes: int = 10, channels: int = 1, width: int = 128):
        super().__init__()
        self.channels, self.width = channels, width
        layers, inputs = [], channels
        for maps in (32, 64, 128):
            # Pooling comes first: batch norm and ReLU then have a quarter of the values to work on.
            layers += [
                nn.Conv2d(inputs, maps, 3, padding=1, bias=False),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(maps),
                nn.ReLU(),
            ]
            inputs = maps
        self.body = nn.Sequential(
            *layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * 16, width), nn.ReLU()
        )
        self.head = nn.Linear(width, classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the last hidden layer (N, width) for images (N, channels, 32, 32) in [0, 1]."""
        check_image_form(images, self.channels)
        if images.shape[2:] != (32, 32):
            raise ValueError(f"images has shape {tuple(images.shape)}, expected (N, C, 32, 32)")
        return self.body(2 * images - 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores (N, classes) for images (N, channels, 32, 32) in [0, 1]."""
        return self.head(self.features(images))
