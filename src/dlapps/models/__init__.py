"""What learns: pretrained networks and their features, DANN, GANs. Knows no data set."""
