"""Arrays in, Matplotlib figures out. Knows no network and no data set."""

from dlapps.plotting import style
from dlapps.plotting.activations import activation_maps
from dlapps.plotting.adversarial import confidences, fooled_images
from dlapps.plotting.confusion import confusion_matrix, shares
from dlapps.plotting.curves import curve_panels, curves, draw_curves, running_mean
from dlapps.plotting.dots import dots, log_error_axis, scatters, spreads
from dlapps.plotting.images import (
    image_grid,
    image_table,
    labelled_mosaic,
    mosaic,
    mosaics,
    show_image,
    to_array,
)
from dlapps.plotting.plane import planes
from dlapps.plotting.predictions import predictions
from dlapps.plotting.saliency import saliency_maps
from dlapps.plotting.trainings import merits, training_sheet

style.apply()
