"""The record in other forms: OTLP, MLflow, files and chat logs, out and in."""
