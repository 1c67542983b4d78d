"""Practical 2, visualising networks: saliency, attacks, class images."""
