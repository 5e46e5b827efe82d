"""Fitted models as plain values, and what is predicted with them."""
