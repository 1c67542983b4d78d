"""Helpers of four deep-learning practicals: transfer learning, visualisation, adaptation, GANs."""
