"""Stochastic comodulation of gains in convolutional networks, its predecessors and controls."""
