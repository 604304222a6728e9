"""Rollouts: a crew at work in training, and what an agent learns from its turns there."""
